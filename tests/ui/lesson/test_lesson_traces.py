"""The lesson's bundled figures cannot go stale: some of each file are computed anew from the shipped demo model and compared."""

import json
from typing import Any

import pytest

from demo import lesson_traces
from demo.lesson_courses import DEMO
from demo.lesson_traces import TARGET, Bench
from replaceme_core.artifacts import Span
from tests.support.app_session import needs_demo

pytestmark = needs_demo
CLOSE = 2e-3
"""five digits are written; a processor's own order of sums moves a KL by less"""


@pytest.fixture(scope="module")
def on() -> Bench:
    return lesson_traces.bench()


def bundled(name: str) -> dict[str, Any]:
    return json.loads((TARGET / "demo" / f"{name}.json").read_text(encoding="utf-8"))


def row_of(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def same(found: dict[str, Any], kept: dict[str, Any]) -> None:
    assert found.keys() == kept.keys()
    for key, value in found.items():
        assert kept[key] == (pytest.approx(value, rel=CLOSE, abs=1e-4) if isinstance(value, float) else value), key


def test_the_files_are_small_and_say_how_they_were_made(on: Bench) -> None:
    for name in lesson_traces.PARTS:
        assert bundled(name)["made"] == lesson_traces.made(on)
    assert sum(path.stat().st_size for path in TARGET.rglob("*.json")) <= 150_000


def test_the_matrix_is_that_of_the_demo_model(on: Bench) -> None:
    found, kept = lesson_traces.matrix(on), bundled("matrix")["matrix"]
    for key in ("distances", "spread"):
        for row, old in zip(found[key], kept[key], strict=True):
            assert [value for value in old if value is not None] == pytest.approx([x for x in row if x == x], rel=CLOSE, abs=1e-6)
    assert kept["norms"] == pytest.approx(found["norms"], rel=CLOSE)
    assert kept["n_tokens"] == found["n_tokens"]
    assert bundled("matrix")["block"] == lesson_traces.block(on)


def test_removal_and_fit_cost_what_the_file_says(on: Bench) -> None:
    kept = bundled("removals")["rows"]
    for row in lesson_traces.removals(on, [on.shown["closest"], Span(1, 2)]):
        same(row, row_of(kept, span=row["span"], method=row["method"]))


def test_the_texts_are_what_the_models_write(on: Bench) -> None:
    kept = bundled("texts")["rows"]
    for row in lesson_traces.texts(on, [on.shown["first"]], DEMO.prompts[:1]):
        assert row in kept


def test_starved_fits_and_other_texts_are_those_of_the_file(on: Bench) -> None:
    kept = bundled("wrong")
    for row in lesson_traces.starved(on, DEMO.sizes[:1]):
        same(row, row_of(kept["starved"], tokens=row["tokens"], no_ridge=row["no_ridge"]))
    for row in lesson_traces.sources(on, ["random"]):
        same(row, row_of(kept["sources"], source="random"))


def test_a_refit_costs_what_the_file_says(on: Bench) -> None:
    for row in lesson_traces.refits(on, [on.shown["last"]], ["refit"]):
        same(row, row_of(bundled("refits")["rows"], span=row["span"], method=row["method"]))
