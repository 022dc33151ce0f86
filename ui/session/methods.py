"""Which methods and structures the loaded model takes."""

from typing import TYPE_CHECKING

from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.plans.plan import MethodSection


PASSES = {"refit": 1.0, "local_refit": 2.5, "exchange_refit": 5.0, "sequential_refit": 7.0, "deep_refit": 40.0}
"""calibration passes that such a fit takes, about (the demo 1.1, 2.9, 6, 6.6 and 44; a model of 135M parameters .5, 1.7 and 3.6 for the first three)"""


def seconds(method: "MethodSection", of_pass: float) -> float:
    """About how long a fit takes that runs the model, from the seconds of the pass; 0 for others, which are quick."""
    return PASSES.get(method.name, 0.0) * of_pass


def is_refit(method: "MethodSection") -> bool:
    from replaceme_core.plans.plan import REFIT

    return method.name in REFIT


def live_methods(state: Studio, separate: bool = False) -> list[str]:
    """The methods that follow a slider, the recommended one first: those that merge into the current model, or all where T stays a layer."""
    from replaceme_core.plans.methods import METHODS, of_group

    if structures(state, separate) == ["diagonal"]:
        return list(of_group("least_squares"))
    return [name for name, info in METHODS.items() if info.group != "removal" and info.live]


def structures(state: Studio, separate: bool = False) -> list[str]:
    """The structures of T that merge into the current model, the most general first; all of them where T stays a layer of its own.

    Only the Fit page's form keeps a layer; what other pages fit is merged, whatever that form is set to.
    """
    from replaceme_core import solvers

    resident = state.resident
    if resident is not None and resident.handle.family.merge == "diagonal" and not separate:
        return ["diagonal"]
    return list(solvers.STRUCTURES)


def refits(state: Studio) -> list[str]:
    """The refits that the loaded model takes; none where its weights are held quantised or spread."""
    from replaceme_core.plans.plan import REFIT

    resident = state.resident
    if resident is None or resident.handle.checkpoint is not None:
        return []
    return [name for name in REFIT if resident.handle.family.merge == "exact" or name == "deep_refit"]


def closed_form(state: Studio) -> "MethodSection":
    """Least squares of the chosen kind, the most general T that merges: for what must be instant."""
    from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection

    name = state.method.name if state.method.name in LEAST_SQUARES else LEAST_SQUARES[0]
    return MethodSection.parse({"name": name, "structure": structures(state)[0]})
