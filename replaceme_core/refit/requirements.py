"""What a fit that runs the model asks of model, cut and settings: known before anything is run."""

from typing import Any, Protocol

import torch

from replaceme_core.artifacts import Cut
from replaceme_core.errors import FamilyError, InputError, ModelError
from replaceme_core.models.architecture.families import Family, require_mergeable
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.refit.exchange import CANDIDATES
from replaceme_core.refit.streams import batch_bytes, stream_bytes
from replaceme_core.refit.walk import EXCHANGING, IN_SEQUENCE, NEAR

METHODS = (*REFIT, "weighted_least_squares", "drop")
_LOOKAHEADS = (0, 1, 2)


class Asked(Protocol):
    """What is asked of a model: a loaded one, or what a dry run knows of one that is not."""

    @property
    def name(self) -> str: ...
    @property
    def family(self) -> Family: ...
    @property
    def width(self) -> int: ...
    @property
    def checkpoint(self) -> Any:
        """Not None where the weights are held quantised or spread, so that they are put together on disk."""


class Sized(Protocol):
    """What the memory of a fit follows from."""

    @property
    def width(self) -> int: ...
    @property
    def widest(self) -> int: ...
    @property
    def dtype(self) -> str: ...


def require_fits(handle: Asked, section: MethodSection, n_spans: int, cut: Cut | None = None) -> None:
    """Raises where the method cannot be fitted to this model: `InputError` for settings, `ModelError` for how it is held, `FamilyError` for what it is.

    `cut`: None where the pass will choose it.
    """
    if section.name not in METHODS or section.structure != "full" or section.ridge is not None:
        raise InputError(
            f"'{section.label}' is not fitted in sequence; choose one of {', '.join(METHODS)}, with the structure 'full' and no ridge of its own."
        )
    if handle.checkpoint is not None:
        knob = "remove one span alone" if n_spans > 1 else "choose a transform ('weighted_least_squares'), which merges into the checkpoint"
        raise ModelError(
            f"'{handle.name}' is held quantised or spread over devices, and a refit solves the weights themselves. Load the model "
            f"unquantised on one device, or {knob}."
        )
    family = require_mergeable(handle.family)
    if family.merge != "exact" and section.name not in ("deep_refit", "drop"):
        raise FamilyError(
            f"In the family '{family.name}' a norm stands behind every layer, so nothing can be solved in closed form; "
            "choose 'deep_refit', or least squares with the structure 'diagonal'."
        )
    if cut is not None:
        lookaheads(cut, section)


def lookaheads(cut: Cut, section: MethodSection) -> tuple[int, ...]:
    """The numbers of blocks before the first carrier to try; a later carrier has what room there is."""
    span = cut.spans[0]
    if section.name not in IN_SEQUENCE:
        return tuple(range(min(NEAR.get(section.name, 0), span.carrier) + 1))
    if section.lookahead is None:
        return tuple(n for n in _LOOKAHEADS if n <= span.carrier)
    if not 0 <= section.lookahead <= span.carrier:
        raise InputError(
            f"A lookahead of {section.lookahead} does not fit the span {span}: there are {span.carrier} blocks before its carrier. "
            f"Choose 0 to {span.carrier}, or none to have it chosen."
        )
    return (section.lookahead,)


def needed_bytes(method: str, model: Sized, n_tokens: int, n_kept: int, n_spans: int = 1) -> int:
    """Memory of a closed-form refit beside the model: streams, the states of one batch, new weights of the blocks it solves, one layer's sums.

    The weights of two tries are held at a time; of the layer (`widest`), two Gram matrices and three to decompose one of them, and eight matrices
    of its own shape. An exchange has these of its candidates, which are several times as many, and new weights for the layers that
    read as well. Held against what a refit really takes in tests.
    """
    itemsize: int = getattr(torch, model.dtype).itemsize
    exchanging = method in EXCHANGING
    inner, changed = (CANDIDATES * model.widest, 3) if exchanging else (model.widest, 1)
    weights = 2 * n_solved(method, n_kept, n_spans) * model.width * (model.width + changed * model.widest) * itemsize
    return (
        n_tokens * stream_bytes(model.width, itemsize, n_spans)
        + batch_bytes(model.width, inner, n_tokens)
        + weights
        + 8 * inner * (5 * inner + 8 * model.width)
    )


def n_solved(method: str, n_kept: int, n_spans: int) -> int:
    """Blocks that get new weights, at most, of those that are kept."""
    return n_kept if method in IN_SEQUENCE else min(n_kept, n_spans * (1 + 2 * NEAR.get(method, 0)))
