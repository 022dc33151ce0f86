"""What can be fitted to a model, known before its pass."""

from replaceme_core import refit, solvers
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.plans.plan import REFIT, MethodSection
from replaceme_core.surgery import merge


def runs_the_model(cut: Span | Cut | None, method: MethodSection, n_spans: int = 1) -> bool:
    """Whether the fit runs the model block by block, so that no moments are needed. `n_spans`: where the cut is not known yet."""
    return method.name in REFIT or (len(cut.spans) if isinstance(cut, Cut) else n_spans) > 1


def is_refittable(handle: ModelHandle) -> bool:
    """Whether the weights of its blocks can be solved in closed form."""
    return handle.checkpoint is None and handle.family.merge == "exact"


def require_fits(handle: ModelHandle, method: MethodSection, n_spans: int = 1, cut: Cut | None = None) -> None:
    """Raises what the fit, or putting it into the model, would raise behind the pass. `cut`: None where the pass will choose it."""
    if runs_the_model(cut, method, n_spans):
        refit.require_fits(handle, method, n_spans, cut)
    elif handle.family.merge != "refused":
        merge.require_takes(handle.family, method)
        solvers.require_takes(method, handle.width)
