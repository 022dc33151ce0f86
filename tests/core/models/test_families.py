"""Every family: the probe confirms its row, three cuts pass all three proofs, the original stays as it was."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import ModelHandle, Proof, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import FamilyError, ProofError
from replaceme_core.export.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture import families, linearity
from replaceme_core.models.architecture.family_table import FAMILIES as ROWS
from replaceme_core.models.loading import make_handle
from replaceme_core.plans.plan import MethodSection
from replaceme_core.solvers import fit
from replaceme_core.surgery.surgery import prune
from tests.support.family_configs import FAMILIES, REFUSED, UNKNOWN, even_tokens, random_tokens

CUTS = [Span(1, 3), Span(2, 5), Span(4, 6)]
MERGEABLE = [name for name in FAMILIES if name not in REFUSED]


_LARGER = {"smollm3": 8, "gpt_neo": 8, "gpt2_scaled": 8}
"""where a rule of single blocks is seen only if attention is sharp (tests/core/models/test_family_rules.py); 3 elsewhere"""


def random_model(name: str, configs: dict[str, Any] = FAMILIES) -> Any:
    """Random weights large enough that every block and every rule of it matters, norms and biases perturbed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configs[name]()).eval().requires_grad_(False)
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif not parameter.any():  # biases of experts begin as zeros
            parameter.add_(0.05 * torch.randn_like(parameter))
        elif not any(word in key for word in ("embed", "wte", "wpe", "lm_head")):
            parameter.mul_(_LARGER.get(name, 3))
    if name == "gpt2_scaled":  # scores are divided by number + 1, and the stream grows from block to block
        for number, block in enumerate(model.transformer.h):
            block.attn.c_attn.weight[:, : model.config.n_embd].mul_(8 * (number + 1))
            block.attn.c_proj.weight.mul_(4 * (number + 1))
    return model


def handle_of(name: str, configs: dict[str, Any] = FAMILIES) -> ModelHandle:
    model = random_model(name, configs)
    return make_handle(name, model, _NoTokenizer(), linearity.confirm(model, families.find(model.config)))


class _NoTokenizer:
    """Families are tested on token ids."""

    bos_token = eos_token_id = None

    def save_pretrained(self, _folder: Path) -> None:
        pass


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(6)


def writing(handle: ModelHandle) -> MethodSection:
    """The method for what the family can write."""
    return MethodSection(structure="diagonal" if handle.family.merge == "diagonal" else "full")


def pruned(handle: ModelHandle, tokens: CalibrationSet, span: Span) -> Variant:
    return prune(handle, fit(measure(handle, tokens, spans=[span]), span, writing(handle)), "pruned")


@pytest.mark.parametrize("name", MERGEABLE)
def test_three_cuts_pass_every_proof_and_leave_the_original_alone(name: str, tmp_path: Path) -> None:
    handle = handle_of(name)
    with handle.borrow() as model:
        weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        config = copy.deepcopy(model.config.to_dict())
    measured = measure(handle, even_tokens(6), spans=CUTS)
    for span in CUTS:
        variant = prune(handle, fit(measured, span, writing(handle)), "pruned")
        proofs: tuple[Proof, ...] = export(variant, tmp_path / str(span.start)).proofs
        assert [proof.name for proof in proofs] == ["merged = hooked", "cached = uncached", "reload = memory"]
        assert all(proof.passed for proof in proofs)
        assert variant.handle.n_blocks == 6 - len(span)
        again = AutoModelForCausalLM.from_pretrained(tmp_path / str(span.start)).eval()
        assert make_handle("again", again, None, handle.family).fingerprint == variant.handle.fingerprint
    with handle.borrow() as model:
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
        assert model.config.to_dict() == config


@pytest.mark.parametrize("name", MERGEABLE)
def test_the_probe_confirms_the_row_far_below_its_tolerance_and_its_blocks_are_those_found_without_names(name: str) -> None:
    model = random_model(name)
    assert linearity.find_blocks(model) == families.find(model.config).blocks
    row = linearity.confirm(model, families.find(model.config))
    assert row.merge != "refused"
    assert linearity.probe(model, row) < 1e-6


def test_a_norm_after_the_block_is_found_by_measurement_and_refused(tokens: CalibrationSet) -> None:
    handle = handle_of("opt_post_norm")
    assert handle.family.merge == "refused"
    with pytest.raises(FamilyError, match="measured: the block's output does not follow its output projection"):
        measure(handle, tokens)


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_an_unknown_family_that_passes_the_probe_works_and_says_so(name: str, tokens: CalibrationSet) -> None:
    handle = handle_of(name, UNKNOWN)
    assert handle.family.reason.startswith("recognised by measurement")
    assert pruned(handle, tokens, Span(2, 4)).handle.n_blocks == 4


def test_a_full_matrix_behind_a_norm_is_refused_with_the_way_out(tokens: CalibrationSet) -> None:
    handle = handle_of("gemma2")
    transform = fit(measure(handle, tokens, spans=[Span(2, 4)]), Span(2, 4), "least_squares")
    with pytest.raises(FamilyError, match=r"takes only a diagonal transform .* choose a least-squares method with structure: diagonal"):
        prune(handle, transform, "full")


@pytest.mark.parametrize(("name", "wrong"), [("gpt_oss", "outer_first"), ("granite", "")])
def test_a_row_that_is_wrong_fails_a_proof_or_the_probe(name: str, wrong: str, tokens: CalibrationSet) -> None:
    """The fused experts in the wrong orientation; the residual multiplier forgotten."""
    model = random_model(name)
    row = families.find(model.config)
    broken = copy.copy(row)
    object.__setattr__(broken, "experts" if name == "gpt_oss" else "scale", wrong)
    if name == "granite":
        assert linearity.confirm(model, broken).merge == "refused"
        return
    handle = make_handle(name, model, _NoTokenizer(), broken)
    with pytest.raises((ProofError, RuntimeError)):
        pruned(handle, tokens, Span(2, 4))


def test_no_architecture_stands_in_two_rows_and_every_row_is_tried() -> None:
    types = [model_type for row in ROWS for model_type in row.model_types]
    assert len(types) == len(set(types))
    types = [model_type for row in ROWS if row.inputs == "text" for model_type in row.model_types]  # those of images: test_vision.py
    tried = {families.find(config()).name for config in FAMILIES.values()}
    assert set(types) <= tried
