"""One plan = one reproducible run. The app writes it, the command line repeats it, Python builds it.

    plan = PruningPlan.read("plan.yaml")        # every problem of the file in one PlanError
    plan.write("copy.yaml")

Sections, in the order of the stages: model, calibration, span, method, healing, evaluation, export.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, model_validator

from replaceme_core.errors import SpanError
from replaceme_core.plans.evaluation_section import EvaluationSection as EvaluationSection
from replaceme_core.plans.healing_section import HealingSection
from replaceme_core.plans.methods import METHODS, of_group, takers
from replaceme_core.plans.section import Section, read_yaml
from replaceme_core.span import Cut, Span

Dtype = Literal["float32", "bfloat16", "float16"]
Quantisation = Literal["nf4", "int8"]
Structure = Literal["full", "diagonal", "triangular", "orthogonal", "low_rank", "low_rank_update"]
PassCriterion = Literal["sinks_kept", "distance", "path", "missed"]
"""what one pass tells of every span"""
Criterion = Literal["sinks_kept", "distance", "path", "missed", "measured_kl"]
"""or what running the model without each of them tells, the last one"""
Loss = Literal["cosine", "cosine_simplified", "mse", "relative_mse"]
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]
LEAST_SQUARES, REWEIGHTED = of_group("least_squares"), of_group("reweighted")
REFIT, GRADIENT = of_group("refit"), of_group("gradient")
TAKES = takers()
"""which methods take which key of the method section"""


_logger = logging.getLogger(__name__)
_WITHOUT_EFFECT = ("keep", "budget_gib")
NOT_FILES = ("demo", "smollm2", "preset", "hub", "self")
"""what a calibration source begins with that is neither a file nor a folder"""


class ModelSection(Section):
    """Which model, and how it is held in memory."""

    path: str = Field(description="'demo', 'smollm2', a local folder, a GGUF file, or a Hugging Face id")
    revision: str | None = Field(None, description="branch, tag or commit of a Hugging Face id")
    dtype: Dtype = Field("float32", description="left out of a plan: that of the checkpoint (float32 for the demo and for quantised GGUF)")
    device: str = Field(
        "auto", description="'auto' (CUDA, else MPS, else CPU), a torch device, or 'spread' (over all devices, by accelerate)"
    )
    quantisation: Quantisation | None = Field(
        None, description="hold the weights in 4 (nf4) or 8 bits (int8) for the calibration pass; the checkpoint itself is merged into"
    )


class CalibrationSection(Section):
    """Which text the transform is fitted on."""

    source: str = Field(
        "demo:mixture",
        description="'demo:NAME', 'smollm2:NAME', a local txt/jsonl/csv/parquet file, 'preset:NAME', 'hub:ID', 'self' (or 'self:chats', "
        "'self:prose'); or a folder of images. Left out of a plan: what the model itself writes, or what was shipped for it",
    )
    second: str | None = Field(
        None, description="a second source to mix in; left out with the source, it is prose beside chats where the model writes both"
    )
    second_share: float = Field(0.5, gt=0, lt=1, description="share of the tokens that come from the second source")
    max_texts: int = Field(8000, ge=2, description="rows of a hub data set to look at, at most")
    column: str = Field("text", description="column that holds the text in jsonl, csv, parquet and hub data sets")
    config: str | None = Field(None, description="configuration of a hub data set")
    split: str = Field("train", description="split of a hub data set")
    max_tokens: int = Field(
        16384,
        ge=2,
        description="tokens to fit on and to choose by, train and held-out together; left out of a plan: ten for every unknown of a column to fit",
    )
    max_length: int = Field(512, ge=2, description="tokens per sequence at most")
    holdout: float = Field(0.1, gt=0, lt=1, description="share of max_tokens kept out of the fit, to choose by")
    test_tokens: int = Field(
        8192,
        ge=0,
        description="tokens of further texts that comparisons alone read, beside max_tokens; of a text too short for both, a fifth at most",
    )
    seed: int = 0
    skip_first: bool = Field(False, description="leave each sequence's first token (BOS, or what draws all attention) out of the fit")
    first_sequences: int | None = Field(
        None, ge=2, description="only the first so many sequences of the set: what a pass that was ended early has read"
    )

    @property
    def files(self) -> list[str]:
        """The sources that are files or folders."""
        return [s for s in (self.source, self.second) if s and s.partition(":")[0] not in NOT_FILES]

    @model_validator(mode="before")
    @classmethod
    def _of_older_plans(cls, data: Any) -> Any:
        """`keep` and `budget_gib` said which spans the sums of a pass were kept of; since the activations are stored it is every span."""
        found = [key for key in _WITHOUT_EFFECT if isinstance(data, dict) and key in data]
        if found:
            _logger.warning("calibration.%s: no effect any more, every span can be fitted after one pass", " and calibration.".join(found))
        return {key: value for key, value in data.items() if key not in found} if found else data


class SpanSection(Section):
    """Which blocks go: a start and an end, or a share of depth where a criterion is least."""

    start: int | None = Field(None, ge=1)
    end: int | None = Field(None, ge=2)
    more: list[tuple[int, int]] = Field([], description="further spans, [start, end] each, fitted in sequence; those that touch become one")
    share: float | None = Field(None, gt=0, lt=1, description="share of the blocks to remove, where the criterion is least")
    count: int = Field(1, ge=1, description="spans that the share is divided over by distance, with a block between any two")
    criterion: Criterion = Field("sinks_kept", description="with a share: what is least at the span that goes (see criteria)")
    positions: Literal["all", "last"] = Field("all", description="token positions that distance and path are averaged over")

    @model_validator(mode="after")
    def _one_way(self) -> "SpanSection":
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end go together")
        if (self.start is None) == (self.share is None):
            raise ValueError("give either start and end, or share")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start ({self.start}) must be below end ({self.end})")
        if self.more and self.start is None:
            raise ValueError("more goes with start and end, the first span")
        if self.start is not None and self.end is not None:
            try:
                Cut.of(Span(*pair) for pair in ((self.start, self.end), *self.more))
            except SpanError as error:
                raise ValueError(str(error)) from None
        if self.count > 1 and self.share is None:
            raise ValueError("count goes with share; name further spans under more")
        if self.count > 1 and self.criterion not in ("sinks_kept", "distance"):
            raise ValueError(
                "several spans are chosen by distance, with sinks kept or without; leave criterion out, or name the spans under more"
            )
        return self


class MethodSection(Section):
    """How the transform is estimated: the method by name, and what can be told to it. A key that the method would ignore is an error."""

    name: MethodName = Field(
        "weighted_least_squares",
        description="left out, a run takes 'exchange_refit' where the weights can be solved and no layer has over 4,096 inputs",
    )
    ridge: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="relative to the Gram's mean eigenvalue; empty: least held-out error"
    )
    structure: Structure = Field("full", description="least squares only: which matrices T is chosen from")
    rank: int | None = Field(None, ge=1, description="of T (low_rank) or of T - I (low_rank_update)")
    loss: Loss | None = Field(None, description="gradient methods only; empty: cosine (mse for 'proximal')")
    l1: float = Field(0.0, ge=0, allow_inf_nan=False, description="adds l1 sum |T_ij| / width to the loss; 'adam' and 'proximal' only")
    l2: float = Field(0.0, ge=0, allow_inf_nan=False, description="adds l2 sum T_ij^2 / width to the loss; gradient methods only")
    max_iterations: int | None = Field(
        None, ge=1, description="steps of an iterative method at most ('adam': passes over the tokens; 'deep_refit': steps on each block)"
    )
    lookahead: int | None = Field(
        None, ge=0, description="blocks before the carrier that a sequential refit begins with; empty: 0, 1 or 2 by held-out error"
    )
    separate: bool = Field(
        False, description="keep T as a layer of its own (costs parameters; cannot be exported) where it would be merged; not for refits"
    )
    attention: bool = Field(True, description="refits only: whether the attention's output is solved too")

    @model_validator(mode="after")
    def _nothing_ignored(self) -> "MethodSection":
        for key, names in TAKES.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.name not in names:
                raise ValueError(f"'{self.name}' takes no {key}; it goes with {', '.join(names)}")
        if (self.rank is not None) != self.structure.startswith("low_rank"):
            raise ValueError("rank and the structures low_rank and low_rank_update go together, for example rank: 16")
        if self.structure == "orthogonal" and self.ridge is not None:
            raise ValueError("an orthogonal T keeps lengths, so that a ridge has nothing to shrink; leave it out")
        if self.objective == "cosine_simplified" and (self.l1 or self.l2):
            raise ValueError("cosine_simplified leaves the scale of T free, so that a penalty only shrinks T to 0; use loss: cosine")
        return self

    @property
    def takes_ridge(self) -> bool:
        return self.name in TAKES["ridge"] and self.structure != "orthogonal"

    @property
    def objective(self) -> Loss:
        """The loss of a gradient method."""
        return self.loss or ("mse" if self.name == "proximal" else "cosine")

    @property
    def label(self) -> str:
        """The name with what sets it apart: 'weighted_least_squares_low_rank_16', 'lbfgs_mse'."""
        structure = "" if self.structure == "full" else f"_{self.structure}"
        rank = "" if self.rank is None else f"_{self.rank}"
        ending = (f"_{self.objective}" if self.name in GRADIENT else "") + ("_separate" if self.separate else "")
        return f"{self.name}{structure}{rank}{ending}"


class ExportSection(Section):
    """Where the pruned model goes."""

    dtype: Dtype | None = Field(None, description="empty: the dtype the model was loaded in")
    max_shard_size: str = Field("5GB", pattern=r"^[1-9]\d*(\.\d+)?\s?(KB|MB|GB|KiB|MiB|GiB)$", description="for example 5GB")


class PruningPlan(Section):
    """The whole run. Frozen; unknown keys are errors; all problems are reported together."""

    model: ModelSection
    calibration: CalibrationSection = CalibrationSection()
    span: SpanSection = SpanSection(share=0.25)
    method: MethodSection = MethodSection()
    healing: HealingSection | None = None
    evaluation: EvaluationSection | None = None
    export: ExportSection | None = None

    @model_validator(mode="after")
    def _trained_as_a_whole(self) -> "PruningPlan":
        if self.healing is not None and (self.model.quantisation or self.model.device == "spread"):
            raise ValueError("healing trains the weights, so the model is held as a whole: leave out quantisation and device: spread")
        return self

    @classmethod
    def read(cls, path: str | Path) -> "PruningPlan":
        """A plan from a YAML file. A calibration file that is not found from here is looked for beside the plan."""
        return cls.parse(read_yaml(path, "plan"), origin=str(path)).found_beside(Path(path).parent)

    def found_beside(self, folder: Path) -> "PruningPlan":
        """The plan, with a calibration file that is not found from here looked for in this folder."""
        section = self.calibration
        beside = {source: str(folder / source) for source in section.files if not Path(source).exists() and (folder / source).is_file()}
        found = {key: beside[source] for key in ("source", "second") if (source := getattr(section, key)) in beside}
        return self.model_copy(update={"calibration": section.model_copy(update=found)}) if found else self

    def to_data(self) -> dict[str, Any]:
        """Plain data without empty entries and without what this plan would ignore, ready for YAML or JSON."""
        data = self.model_dump(exclude_none=True)
        idle = {"share", "count", "criterion", "positions"} if self.span.start is not None else {"more"}
        data["span"] = {key: value for key, value in data["span"].items() if key not in idle and value != []}
        data["method"] = {key: value for key, value in data["method"].items() if self.method.name in TAKES.get(key, (self.method.name,))}
        if self.calibration.second is None:
            del data["calibration"]["second_share"]
        return data

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_data(), sort_keys=False, allow_unicode=True)

    def write(self, path: str | Path) -> None:
        Path(path).write_text(self.to_yaml(), encoding="utf-8")
