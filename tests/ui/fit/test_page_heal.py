"""Healing on the Fit page: its words, the job, the curve, the new variant, and what it says when it cannot."""

from dataclasses import replace

import pytest

from replaceme_core.calibration.calibration import prepare
from replaceme_core.plans.plan import CalibrationSection, HealingSection, MethodSection, ModelSection, PruningPlan
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from tests.support.vega import valid
from ui.fit import heal as heal_view
from ui.look.palette import DARK, LIGHT
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen, pasted
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
QUICK = HealingSection(kind="transform", steps=2, batch_tokens=256)


@pytest.fixture(scope="module")
def demo() -> Studio:
    """The demo model measured on a few tokens: each look of a healing runs the held-out part anew."""
    state = Studio()
    finish(work.load_model(state, ModelSection(path="demo")))
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=2500, max_length=64))))
    return state


def test_a_kept_variant_is_healed_into_a_new_one_with_its_curve(kept: Studio) -> None:
    app = open_page("pages/3_Fit.py", kept)
    said = text_of(app)
    assert "Heal a saved variant (training)" in said
    assert "Healing is training" in said
    assert "train tokens of the calibration set" in said
    app.radio(key="heal_kind").set_value("transform")
    app.number_input(key="heal_steps").set_value(2)
    run(app)
    click(app, "Heal it (training)")
    job = runner().latest(kept.owner)
    finish(job)
    assert job.title.startswith("Healing (training)")
    run(app)
    healed = kept.variants["first, T healed (training)"]
    assert healed.handle.name == healed.name
    assert healed.healing is not None
    assert PruningPlan.parse(healed.recipe).healing.label == "healed (training)"
    assert {"Held-out KL before", "Held-out KL after", "Trained in"} <= {metric.label for metric in app.metric}
    names = app.selectbox(key="heal_variant").options
    assert names == ["first"], "what is healed is not healed again"
    table = next(frame.value for frame in app.dataframe if "held-out error" in frame.value.columns)
    assert [value.startswith("training: KL") for value in table["healed"]] == [False, True]
    for page in ("pages/4_Compare.py", "pages/6_Export.py"):
        open_page(page, kept)
    assert list(variants.systems(kept, [healed.name]))[-1] == healed.name


def test_another_healing_of_the_same_variant_gets_a_number_and_the_same_one_is_not_run_twice(kept: Studio) -> None:
    other = QUICK.model_copy(update={"steps": 4})
    first, second, again = (heal_view.start(kept, kept.variants["first"], chosen) for chosen in (QUICK, other, QUICK))
    for job in (first, second, again):
        finish(job)
    assert again is first
    assert {"first, T healed (training)", "first, T healed (training) (2)"} <= set(kept.variants)


def test_a_cancelled_healing_keeps_nothing_and_goes_on_when_started_again(kept: Studio) -> None:
    chosen = HealingSection(kind="transform", steps=40, batch_tokens=128, seed=3)
    before = set(kept.variants)
    job = heal_view.start(kept, kept.variants["first"], chosen)
    while job.active and job.done < 5:
        job.finished.wait(0.05)
    job.cancel.set()
    assert job.finished.wait(60)
    assert job.state == "cancelled"
    assert set(kept.variants) == before
    folder = heal_view._folder(kept, kept.variants["first"], chosen)
    from replaceme_core.healing import checkpoints

    stood = checkpoints.points(folder)[-1].step
    assert stood >= 2
    again = heal_view.start(kept, kept.variants["first"], chosen)
    finish(again)
    assert len(kept.variants) == len(before) + 1


def test_a_variant_of_another_text_is_not_healed(kept: Studio) -> None:
    state = replace(kept)
    finish(work.measure_set(state, Chosen(CalibrationSection(max_tokens=600, max_length=64))))
    app = open_page("pages/3_Fit.py", state)
    assert any("another calibration set" in item.value for item in app.info)
    assert next(button for button in app.button if button.label.startswith("Heal it")).disabled


def test_nor_is_one_of_another_pasted_text_which_has_the_same_name(demo: Studio) -> None:
    state = replace(demo, owner="pastes")
    one, other, one_again = (
        pasted([f"{word} {number} times." * 9 for number in range(80)]) for word in ("Rain fell", "Snow lay", "Rain fell")
    )
    section = CalibrationSection(source=one.source, max_tokens=2500, max_length=64)
    tokenizer = demo.resident.handle.tokenizer
    chosen = [Chosen(section, prepare(section, tokenizer, given.texts, given.name), given) for given in (one, other, one_again)]
    finish(work.measure_set(state, chosen[0]))
    finish(variants.keep_variant(state, "of one", live.transform(state, state.span, MethodSection())))
    disabled = []
    for each in chosen:
        finish(work.measure_set(state, each))
        app = open_page("pages/3_Fit.py", state)
        disabled.append(next(button for button in app.button if button.label.startswith("Heal it")).disabled)
    assert disabled == [False, True, False]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_the_curve_has_both_parts_and_the_kept_step(kept: Studio, colours) -> None:
    report = next(variant.healing for variant in kept.variants.values() if variant.healing is not None)
    chart = valid(heal_view.curve(report.points, report.best, colours))
    rows = [row for rows in chart["datasets"].values() for row in rows]
    assert {row["part"] for row in rows if "part" in row} == {"held-out", "train"}
    assert [row["step"] for row in rows if set(row) == {"step"}] == [report.best]
    assert len([row for row in rows if row.get("part") == "train"]) == len(report.points) - 1
