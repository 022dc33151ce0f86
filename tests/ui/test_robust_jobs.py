"""Every kind of job can be cancelled at any of its steps, leaves nothing half made, and can be started again; a double click is one job."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ExportSection, HealingSection, MethodSection, ModelSection
from replaceme_core.span import Cut
from replaceme_core.studies.planner import Aim
from tests.support.app_session import PAGES, finish, open_page
from tests.support.tiny_models import save_tiny
from ui.benchmarks import jobs as benchmark_runs
from ui.blocks import savings
from ui.blocks import search as search_view
from ui.blocks.state import MeasuredState
from ui.compare import jobs as scoring
from ui.export import jobs as export_work
from ui.export.jobs import ExportState
from ui.fit import heal as heal_view
from ui.fit import jobs as fit_jobs
from ui.session import live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.jobs import ACTIVE, Job, Runner, runner
from ui.session.results import Results
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
TEXT = CalibrationSection(max_tokens=600, max_length=32)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A session with a tiny model, measured, one variant kept."""
    state = Studio()
    folder = save_tiny(tmp_path_factory.mktemp("ready"), "llama", seed=3)
    finish(work.load_model(state, ModelSection(path=str(folder))))
    finish(work.measure_set(state, Chosen(TEXT)))
    finish(variants.keep_variant(state, "first", live.transform(state, state.span, state.method)))
    return state


def columns(state: Studio) -> dict:
    return variants.systems(state, ["first"])


KINDS: dict[str, Callable[[Studio, Path], Job]] = {
    "load": lambda state, place: work.load_model(state, ModelSection(path=str(save_tiny(place / "another", "llama", seed=9)))),
    "measure": lambda state, _: work.measure_set(state, Chosen(TEXT.model_copy(update={"seed": 1}))),
    "fit": lambda state, _: fit_jobs.fit_slowly(state, state.span, MethodSection(name="sequential_refit")),
    "keep": lambda state, _: variants.keep_variant(state, "second", live.transform(state, state.span, state.method)),
    "time": lambda state, _: savings.time_cuts(state, [Cut((state.span,))]),
    "quality": lambda state, _: scoring.measure_quality(state, columns(state), "calibration", 200),
    "benchmarks": lambda state, _: benchmark_runs.run(state, columns(state), EvaluationSection(tasks="demo", limit=2)),
    "places": lambda state, _: search_view.find_places(state, Aim(shares=(0.25,), k=2)),
    "heal": lambda state, _: heal_view.start(state, state.variants["first"], HealingSection(steps=4)),
    "export": lambda state, place: export_work.export_variant(state, state.variants["first"], str(place / "export"), ExportSection()),
    "zip": lambda state, _: export_work.zip_variant(state, state.variants["first"], "packed", ExportSection()),
}


def outcome(state: Studio, place: Path) -> dict[str, object]:
    """Everything that a job may add."""
    return {
        "model": state.model,
        "measurement": id(state.measurement),
        "fits": sum(key[0] == "fit" for key in state.slot(live.LiveResults).held),
        "variants": sorted(state.variants),
        "timings": len(state.slot(Results).timings),
        "divergences": len(state.slot(Results).divergences),
        "scores": len(state.slot(Results).scores),
        "places": id(state.slot(MeasuredState).places),
        "exports": len(state.slot(Results).exports),
        "zipped": id(state.slot(ExportState).zipped),
        "folders": sorted(path.name for path in place.iterdir() if path.name != "another"),
    }


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_job_of_every_kind_is_cancelled_at_its_first_steps_and_can_be_started_again(
    ready: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    update = Job.update
    live.transform(ready, ready.span, ready.method)  # what the page shows before a button is pressed
    for step in (2, 3):
        before, told = outcome(ready, tmp_path), [0]

        def stopping(job: Job, *said: object, step: int = step, told: list[int] = told) -> None:
            told[0] += 1
            if told[0] == step:  # the first is that of `run` itself
                job.cancel.set()
            update(job, *said)

        monkeypatch.setattr(Job, "update", stopping)
        job = KINDS[kind](ready, tmp_path)
        assert job.finished.wait(120)
        assert job.state == "cancelled", f"told of {told[0]} steps, ended as {job.state}: {job.error}"
        assert outcome(ready, tmp_path) == before, f"cancelled at step {step}"
        monkeypatch.undo()
        monkeypatch.chdir(Path(__file__).resolve().parent.parent.parent)
    job = KINDS[kind](ready, tmp_path)
    finish(job)
    after = outcome(ready, tmp_path)
    assert after != before, "it can be started again, and then it adds something"
    if kind == "load":  # the tests after this one use the model of before
        finish(work.load_model(ready, hub().get(before["model"]).section))
        finish(work.measure_set(ready, Chosen(TEXT)))


@pytest.mark.parametrize("path", ["app.py", *PAGES])
def test_every_page_offers_cancel_while_a_job_runs(ready: Studio, path: str) -> None:
    job = Job("Long work", ready.owner, lambda job: [job.update(i, 10_000, "steps", "working") or time.sleep(0.01) for i in range(10_000)])
    runner().submit(job)
    app = open_page(path, ready)
    cancel = [button for button in app.button if button.label == "Cancel"]
    assert len(cancel) == 1
    cancel[0].click()
    app.run()
    assert job.finished.wait(30)
    assert job.state == "cancelled"
    runner().forget(job)


@pytest.mark.parametrize("path", ["app.py", *PAGES])
def test_no_primary_button_can_start_a_second_job_while_one_runs(ready: Studio, path: str) -> None:
    """The Overview's buttons only lead on, where a start would find the job that is there; Generate and Delete it are no such jobs.

    The job is one that loads or measures; beside others short work may begin (see `session.test_turns`).
    """
    long_work = lambda job: [job.update(i, 10_000, "steps", "working") or time.sleep(0.01) for i in range(10_000)]  # noqa: E731
    job = Job("Long work", ready.owner, long_work, moves=True)
    runner().submit(job)
    try:
        app = open_page(path, ready)
    finally:
        job.cancel.set()
        assert job.finished.wait(30)
        runner().forget(job)
    leads_on = ("Continue", "Next", "Start with a real language model", "Start with the small demo, in seconds", "Generate", "Delete it")
    assert not [
        button.label for button in app.button if is_primary(button) and not button.disabled and not button.label.startswith(leads_on)
    ]


def is_primary(button: object) -> bool:
    return button.proto.type == "primary"


def test_the_second_half_of_a_double_click_gets_the_job_of_the_first() -> None:
    own, done = Runner(), []
    first = own.submit(Job("Export", "me", lambda _job: time.sleep(0.2) or done.append(1)))
    assert own.submit(Job("Export", "me", lambda _job: done.append(2))) is first
    assert first.finished.wait(30)
    assert own.submit(Job("Export", "me", lambda _job: done.append(3))) is first, "done a moment after it was asked for"
    others = [
        Job("Export", "you", lambda _job: None),
        Job("Export", "me", lambda _job: None, "bfloat16"),
        Job("Fit", "me", lambda _job: None),
    ]
    assert [own.submit(job) is job for job in others] == [True] * 3, "another person, other settings, another kind"
    first.asked_at -= 60
    again = own.submit(Job("Export", "me", lambda _job: done.append(4)))
    assert again is not first
    assert again.finished.wait(30)
    assert done == [1, 4]


def test_a_job_that_failed_or_was_cancelled_can_be_asked_for_again_at_once() -> None:
    own = Runner()
    failed = own.submit(Job("Export", "me", lambda _job: 1 / 0))
    assert failed.finished.wait(30)
    again = own.submit(Job("Export", "me", lambda _job: None))
    assert again is not failed
    assert again.finished.wait(30)
    assert again.state not in ACTIVE
