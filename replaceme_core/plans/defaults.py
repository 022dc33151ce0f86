"""Defaults that follow the model: one rule for plans, commands and pages.

What a plan leaves out is not the demo's for a foreign model:
- text: the demo's mixture for the demo, and for any other model what it writes itself (SmolLM2's is shipped): chats and prose, half of
  the tokens each, or prose alone where there is no template for chats. Measured on six texts (docs/results/calibration.md), a refit on
  both costs less than one on either;
- tokens: ten for every unknown of a column that is fitted, after the held-out part. A column of T has as many unknowns as the model is
  wide, one of a refit as many as its widest layer has inputs. The demo keeps the 16,384 that its figures were measured with;
- method: a refit with exchanged neurons, which has the least KL of what takes a few passes, on the demo and on SmolLM2; weighted least
  squares where nothing can be refitted, where a layer has over 4,096 inputs, or where a key was set that only a transform takes; with the
  structure that merges into the family;
- benchmarks: the demo's suite for the demo, plain English for any other model;
- dtype: that of the checkpoint (`models.loading.as_stored`).
What is named stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from replaceme_core.plans.plan import LEAST_SQUARES, REFIT, CalibrationSection, EvaluationSection, MethodName, MethodSection

RECOMMENDED: MethodName = "exchange_refit"
WIDEST_REFIT = 4096
"""inputs of a layer up to which a refit is recommended unasked: its tokens grow with them, and its solves with their cube"""
TOKENS_PER_UNKNOWN = 10
_ROUND = 512
_LEAST = 4096


@dataclass(frozen=True)
class Facts:
    """What the defaults ask of a model."""

    path: str
    width: int
    widest: int
    """the largest side of a weight in its blocks"""
    is_chat: bool
    """whether its tokenizer has a chat template"""


def sources_for(path: str, is_chat: bool) -> tuple[str, str | None]:
    """The calibration text of a model that was given none, and what is mixed into it."""
    if path == "demo":
        return "demo:mixture", None
    of = "smollm2" if path == "smollm2" else "self"
    return (f"{of}:chats", f"{of}:prose") if is_chat else (f"{of}:prose", None)


def tasks_for(path: str) -> str:
    """The benchmarks of a model that was given none: other models do not know the demo's world."""
    return "demo" if path == "demo" else "plain"


def evaluation_for(section: EvaluationSection | None, path: str) -> EvaluationSection | None:
    """The section, where there is one, with the tasks that it leaves out filled in for the model at `path`."""
    return section if section is None or "tasks" in section.model_fields_set else section.model_copy(update={"tasks": tasks_for(path)})


def method_for(section: MethodSection, is_refittable: bool, widest: int, merge: str) -> MethodSection:
    """The section with the method that it leaves out; what it says of a transform (ridge, structure) leaves only least squares.

    `merge`: of the family. Where only a diagonal T merges, least squares whose structure is left out have that one.
    """
    said = section.model_fields_set
    if not said - {"attention"} and is_refittable and widest <= WIDEST_REFIT:
        return section.model_copy(update={"name": RECOMMENDED})
    if merge == "diagonal" and section.name in LEAST_SQUARES and not said & {"structure", "separate"}:
        return section.model_copy(update={"structure": "diagonal"})
    return section


def tokens_for(unknowns: int, holdout: float) -> int:
    """Tokens that leave ten for every unknown in the part that is fitted, in round figures."""
    return max(_LEAST, ceil(TOKENS_PER_UNKNOWN * unknowns / (1 - holdout) / _ROUND) * _ROUND)


def calibration_for(section: CalibrationSection, facts: Facts, methods: Sequence[MethodSection] = ()) -> CalibrationSection:
    """The section with what it leaves out filled in for this model and the methods that will read it."""
    named = section.model_fields_set
    found: dict[str, str | int | None] = {}
    if "source" not in named:
        source, second = sources_for(facts.path, facts.is_chat)
        found |= {"source": source} if "second" in named else {"source": source, "second": second}
    if "max_tokens" not in named and facts.path != "demo":
        refits = any(method.name in REFIT for method in methods)
        found["max_tokens"] = tokens_for(facts.widest if refits else facts.width, section.holdout)
    return section.model_copy(update=found) if found else section
