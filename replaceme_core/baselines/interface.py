"""What every baseline takes and gives back: a model, a calibration set and a number of blocks in; a checked, pruned model out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from replaceme_core.artifacts import Cut, Measurement, ModelHandle, Proof, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError, ModelError
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of, require_mergeable
from replaceme_core.progress import SILENT, Progress


@dataclass(frozen=True, eq=False)
class Request:
    """What a baseline is asked for."""

    handle: ModelHandle
    calibration: CalibrationSet
    n_blocks: int
    """blocks to remove; a method that narrows blocks removes as many parameters as these have"""
    measurement: Measurement | None = None
    """of this model and calibration set, for the methods that read distances; without it they make a pass"""
    seed: int = 0
    progress: Progress = SILENT

    def check(self, spare: int) -> "Request":
        """This request, or an error where the model cannot be cut in memory or fewer than `spare` blocks would be left."""
        require_mergeable(self.handle.family)
        if self.handle.checkpoint is not None:
            raise ModelError(
                f"'{self.handle.name}' is held quantised or spread over devices, so that no cut of it is made in memory. Load it unquantised "
                "on one device."
            )
        most = self.handle.n_blocks - spare
        if not 1 <= self.n_blocks <= most:
            said = f"between 1 and {most} can" if most > 0 else "none can"
            raise InputError(
                f"{self.n_blocks} blocks cannot be removed from a model of {self.handle.n_blocks} by this method: {said}. Choose another share."
            )
        return self

    def measured(self) -> Measurement:
        """The distances of all boundaries, from the pass that was made or from one of its own."""
        if self.measurement is None:
            return measure(self.handle, self.calibration, spans=[], progress=self.progress)
        if self.measurement.model_fingerprint != self.handle.fingerprint:
            raise InputError("The measurement was made of another model; measure this one.")
        return self.measurement

    @property
    def spent(self) -> float:
        """Seconds of the pass that was made before."""
        return 0.0 if self.measurement is None else self.measurement.seconds

    @property
    def n_parameters(self) -> int:
        """Parameters that go with `n_blocks` average blocks: the budget that makes depth and width comparable."""
        with self.handle.borrow() as model:
            whole = sum(parameter.numel() for parameter in blocks_of(model, self.handle.family).parameters())
        return round(whole * self.n_blocks / self.handle.n_blocks)

    def require_text(self) -> None:
        """A `ModelError` for a method that needs next-token probabilities."""
        if modality.of(self.handle.family) is not modality.TEXT:
            raise ModelError(f"This method reads next-token probabilities, and '{self.handle.name}' reads images.")


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method of depth decided: the blocks that go, and what changes in the others."""

    blocks: tuple[int, ...]
    """ascending, never block 0"""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """new weights of blocks that stay, named as in `LinearTransform`"""
    stand_ins: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """(A, b) in the place of a removed block"""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """what the choice was made by, as plain data"""
    notes: tuple[str, ...] = ()
    spent: float = 0.0
    """seconds of a pass that was made before and is read here"""

    @property
    def cut(self) -> Cut:
        """The removed blocks as spans."""
        return cut_of(self.blocks)


@dataclass(frozen=True, eq=False)
class Pruned:
    """What a baseline made. `variant` is what the app keeps and exports; a method that narrows blocks has no cut to name, and none."""

    method: str
    handle: ModelHandle
    proofs: tuple[Proof, ...]
    removed: tuple[int, ...]
    """blocks that are gone, by their number in the original; empty for a method that narrows them"""
    n_parameters_removed: int
    seconds: float
    """to choose and to make it, passes included, checks left out"""
    training: bool
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    variant: Variant | None = None


@dataclass(frozen=True)
class Baseline:
    """One row of the table of names."""

    name: str
    title: str
    kind: Literal["depth", "width"]
    description: str
    """one line"""
    reference: str
    arxiv: str
    make: Callable[[Request], Pruned]
    training: bool = False
    """whether weights are moved by gradient steps"""
    plain: bool = True
    """whether the result loads with plain `from_pretrained`"""

    def to_data(self) -> dict[str, Any]:
        """Plain data for tables and the command line."""
        return {
            "method": self.name,
            "title": self.title,
            "kind": self.kind,
            "description": self.description,
            "reference": self.reference,
            "arxiv": self.arxiv,
            "training": self.training,
            "plain": self.plain,
        }


def cut_of(blocks: tuple[int, ...] | list[int]) -> Cut:
    """Any blocks but the first as spans; neighbours become one span."""
    return Cut.of(Span(block, block + 1) for block in blocks)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began
