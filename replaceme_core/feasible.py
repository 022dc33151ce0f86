"""What can be fitted to a model, known before its pass."""

from dataclasses import dataclass

from replaceme_core import refit, solvers
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.models.architecture.families import Family, require_mergeable
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.refit.requirements import Asked
from replaceme_core.surgery import merge


@dataclass(frozen=True)
class Promised:
    """A model that is not loaded, by its configuration and how a plan would hold it."""

    name: str
    family: Family
    width: int
    checkpoint: str | None
    """how it would be held, where not as it is: quantised or spread"""


def runs_the_model(cut: Span | Cut | None, method: MethodSection, n_spans: int = 1) -> bool:
    """Whether the fit runs the model block by block, so that no moments are needed. `n_spans`: where the cut is not known yet."""
    return method.name in REFIT or (len(cut.spans) if isinstance(cut, Cut) else n_spans) > 1


def is_refittable(handle: ModelHandle) -> bool:
    """Whether the weights of its blocks can be solved in closed form."""
    return handle.checkpoint is None and handle.family.merge == "exact"


def require_fits(handle: Asked, method: MethodSection, n_spans: int = 1, cut: Cut | None = None) -> None:
    """Raises what the fit, or putting it into the model, would raise behind the pass. `cut`: None where the pass will choose it."""
    family = require_mergeable(handle.family)
    if runs_the_model(cut, method, n_spans):
        refit.require_fits(handle, method, n_spans, cut)
    else:
        merge.require_takes(family, method)
        solvers.require_takes(method, handle.width)
