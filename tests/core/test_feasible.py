"""What a fit asks of model, span and settings is known before the pass."""

from pathlib import Path
from typing import Any

import pytest

from replaceme_core import pipeline
from replaceme_core.dry_run import dry_run
from replaceme_core.errors import ReplaceMeError
from replaceme_core.feasible import require_fits
from replaceme_core.plans.plan import MethodSection, PruningPlan
from tests.core.models.test_families import handle_of
from tests.support.tiny_models import tokenizer

TEXT = {"source": "demo:stories", "max_tokens": 600, "max_length": 64}


class Stages:
    """What a run said that it was doing."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def update(self, _done: float, _total: float, _unit: str, what: str) -> None:
        self.said.add(what)

    @property
    def has_passed(self) -> bool:
        return any("pass" in what or "refitting" in what for what in self.said)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {family: tmp_path_factory.mktemp(family) for family in ("llama", "gemma2")}
    for family, folder in found.items():
        with handle_of(family).borrow() as model:
            model.save_pretrained(folder)
        tokenizer(folder)
    return found


@pytest.mark.parametrize(
    ("family", "model", "span", "method", "said"),
    [
        ("gemma2", {}, {"start": 2, "end": 4}, {"structure": "full"}, "only a diagonal transform"),
        ("gemma2", {}, {"start": 2, "end": 4}, {"name": "cosine"}, "only a diagonal transform"),
        ("gemma2", {}, {"start": 2, "end": 4}, {"name": "refit"}, "nothing can be solved in closed form"),
        ("gemma2", {}, {"share": 0.34, "count": 2}, {"structure": "diagonal"}, "not fitted in sequence"),
        ("llama", {"device": "spread"}, {"start": 2, "end": 4}, {"name": "refit"}, "or choose a transform"),
        ("llama", {"device": "spread"}, {"share": 0.34, "count": 2}, {}, "or remove one span alone"),
        ("llama", {}, {"start": 2, "end": 4}, {"name": "sequential_refit", "lookahead": 5}, "lookahead of 5 does not fit"),
        ("llama", {}, {"start": 2, "end": 4}, {"name": "least_squares", "structure": "low_rank", "rank": 500}, "rank is 500"),
        ("llama", {}, {"start": 2, "end": 3, "more": [[4, 5]]}, {"name": "cosine"}, "not fitted in sequence"),
        ("llama", {}, {"start": 2, "end": 3, "more": [[4, 5]]}, {"name": "weighted_least_squares", "ridge": 0.1}, "no ridge of its own"),
    ],
)
def test_what_cannot_be_fitted_is_said_before_the_pass(
    folders: dict[str, Path], tmp_path: Path, family: str, model: dict[str, Any], span: dict[str, Any], method: dict[str, Any], said: str
) -> None:
    stages = Stages()
    plan = {"model": {"path": str(folders[family])} | model, "calibration": TEXT, "span": span} | ({"method": method} if method else {})
    with pytest.raises(ReplaceMeError, match=said) as raised:
        pipeline.run(PruningPlan.parse(plan), tmp_path / "run", stages)
    with pytest.raises(type(raised.value), match=said):
        dry_run(PruningPlan.parse(plan))
    assert stages.said
    assert not stages.has_passed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", [{}, {"method": {"name": "least_squares"}}], ids=["nothing said", "no structure said"])
def test_a_family_that_takes_only_a_diagonal_gets_one_unless_another_is_named(
    folders: dict[str, Path], tmp_path: Path, method: Any
) -> None:
    stages = Stages()
    plan = {"model": {"path": str(folders["gemma2"])}, "calibration": TEXT, "span": {"start": 2, "end": 4}}
    done = pipeline.run(PruningPlan.parse(plan | method), tmp_path / "run", stages)
    assert stages.has_passed
    assert done.variant.transform.method.endswith("least_squares_diagonal")
    assert all(proof.passed for proof in done.variant.proofs)
    assert PruningPlan.read(tmp_path / "run" / "plan.yaml").method.structure == "diagonal"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("name", ["drop", "deep_refit"])
def test_what_every_family_takes_is_not_refused(family: str, name: str) -> None:
    require_fits(handle_of(family), MethodSection.parse({"name": name}))
