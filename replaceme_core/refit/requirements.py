"""What a fit that runs the model asks of model, cut and settings: known before anything is run."""

from typing import Any, Protocol

from replaceme_core.artifacts import Cut
from replaceme_core.errors import FamilyError, InputError, ModelError
from replaceme_core.models.architecture.families import Family, require_mergeable
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.refit.walk import IN_SEQUENCE, NEAR

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
