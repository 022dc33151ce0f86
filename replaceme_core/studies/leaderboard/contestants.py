"""Who stands in the leaderboard: the baselines of the field, and this project's own methods at the span of least distance."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from replaceme_core import baselines, healing, pipeline
from replaceme_core.artifacts import Cut, LinearTransform, Measurement, ModelHandle, Span
from replaceme_core.baselines import Pruned, Request
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import HealingSection, MethodSection
from replaceme_core.selection import sinks, spans
from replaceme_core.surgery import surgery

HEALING_STEPS = 200
_REPLACEME = (
    "Shopkhoev et al. 2025, ReplaceMe: Network Simplification via Depth Pruning and Transformer Block Linearization",
    "2505.02819",
)
_PROJECT = ("this project", "")


@dataclass(frozen=True)
class Setting:
    """What all contestants of one run share."""

    handle: ModelHandle
    calibration: CalibrationSet
    measured: Measurement
    """of one pass, which every method reads that needs one"""
    seed: int = 0


@dataclass(frozen=True)
class Contestant:
    """One row of `--list`."""

    name: str
    title: str
    group: Literal["ours", "field"]
    description: str
    reference: str
    arxiv: str
    make: Callable[[Setting, int, Any], Pruned]
    """(setting, blocks to remove, progress)"""
    kind: Literal["depth", "width"] = "depth"
    training: bool = False
    plain: bool = True
    optional: bool = False
    """left out unless it is named or training is asked for"""

    def to_data(self) -> dict[str, Any]:
        """Plain data for tables and the command line."""
        names = ("title", "group", "kind", "description", "reference", "arxiv", "training", "plain", "optional")
        return {"method": self.name} | {name: getattr(self, name) for name in names}


def find(names: list[str] | None, training: bool = False) -> list[Contestant]:
    """The contestants of these names, in the table's order; None: all but the optional ones, which `training` adds."""
    rows = {row.name: row for row in table()}
    unknown = [name for name in names or () if name not in rows]
    if unknown:
        raise InputError(f"There is no method '{unknown[0]}' in the leaderboard; choose of {', '.join(rows)}.")
    return [row for row in rows.values() if (row.name in names if names is not None else training or not row.optional)]


def table() -> list[Contestant]:
    """Everyone, this project's own first."""
    return [*_OURS, *(_of_the_field(row) for row in baselines.BASELINES.values()), *_HEALED]


def _of_the_field(row: baselines.Baseline) -> Contestant:
    def make(setting: Setting, n_blocks: int, progress: Any) -> Pruned:
        return row.make(Request(setting.handle, setting.calibration, n_blocks, setting.measured, setting.seed, progress))

    return Contestant(row.name, row.title, "field", row.description, row.reference, row.arxiv, make, row.kind, row.training, row.plain)


def place(setting: Setting, n_blocks: int) -> Span:
    """The span of least cosine distance that keeps the attention sink, where all methods of ours that take a span are fitted."""
    return spans.best(sinks.kept(setting.measured), n_blocks)


def of_method(method: str, where: Callable[[Setting, int], Span | Cut] = place) -> Callable[[Setting, int, Any], Pruned]:
    """A method of the plan's section of that name, at the place that `where` says."""

    def make(setting: Setting, n_blocks: int, progress: Any) -> Pruned:
        cut, section = where(setting, n_blocks), MethodSection(name=method)  # type: ignore[arg-type]
        clock = baselines.Clock()
        fitted = pipeline.fit(setting.handle, setting.calibration, setting.measured, cut, section, progress, keep=False)
        return _pruned(setting, fitted, setting.measured.seconds + clock.seconds)

    return make


def _pruned(setting: Setting, fitted: LinearTransform, seconds: float) -> Pruned:
    recipe = {"span": fitted.cut.plain(), "method": fitted.settings, "calibration_fingerprint": setting.calibration.fingerprint}
    name = f"{setting.handle.name}, {fitted.cut}, {in_words(fitted.method)}"
    variant = surgery.prune(setting.handle, fitted, name, recipe)
    return Pruned(
        method=fitted.method,
        handle=variant.handle,
        proofs=variant.proofs,
        removed=tuple(fitted.cut.blocks),
        n_parameters_removed=setting.handle.n_parameters - variant.handle.n_parameters,
        seconds=seconds,
        training=fitted.method.startswith("deep_refit"),
        notes=fitted.report.notes,
        variant=variant,
    )


def healed(name: str, batch_tokens: int | None = None) -> Callable[[Setting, int, Any], Pruned]:
    """The contestant of that name, then LoRA on KL to the original; `batch_tokens` a step, none: as healing has it."""

    def make(setting: Setting, n_blocks: int, progress: Any) -> Pruned:
        pruned = find([name])[0].make(setting, n_blocks, progress)
        assert pruned.variant is not None
        section = HealingSection(kind="lora", steps=HEALING_STEPS, seed=setting.seed)
        if batch_tokens is not None:
            section = section.model_copy(update={"batch_tokens": batch_tokens})
        variant = healing.heal(setting.handle, pruned.variant, setting.calibration, section, progress)
        report = variant.healing
        assert report is not None
        figures = dict(pruned.figures) | {
            "healing": {"steps": report.steps, "best": report.best, "heldout_kl": [report.before, report.after]}
        }
        return replace(
            pruned,
            handle=variant.handle,
            proofs=variant.proofs,
            variant=variant,
            seconds=pruned.seconds + report.seconds,
            training=True,
            figures=figures,
            notes=(*pruned.notes, *report.notes),
        )

    return make


_OURS = [
    Contestant("drop", "removed, no transform", "ours", "the span of least distance that keeps the attention sink is cut, nothing takes its place", *_PROJECT, of_method("drop")),
    Contestant("least_squares", "least squares", "ours", "the paper's closed form, merged", *_REPLACEME, of_method("least_squares")),
    Contestant(
        "weighted_least_squares", "weighted least squares", "ours", "the same, relative to each token's length", *_PROJECT,
        of_method("weighted_least_squares"),
    ),
    Contestant("cosine", "cosine, exact", "ours", "1 - cos(M T + Y, H_end) by reweighted least squares", *_REPLACEME, of_method("cosine")),
    Contestant("adam", "cosine by Adam", "ours", "the paper's way to lower the cosine, by gradient steps on T", *_REPLACEME, of_method("adam")),
    Contestant("refit", "refit", "ours", "the carrier's weights solved anew in closed form", *_PROJECT, of_method("refit")),
    Contestant(
        "local_refit", "refit around the cut", "ours", "the same for the blocks before and behind the cut, too", *_PROJECT,
        of_method("local_refit"),
    ),
    Contestant(
        "exchange_refit", "refit with exchanged neurons", "ours", "the same, with neurons of the removed blocks in these three", *_PROJECT,
        of_method("exchange_refit"),
    ),
    Contestant(
        "sequential_refit", "sequential refit", "ours", "the same for every later block in turn", *_PROJECT, of_method("sequential_refit")
    ),
    Contestant(
        "deep_refit", "deep refit", "ours", "the same, then gradient steps on one block after the other", *_PROJECT, of_method("deep_refit"),
        training=True, optional=True,
    ),
]  # fmt: skip
_HEALED = [
    Contestant(
        "weighted_least_squares_healed", "weighted least squares, healed", "ours", f"then LoRA, {HEALING_STEPS} steps", *_PROJECT,
        healed("weighted_least_squares"), training=True, optional=True,
    ),
    Contestant(
        "uidl_healed", "UIDL, healed", "field", f"then LoRA, {HEALING_STEPS} steps",
        "Gromov et al. 2024, The Unreasonable Ineffectiveness of the Deeper Layers", "2403.17887", healed("uidl"), training=True, optional=True,
    ),
]  # fmt: skip
