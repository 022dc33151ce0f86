"""The methods, one record each: what people read about one, what a plan may tell it, and who solves it. The one list of them.

To add a method is to write a file in solvers/ with a function `solve`, and a record here.
"""

from dataclasses import dataclass
from typing import Literal

Group = Literal["least_squares", "reweighted", "gradient", "refit", "removal"]

_LEAST_SQUARES = ("ridge", "structure", "rank", "separate")
_REWEIGHTED = ("ridge", "max_iterations", "separate")
_GRADIENT = ("loss", "l2", "max_iterations", "separate")


@dataclass(frozen=True)
class MethodInfo:
    """One method."""

    title: str
    one_line: str
    group: Group
    solver: str
    """the module of solvers/ whose `solve` makes the transform; empty: a refit, which needs the model and not only its measurement"""
    takes: tuple[str, ...] = ()
    """keys of the method section"""
    live: bool = True
    """fast enough to follow a slider"""
    note: str = ""
    """what a list says behind the title: recommended, the paper's"""
    words: str = ""
    """what it is called in a sentence, where that is not its name"""


METHODS: dict[str, MethodInfo] = {
    "weighted_least_squares": MethodInfo(
        "Least squares, weighted",
        "Tokens weigh 1/their length, so that a few of huge length neither rule the fit nor are lost.",
        "least_squares", "least_squares", _LEAST_SQUARES, note="follows the slider",
    ),
    "least_squares": MethodInfo(
        "Least squares, plain",
        "The paper's closed form: all tokens weigh the same, and those of large norm dominate.",
        "least_squares", "least_squares", _LEAST_SQUARES, note="the paper's",
    ),
    "cosine": MethodInfo(
        "Cosine",
        "The paper's other objective: the direction of every token's stream, solved in a few weighted steps.",
        "reweighted", "cosine", _REWEIGHTED, note="the paper's other aim",
    ),
    "cosine_simplified": MethodInfo(
        "Cosine, simplified",
        "The paper's short form: the direction of what the carrier should write, without the rest of the stream.",
        "reweighted", "cosine", _REWEIGHTED,
    ),
    "adam": MethodInfo(
        "Adam", "The paper's gradient steps: 10 passes over the stored tokens.", "gradient", "adam", ("l1", *_GRADIENT), live=False
    ),
    "lbfgs": MethodInfo("L-BFGS", "Steps that remember the last ten gradients.", "gradient", "minimise", _GRADIENT, live=False),
    "nonlinear_cg": MethodInfo(
        "Nonlinear conjugate gradients", "Each step turns away from the last ones.", "gradient", "minimise", _GRADIENT, live=False
    ),
    "newton_cg": MethodInfo(
        "Newton-CG", "Steps that also use the curvature, with a line search.", "gradient", "minimise", _GRADIENT, live=False
    ),
    "trust_region": MethodInfo("Trust region", "Curvature steps of bounded length.", "gradient", "minimise", _GRADIENT, live=False),
    "proximal": MethodInfo(
        "Proximal gradient", "For an l1 penalty: makes entries of T exactly 0.", "gradient", "proximal", ("l1", *_GRADIENT), live=False
    ),
    "refit": MethodInfo(
        "Refit of the carrier", "Solves the carrier's own weights: they say more than its output.",
        "refit", "", ("attention",), live=False,
    ),
    "local_refit": MethodInfo(
        "Refit around the cut", "Solves the carrier, the block before it and the block behind the cut, which share the work.",
        "refit", "", ("attention",), live=False, words="refit around the cut",
    ),
    "exchange_refit": MethodInfo(
        "Refit, neurons exchanged",
        "A refit around the cut, after neurons of the removed blocks took the place of those that matter least there.",
        "refit", "", ("attention",), live=False, note="recommended", words="refit with exchanged neurons",
    ),
    "sequential_refit": MethodInfo(
        "Sequential refit", "The same for every later block in turn, from the pruned stream to the intact one.",
        "refit", "", ("lookahead", "attention"), live=False,
    ),
    "deep_refit": MethodInfo(
        "Deep refit", "The same, with gradient steps on all weights of one block after the other: training.",
        "refit", "", ("max_iterations", "lookahead", "attention"), live=False,
    ),
    "drop": MethodInfo("Removed, no transform", "The blocks are cut and nothing takes their place.", "removal", "removal"),
}  # fmt: skip


def of_group(group: Group) -> tuple[str, ...]:
    """The names of a group, in the order of the list."""
    return tuple(name for name, info in METHODS.items() if info.group == group)


def in_words(label: str) -> str:
    """A method's label for people: 'weighted least squares low rank 16', 'refit around the cut'."""
    for name, info in METHODS.items():
        label = label.replace(name, info.words) if info.words else label
    return label.replace("_", " ")


def takers() -> dict[str, tuple[str, ...]]:
    """Which methods take which key of the method section."""
    keys = dict.fromkeys(key for info in METHODS.values() for key in info.takes)
    return {key: tuple(name for name, info in METHODS.items() if key in info.takes) for key in keys}
