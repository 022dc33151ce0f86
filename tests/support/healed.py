"""What the tests of healing start from: a pruned random model that has something to heal, and how two models are compared."""

import torch

from replaceme_core.artifacts import ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture import families, linearity
from replaceme_core.models.loading import make_handle
from replaceme_core.plans.plan import HealingSection, MethodSection
from replaceme_core.solvers import fit
from replaceme_core.surgery import surgery
from tests.core.models.test_families import _NoTokenizer as NoTokenizer
from tests.core.models.test_families import random_model

SPAN = Span(2, 4)
KINDS = ("transform", "lora")


def pruned(handle: ModelHandle, tokens: CalibrationSet, method: str = "drop") -> Variant:
    section = MethodSection(name=method)
    return surgery.prune(handle, fit(measure(handle, tokens, spans=[SPAN]), SPAN, section), "pruned", {"model": {"path": "x"}})


def loud(name: str) -> ModelHandle:
    """A random model whose next-token probabilities are far from even, so that there is something to heal."""
    model = random_model(name)
    model.get_output_embeddings().weight.mul_(3 if model.config.tie_word_embeddings else 30)
    return make_handle(name, model, NoTokenizer(), linearity.confirm(model, families.find(model.config)))


def settings(kind: str, **more: object) -> HealingSection:
    return HealingSection.parse({"kind": kind, "steps": 6, "batch_tokens": 128, "rate": 3e-3} | more)


def weights_of(handle: ModelHandle) -> dict[str, torch.Tensor]:
    with handle.borrow() as model:
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())
