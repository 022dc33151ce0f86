"""Before a model is loaded: whether this machine can hold it and the calibration pass, judged from the configuration alone."""

from dataclasses import dataclass

from replaceme_core import memory
from replaceme_core.measurement import needs
from replaceme_core.models.loading import Weights, resolve_device, weigh
from replaceme_core.plans.plan import ModelSection


@dataclass(frozen=True)
class Preflight(Weights):
    """What the configuration promises, and whether this machine can hold it."""

    needed_bytes: int
    """weights and calibration pass"""
    available_bytes: int
    fits: bool
    verdict: str


def preflight(section: ModelSection) -> Preflight:
    """Compares the size of the model, with that of a pass, with what is free."""
    device = resolve_device(section.device)
    weights = weigh(section)
    needed = weights.weights_bytes + needs.pass_bytes(weights.n_blocks, weights.width)
    available = memory.of("spread" if section.device == "spread" else device)[0]
    fits = needed <= available
    verdict = (
        f"needs about {_gib(needed)} in {section.quantisation or weights.dtype}, calibration pass included; {_gib(available)} are free"
    )
    if not fits:
        verdict += " - too little: choose bfloat16, a quantisation, a smaller model, or a device with more memory"
    return Preflight(**vars(weights), needed_bytes=needed, available_bytes=available, fits=fits, verdict=verdict)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB"
