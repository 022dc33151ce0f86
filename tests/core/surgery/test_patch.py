"""A transform as a layer of its own: exact for every kind of block, priced, and refused where it cannot be written."""

from pathlib import Path

import pytest
import torch

from replaceme_core import pipeline
from replaceme_core.artifacts import Span
from replaceme_core.errors import ExportError, PlanError
from replaceme_core.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture.modality import TEXT
from replaceme_core.plans.plan import MethodSection, PruningPlan
from replaceme_core.solvers import fit
from replaceme_core.surgery import patch, surgery
from tests.core.models.test_families import MERGEABLE, handle_of, tokens  # noqa: F401

SPAN = Span(2, 4)
PARTS = {"full": {}, "diagonal": {}, "low_rank": {"rank": 3}, "low_rank_update": {"rank": 3}, "triangular": {}}


@pytest.mark.parametrize("name", MERGEABLE)
def test_a_patch_is_exact_in_every_family_also_where_a_norm_follows_the_writer(name, tokens):  # noqa: F811
    handle = handle_of(name)
    fitted = fit(measure(handle, tokens, spans=[SPAN]), SPAN, MethodSection(separate=True))
    variant = surgery.prune(handle, fitted, name)
    assert all(proof.passed for proof in variant.proofs)
    width = handle.width
    removed = surgery.prune(handle, fit(measure(handle, tokens, spans=[SPAN]), SPAN, "drop"), "cut")
    assert variant.handle.n_parameters == removed.handle.n_parameters + width**2


@pytest.mark.parametrize("structure", PARTS)
def test_every_structure_costs_what_was_said_and_computes_what_the_merged_one_does(structure, tokens):  # noqa: F811
    handle = handle_of("llama")
    measured = measure(handle, tokens, spans=[SPAN])
    section = MethodSection(structure=structure, **PARTS[structure])
    merged = surgery.prune(handle, fit(measured, SPAN, section), "merged").handle
    apart = section.model_copy(update={"separate": True})
    patched = surgery.prune(handle, fit(measured, SPAN, apart), "patched").handle
    assert patched.n_parameters - merged.n_parameters == patch.parameters_of(apart, handle.width)
    with merged.borrow() as left, patched.borrow() as right, torch.no_grad():
        ids = TEXT.probe(left, None, (2, 20))
        one, other = left(input_ids=ids).logits, right(input_ids=ids).logits
        assert sum(found.n_parameters for found in patch.patches_of(right)) == patch.parameters_of(apart, handle.width)
    # the merge of a writer with a bias transforms the bias too, so that both compute the same
    assert float((one - other).norm() / one.norm()) < 1e-5


def test_a_patched_model_is_not_written_and_says_why(tokens, llama_folder: Path, tmp_path: Path):  # noqa: F811
    handle = handle_of("llama")
    variant = surgery.prune(handle, fit(measure(handle, tokens, spans=[SPAN]), SPAN, MethodSection(separate=True)), "x")
    with pytest.raises(ExportError, match="fit it again without 'separate'"):
        export.export(variant, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    plan = {"model": {"path": str(llama_folder)}, "span": {"start": 2, "end": 4}, "method": {"separate": True}}
    with pytest.raises(PlanError, match="leave it out"):
        pipeline.run(PruningPlan.parse(plan), tmp_path / "run")
    with pytest.raises(PlanError, match="takes no separate"):
        MethodSection.parse({"name": "refit", "separate": True})
