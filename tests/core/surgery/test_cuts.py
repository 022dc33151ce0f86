"""Several spans: what a cut is, how they are chosen, and that a later span is fitted on what the pruned model computes."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from replaceme_core import pipeline, refit
from replaceme_core.artifacts import Cut, DistanceMatrix, Span
from replaceme_core.cli.main import main
from replaceme_core.errors import InputError, PlanError, SpanError
from replaceme_core.export import runs
from replaceme_core.plans.plan import MethodSection, PruningPlan, SpanSection
from replaceme_core.selection import spans
from replaceme_core.surgery import surgery
from tests.core.models.test_families import handle_of
from tests.core.refit.test_refit import heldout_error, tokens  # noqa: F401

CUT = Cut.of([Span(4, 5), Span(1, 3)])


def test_a_cut_is_sorted_and_what_touches_is_one_span():
    assert CUT.spans == (Span(1, 3), Span(4, 5))
    assert CUT.blocks == [1, 2, 4]
    assert CUT.kept(6) == [0, 3, 5]
    assert len(CUT) == 3
    assert Cut.of([Span(3, 5), Span(1, 3)]).spans == (Span(1, 5),)
    assert CUT.describe(6) == "removes blocks 1\u20132, 4 of 0\u20135; carriers: blocks 0, 3"
    assert SpanSection.model_validate(CUT.plain()).more == [(4, 5)]
    with pytest.raises(SpanError, match="overlap"):
        Cut.of([Span(1, 4), Span(3, 5)])
    with pytest.raises(SpanError, match="does not fit"):
        CUT.check(4)


@pytest.mark.parametrize("text", ["6:3", "4:4", "2:6,6:3", "2:4,4:3", "2:4,6:6"])
def test_a_span_without_a_block_is_refused_and_takes_nothing_from_the_others(text):
    with pytest.raises(SpanError, match="holds no block; write START:END"):
        Cut.parse(text)


@pytest.mark.parametrize(("more", "said"), [([[6, 3]], "The span 6:3 holds no block"), ([[4, 9]], "The spans 2:6 and 4:9 overlap")])
def test_a_plan_says_at_once_that_its_spans_do_not_go_together(more, said):
    with pytest.raises(PlanError, match=said):
        PruningPlan.parse({"model": {"path": "x"}, "span": {"start": 2, "end": 6, "more": more}})


def random_distances(n_blocks: int, seed: int) -> DistanceMatrix:
    values = torch.rand(n_blocks + 1, n_blocks + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return DistanceMatrix(values, "all", 10, 2, torch.zeros_like(values))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("total", "count"), [(1, 1), (3, 1), (3, 2), (4, 2), (4, 3), (3, 3)])
def test_the_best_spans_are_those_of_a_search_through_every_set_of_blocks(total, count, seed):
    distances = random_distances(7, seed)
    every = []
    for blocks in itertools.combinations(range(1, 7), total):
        cut = Cut.of(Span(block, block + 1) for block in blocks)
        if len(cut.spans) == count:
            every.append((sum(distances.at(span) for span in cut.spans), cut))
    found = spans.several(distances, total, count)
    assert found == min(every, key=lambda pair: pair[0])[1]


def test_more_blocks_than_there_are_is_a_sentence():
    with pytest.raises(SpanError, match="Choose 3 to 4 blocks"):
        spans.several(random_distances(7, 0), 5, 3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "bloom", "qwen2"])
@pytest.mark.parametrize("method", ["drop", "weighted_least_squares", "refit", "sequential_refit"])
def test_every_kind_of_block_and_method_is_cut_twice_and_proved(name, method, tokens):  # noqa: F811
    handle = handle_of(name)
    fitted = refit.fit(handle, tokens, CUT, method)
    variant = surgery.prune(handle, fitted, name)
    assert variant.handle.n_blocks == 3
    assert all(proof.passed for proof in variant.proofs)
    assert fitted.cut == CUT
    assert (fitted.report.heldout_error < fitted.report.removal_error) == (method != "drop")


def test_the_second_span_is_fitted_on_the_pruned_stream_and_so_beats_two_fits_apart(tokens):  # noqa: F811
    """Second route for 'in sequence': two transforms that were each fitted on the intact model, put in together."""
    handle = handle_of("llama")
    together = refit.fit(handle, tokens, CUT, "weighted_least_squares")
    apart = {
        name: value
        for span in CUT.spans
        for name, value in refit.fit(handle, tokens, span, MethodSection(name="weighted_least_squares")).weights.items()
    }
    assert torch.equal(apart["0.mlp.down_proj.weight"], together.weights["0.mlp.down_proj.weight"])
    assert not torch.equal(apart["3.mlp.down_proj.weight"], together.weights["3.mlp.down_proj.weight"])
    error = {}
    for key, weights in (("together", together.weights), ("apart", apart)):
        fitted = type(together)(Span(1, 3), "x", None, together.report, {}, weights, (), {}, (Span(4, 5),))
        error[key] = heldout_error(handle, surgery.prune(handle, fitted, key).handle, 5, 2, tokens)
    assert error["together"] < error["apart"]


def test_a_method_of_one_span_is_refused_for_several(tokens):  # noqa: F811
    with pytest.raises(InputError, match="not fitted in sequence"):
        refit.fit(handle_of("llama"), tokens, CUT, "cosine")


def test_a_plan_names_several_spans_or_has_them_chosen_and_the_export_says_so(llama_folder: Path, tmp_path: Path):
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": "demo:stories", "max_tokens": 600, "max_length": 64},
        "method": {"name": "weighted_least_squares"},
    }
    named = pipeline.run(PruningPlan.parse(data | {"span": {"start": 1, "end": 2, "more": [[3, 4]]}}), tmp_path / "named")
    assert named.variant.transform.cut == Cut((Span(1, 2), Span(3, 4)))
    card = (tmp_path / "named" / "model" / "README.md").read_text(encoding="utf-8")
    assert "carriers: blocks 0, 2" in card
    assert runs.read_run(tmp_path / "named").cut == named.variant.transform.cut
    chosen = pipeline.run(PruningPlan.parse(data | {"span": {"share": 0.34, "count": 2}}), tmp_path / "chosen")
    assert chosen.variant.transform.cut == spans.several(chosen.measurement.distances["all"], 2, 2)
    for bad, said in (({"share": 0.5, "more": [[1, 2]]}, "more goes with"), ({"start": 1, "end": 2, "count": 2}, "count goes with")):
        with pytest.raises(PlanError, match=said):
            PruningPlan.parse(data | {"span": bad})


@pytest.mark.parametrize("named", [{"start": 3, "end": 4, "more": [[2, 3]]}, {"start": 2, "end": 3, "more": [[3, 4]]}], ids=str)
@pytest.mark.parametrize("method", ["weighted_least_squares", "refit"])
def test_spans_that_touch_are_fitted_as_the_one_span_that_they_are_in_either_order(llama_folder, tmp_path, monkeypatch, named, method):
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "cache"))  # no pass of another test that stored more
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": "demo:stories", "max_tokens": 600, "max_length": 64},
        "method": {"name": method},
    }
    touching, one = (
        pipeline.run(PruningPlan.parse(data | {"span": span}), tmp_path / str(number)).variant.transform
        for number, span in enumerate((named, {"start": 2, "end": 4}))
    )
    assert touching.cut == one.cut == Cut((Span(2, 4),))
    assert touching.report.heldout_error == one.report.heldout_error


def test_the_command_line_takes_several_spans(llama_folder: Path, tmp_path: Path):
    options = ["fit", "--model", str(llama_folder), "--calibration", "demo:stories", "--max-tokens", "600", "--max-length", "64", "--json"]
    done = CliRunner().invoke(main, [*options, "--span", "1:2,3:4", "--method", "refit", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["cut"] == "1:2, 3:4"
    assert CliRunner().invoke(main, [*options, "--span", "1:2;3:4", "--out", str(tmp_path / "no")]).exit_code == 1
