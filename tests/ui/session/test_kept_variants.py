"""After a restart: variants are back in the list with their names and their bits, and a fit that was made is not asked for again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from replaceme_core import refit
from replaceme_core.artifacts import Variant
from replaceme_core.plans.plan import CalibrationSection, HealingSection, MethodSection, ModelSection
from replaceme_core.storage import shelf
from replaceme_core.surgery import past_variants
from tests.support.app_session import click, finish, needs_demo, open_page, text_of
from ui.fit import heal
from ui.session import kept, live, variants, work
from ui.session.calibration_choice import Chosen
from ui.session.hub import hub
from ui.session.state import Studio

pytestmark = [needs_demo, pytest.mark.usefixtures("at_the_root")]
REFIT = MethodSection(name="refit")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path))
    return tmp_path / "variants"


@pytest.fixture
def started(folder: Path, small: Path) -> Callable[[], Studio]:
    """Sessions of a server that has just started: nothing is loaded, nothing is known."""

    def start() -> Studio:
        folder.mkdir(exist_ok=True)
        for resident in list(hub()._residents):
            hub().unload(resident)
        return measured(Studio(), small)

    return start


def measured(state: Studio, small: Path) -> Studio:
    finish(work.load_model(state, ModelSection(path=str(small), device="cpu")))
    finish(work.measure_set(state, Chosen(CalibrationSection(source="demo:mixture", max_tokens=1024, max_length=64))))
    return state


def logits(variant: Variant) -> torch.Tensor:
    ids = torch.arange(5, 45)[None]
    with variant.handle.borrow() as model, torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def save(state: Studio, name: str, method: MethodSection) -> None:
    assert state.span is not None
    finish(variants.keep_variant(state, name, live.transform(state, state.span, method)))


def test_variants_and_fits_of_a_session_are_found_again_after_a_restart(
    started: Callable[[], Studio], small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = started()
    save(state, "mine: a/b", MethodSection())
    save(state, "refitted", REFIT)
    save(state, "removed", MethodSection(name="drop"))
    for kind in ("lora", "transform"):
        section = HealingSection(kind=kind, steps=10, batch_tokens=512)  # type: ignore[arg-type]
        finish(heal.start(state, state.variants["removed"], section))
    before = {name: (logits(variant), variant) for name, variant in state.variants.items()}
    assert len(before) == 5
    assert all(variant.healing.lowered for _, variant in before.values() if variant.healing is not None)
    assert shelf.held("variants")[0] == 5
    assert state.resident is not None
    assert shelf.held("variants")[1] < state.resident.handle.n_bytes * 2, "what is kept is no model, but for the trained one"

    monkeypatch.setattr(refit, "fit", None)  # nothing may be fitted again
    again = started()
    assert list(again.variants) == list(before)
    for name, variant in again.variants.items():
        old_logits, old = before[name]
        assert torch.equal(logits(variant), old_logits), name
        assert variant.handle.fingerprint == old.handle.fingerprint
        assert (variant.recipe, variant.healing, variant.transform.cut) == (old.recipe, old.healing, old.transform.cut)
        assert all(proof.passed for proof in variant.proofs)
        assert [proof.name for proof in variant.proofs][-2:] == [proof.name for proof in old.proofs][-2:]
    assert again.resident is not None
    assert again.resident.cuts, "Compare shows the plain removal beside them"
    again.method = REFIT
    page = open_page("pages/3_Fit.py", again)
    assert "A refit runs the model again" not in text_of(page), "the refit is shown at once"
    model = open_page("pages/1_Model.py", again)
    assert "1 pass, 1 fit and 5 variants of this and earlier sessions are kept in" in text_of(model)

    beside = Studio()
    measured(beside, small)
    assert not beside.variants, "what a session of this process has is its own"
    click(model, "Remove them")
    assert (shelf.held("fits"), shelf.held("variants")) == ((0, 0), (0, 0))
    assert len(again.variants) == 5
    assert not started().variants


def test_what_is_renamed_copied_deleted_or_damaged_is_so_after_a_restart(
    started: Callable[[], Studio], folder: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = started()
    for name in ("old", "goes", "stays"):
        save(state, name, MethodSection())
    resident = state.resident
    assert resident is not None
    variants.rename(state, resident, "old", "new")
    variants.delete(state, resident, "goes")
    copy = variants.duplicate(state, resident, "stays")
    again = started()
    assert sorted(again.variants) == sorted(["new", "stays", copy])
    assert again.resident is not None
    record = folder / f"{again.resident.records[again.owner, 'new']}.safetensors"
    record.write_bytes(record.read_bytes()[:-100])
    third = started()
    assert sorted(third.variants) == sorted(["stays", copy])
    assert not record.exists()

    monkeypatch.setenv("REPLACEME_MODELS", str(small))
    assert not started().variants, "what is everybody's is nobody's"


def test_what_a_training_changed_is_kept_only_where_it_is_small(started: Callable[[], Studio], monkeypatch: pytest.MonkeyPatch) -> None:
    state = started()
    save(state, "first", MethodSection())
    monkeypatch.setattr(past_variants, "SMALL", 0)
    finish(heal.start(state, state.variants["first"], HealingSection(kind="lora", steps=12, batch_tokens=512)))
    (said,) = kept.not_kept(state)
    assert "LoRA" in said
    assert "lasts as long as this model stays loaded" in said
    assert said in text_of(open_page("pages/3_Fit.py", state))
    assert list(started().variants) == ["first"]
