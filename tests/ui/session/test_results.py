"""What may stand side by side: figures of one text, and times of one run."""

from types import SimpleNamespace
from typing import Any

import torch

from replaceme_core.calibration.calibration import CalibrationSet
from ui.session.results import QualityKey, Results


def row(name: str) -> Any:
    return SimpleNamespace(name=name)


def measured(*keys: tuple[str, str, int]) -> Results:
    """Figures of systems against 'o', each (system, text, tokens), in the order in which they were measured."""
    found = Results()
    found.divergences = {QualityKey("o", *key): row(" ".join(map(str, key))) for key in keys}
    return found


def test_figures_of_two_texts_do_not_stand_side_by_side() -> None:
    found = measured(("o", "demo", 512), ("a", "demo", 512), ("o", "own", 512), ("b", "own", 512))
    asked = {"original": "o", "first": "a", "second": "b"}
    assert {name: each.name for name, each in found.on_one_text("o", asked).items()} == {"original": "o own 512", "second": "b own 512"}
    del asked["second"]
    assert {name: each.name for name, each in found.on_one_text("o", asked).items()} == {"original": "o demo 512", "first": "a demo 512"}
    assert found.on_one_text("another", asked) == {}


def test_as_many_tokens_belong_to_the_text() -> None:
    found = measured(("o", "demo", 512), ("a", "demo", 512), ("o", "demo", 2048))
    assert {each.name for each in found.on_one_text("o", {"original": "o", "first": "a"}).values()} == {"o demo 512", "a demo 512"}


def test_times_of_two_runs_do_not_stand_side_by_side() -> None:
    found = Results()
    found.timings = [{"o": "quiet", "a": "quiet"}, {"o": "busy", "b": "busy"}]  # type: ignore[dict-item]
    assert found.timed_together(["o", "a"]) == {"o": "quiet", "a": "quiet"}
    assert found.timed_together(["o", "b"]) == {"o": "busy", "b": "busy"}
    assert found.timed_together(["o"]) == {"o": "busy"}, "the newest"
    assert found.timed_together(["c"]) == {}


def test_test_parts_are_told_apart_where_the_rest_is_the_same() -> None:
    def with_test(*rows: list[int]) -> CalibrationSet:
        return CalibrationSet("a set", [torch.tensor([1, 2])], [False], "the same", [], test=[torch.tensor(each) for each in rows])

    found = [with_test([1, 2, 3]), with_test([1, 2], [3]), with_test([1, 2, 4]), with_test()]
    assert len({each.test_fingerprint for each in found}) == len(found)
    assert with_test([1, 2, 3]).test_fingerprint == found[0].test_fingerprint
