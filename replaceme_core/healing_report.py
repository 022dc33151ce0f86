"""What a healing (training) did: its settings, its loss curve, and whether the pruned model came closer to the original."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class HealingPoint:
    """One look at the loss. Losses are mean KL(original || pruned) per token, in nats."""

    step: int
    n_tokens: int
    """tokens trained on so far, repeats counted"""
    train: float | None
    """mean over the steps since the look before; None before the first step"""
    heldout: float


@dataclass(frozen=True)
class HealingReport:
    """The evidence for one healing. Healing is training: the weights follow the gradient of the KL to the original's logits."""

    kind: Literal["transform", "lora"]
    steps: int
    rate: float
    batch_tokens: int
    rank: int | None
    """of LoRA's updates"""
    seed: int
    n_trained: int
    """numbers that moved; they were merged, so that no parameter was added"""
    n_tokens: int
    """of the calibration set's train part, each counted once"""
    n_heldout_tokens: int
    calibration_fingerprint: str
    points: tuple[HealingPoint, ...]
    best: int
    """the step whose weights were kept: least held-out KL; 0 if none was below the start"""
    seconds: float
    notes: tuple[str, ...] = ()
    """warnings in plain words, each with the knob to turn"""

    @property
    def before(self) -> float:
        """Held-out KL of the variant that healing started from."""
        return self.points[0].heldout

    @property
    def after(self) -> float:
        """Held-out KL of the weights that were kept."""
        return min(point.heldout for point in self.points)

    @property
    def lowered(self) -> bool:
        """Whether anything was changed."""
        return self.best > 0
