"""Before a model is loaded: whether this machine can hold it and the calibration pass, judged from the configuration alone."""

from dataclasses import dataclass

from replaceme_core.measurement.budget import DEFAULT_BUDGET, plan_keep
from replaceme_core.models.loading import Weights, available_bytes, resolve_device, weigh
from replaceme_core.plans.plan import ModelSection


@dataclass(frozen=True)
class Preflight(Weights):
    """What the configuration promises, and whether this machine can hold it."""

    needed_bytes: int
    """weights and calibration pass"""
    available_bytes: int
    fits: bool
    verdict: str


def preflight(section: ModelSection, budget_bytes: int = DEFAULT_BUDGET) -> Preflight:
    """Compares the size of the model, with a pass of that memory budget, with what is free."""
    device = resolve_device(section.device)
    weights = weigh(section)
    keep = plan_keep(weights.n_blocks, weights.width, budget_bytes)
    needed, available = weights.weights_bytes + keep.n_bytes, available_bytes("spread" if section.device == "spread" else device)
    fits = needed <= available
    verdict = (
        f"needs about {_gib(needed)} in {section.quantisation or weights.dtype}, calibration pass included; {_gib(available)} are free"
    )
    if not fits:
        verdict += " - too little: choose bfloat16, a quantisation, a smaller model, or a device with more memory"
    return Preflight(**vars(weights), needed_bytes=needed, available_bytes=available, fits=fits, verdict=verdict)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
