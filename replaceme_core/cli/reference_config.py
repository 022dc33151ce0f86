"""The configuration of the public ReplaceMe library, read with its own keys and mapped onto a plan of ours.

    config = ReferenceConfig.read("replaceme.yaml")     # every problem of the file in one PlanError
    plan = config.plan(config.choose(distances))        # a PruningPlan; the spans are named outright

What differs on purpose: `min_distance_layer` works here (the first block that may be removed), `alpha` is a ridge relative to
the mean eigenvalue of the Gram matrix (least squares) or a penalty (solvers), and `distances_path` is JSON, never a pickle.
"""

from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from replaceme_core.artifacts import DistanceMatrix
from replaceme_core.calibration.hub_text import presets
from replaceme_core.errors import PlanError, SpanError
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.plans.section import Section, read_yaml
from replaceme_core.span import Cut, Span

_SOLVERS = {"adam": "adam", "cg": "nonlinear_cg", "l-bfgs": "lbfgs", "trust-ncg": "trust_region"}
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt")
_OF_SOLVERS = ("solver", "loss", "accurate")
"""keys that only method: cosine has"""
_TOKENS = 8_192_000
"""of the calibration set at most where no size is given: the paper's 8000 samples of 1024 tokens"""


class ReferenceConfig(Section):
    """The keys of the public library. Frozen; unknown keys and contradictions are reported all together."""

    model_path: str = Field(description="'demo', a local folder, or a Hugging Face id")
    method: Literal["lstsq", "cosine"] = Field("lstsq", description="closed form, or a gradient method (solver, loss)")
    dataset: str = Field(
        "demo:mixture", description="a hub id, a local file, demo:NAME, or a preset of ours (slimorca, fineweb, c4, wikitext)"
    )
    dataset_column: str | None = Field(None, description="column of the text; empty: 'text', or that of the preset")
    dataset_subset: str = Field("train", description="split of a hub data set")
    dataset_size: int | None = Field(None, ge=2, description="texts: rows of a hub data set, and max_length tokens each at most")
    batch_size: int = Field(8, ge=1, description="of the benchmarks; the calibration pass sizes its batches by memory")
    max_length: int = Field(1024, ge=2, description="tokens per sequence")
    use_4bit: bool = Field(False, description="hold the weights in NF4 for the calibration pass; the export is unquantised")
    layers_to_skip: int | None = Field(None, ge=1, description="blocks that each transform stands in for")
    min_distance_layer: int | None = Field(None, ge=1, description="the first block that may be removed")
    num_A: int = Field(1, ge=1, description="number of spans, one transform each")
    merge_consecutive: bool = Field(True, description="spans that touch become one; false: a block stays between any two")
    alpha: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="lstsq: relative ridge (empty: by held-out error); cosine: penalty"
    )
    diag: bool = Field(False, description="lstsq: a diagonal transform")
    two_vectors: bool = Field(False, description="lstsq: a transform of rank one, u v'")
    thri: bool = Field(False, description="lstsq: a lower-triangular transform")
    solver: Literal["adam", "cg", "l-bfgs", "trust-ncg"] | None = Field(None, description="cosine: how the loss is lowered; empty: adam")
    loss: Literal["cosine", "mse", "elasticnet"] | None = Field(None, description="cosine: what is lowered; empty: cosine")
    accurate: bool = Field(False, description="cosine: against the whole stream behind the span, not the target of the MLP alone")
    distances_path: str | None = Field(None, description="JSON of distances: read where it is there, else written")
    save_path: str | None = Field(None, description="new folder; empty: below runs/")
    save_transform_only: bool = Field(
        False, description="as there, the transform lies beside the pruned model; that is so here with and without this key"
    )
    transform_alone: bool = Field(False, description="a key of ours: write the transform and its report, and no model")
    activations_save_path: str | None = Field(None, description="without effect: no activations are kept here")
    tasks: dict[str, int | None] | None = Field(
        None, description="lm-eval names, a list of them, or a mapping of names to numbers of few-shot examples; 'demo' works offline"
    )
    fewshots: list[int] | None = Field(None, description="few-shot examples, one number for all tasks or one for each")
    token: str | None = Field(None, repr=False, description="of the hub; it is used, and written nowhere")

    @model_validator(mode="before")
    @classmethod
    def _method_of_keys(cls, data: Any) -> Any:
        """A file that names a solver and no method means the method that has solvers."""
        if isinstance(data, dict) and "method" not in data and any(data.get(key) for key in _OF_SOLVERS):
            return data | {"method": "cosine"}
        return data

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return None if value is None else _pairs(value)

    @field_validator("fewshots", mode="before")
    @classmethod
    def _counts(cls, value: Any) -> Any:
        counts = value if isinstance(value, list) else [value]
        if value is None or all(type(count) is int and count >= 0 for count in counts):
            return None if value is None else counts
        raise ValueError("a number of few-shot examples, 0 or more, for all tasks; or a list with one for each")

    @model_validator(mode="after")
    def _one_meaning(self) -> "ReferenceConfig":
        problems = [*self._method_problems(), *self._task_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _method_problems(self) -> list[str]:
        shapes = [key for key in ("diag", "two_vectors", "thri") if getattr(self, key)]
        found = []
        if len(shapes) > 1:
            found.append(f"{' and '.join(shapes)} exclude each other")
        if self.method == "cosine" and shapes:
            found.append(f"{shapes[0]} has a closed form and goes with method: lstsq")
        if self.method == "lstsq":
            given = [key for key in _OF_SOLVERS if key in self.model_fields_set and getattr(self, key)]
            found += [f"{key} goes with method: cosine" for key in given]
        if self.method == "cosine" and self.loss == "elasticnet" and (self.solver or "adam") != "adam":
            found.append("loss: elasticnet has a penalty with corners and goes with solver: adam")
        if self.method == "cosine" and self.alpha and (self.loss or "cosine") == "cosine" and not self.accurate:
            found.append("alpha would shrink T to 0 under a cosine loss that leaves its scale free; set accurate: true, or leave alpha out")
        if self.num_A > 1 and (self.method != "lstsq" or shapes or self.alpha):
            found.append("num_A above 1 is fitted in sequence, by method: lstsq with a full transform and without alpha")
        return found

    def _task_problems(self) -> list[str]:
        if self.fewshots is None:
            return []
        if self.tasks is None:
            return ["fewshots goes with tasks"]
        if any(count is not None for count in self.tasks.values()):
            return ["the few-shot examples are said twice, in tasks and in fewshots"]
        if len(self.fewshots) not in (1, len(self.tasks)):
            return [f"fewshots has {len(self.fewshots)} numbers for {len(self.tasks)} tasks"]
        return []

    @classmethod
    def read(cls, path: str | Path, method: str | None = None) -> "ReferenceConfig":
        """A configuration from a YAML file; `method` is that of the command, for a file that names none."""
        data = read_yaml(path, "configuration")
        if method is not None and isinstance(data, dict):
            data = {"method": method} | data
        return cls.parse(data, origin=str(path))

    def told(self) -> list[str]:
        """Sentences on what has no effect here, or another one than its name says."""
        found = []
        if self.activations_save_path is not None:
            found.append("activations_save_path has no effect: the pass keeps sums, and no activations are written.")
        if self.num_A > 1 and self.alpha == 0:
            found.append("alpha: 0 has no effect with num_A above 1: each transform is shrunk toward the identity by its held-out error.")
        if self.distances_path is not None and self.distances_file != Path(self.distances_path):
            found.append(
                f"distances_path: '{self.distances_path}' would be a pickle, which is neither read nor written; JSON in '{self.distances_file}'."
            )
        return found

    @property
    def distances_file(self) -> Path | None:
        """The JSON file of distances: the name that is given, but one that promises a pickle gets the ending that is true."""
        if self.distances_path is None:
            return None
        path = Path(self.distances_path)
        return path.with_suffix(".json") if path.suffix in _PICKLES else path

    def choose(self, distances: DistanceMatrix) -> Cut:
        """The `num_A` spans of `layers_to_skip` blocks with the least sum of distances: every way is weighed."""
        if self.layers_to_skip is None:
            raise PlanError("layers_to_skip is missing: how many blocks does a transform stand in for?")
        n_blocks, length, gap = distances.n_blocks, self.layers_to_skip, 0 if self.merge_consecutive else 1

        @cache
        def least(first: int, spans: int) -> tuple[float, tuple[Span, ...]]:
            if spans == 0:
                return 0.0, ()
            best: tuple[float, tuple[Span, ...]] = (inf, ())
            for start in range(first, n_blocks - length + 1):
                span = Span(start, start + length)
                rest, others = least(span.end + gap, spans - 1)
                best = min(best, (distances.at(span) + rest, (span, *others)))
            return best

        first = max(1, self.min_distance_layer or 1)
        spans = least(first, self.num_A)[1]
        if not spans:
            raise SpanError(
                f"{self.num_A} span(s) of {length} blocks from block {first} on do not fit a model of {n_blocks} blocks: "
                "lower layers_to_skip, num_A or min_distance_layer."
            )
        return Cut.of(spans)

    def plan(self, cut: Cut | None = None) -> PruningPlan:
        """The plan of ours that does the same, its problems in one `PlanError`. The token is not part of it."""
        data: dict[str, Any] = {"model": self._model(), "calibration": self._calibration(), "method": self.method_section(cut)}
        if cut is not None:
            data["span"] = cut.plain()
        if self.tasks is not None:
            data["evaluation"] = {"tasks": ",".join(self.task_names()), "batch_size": self.batch_size}
        return PruningPlan.parse(data, "the plan of this configuration")

    def method_section(self, cut: Cut | None = None) -> dict[str, Any]:
        """The plan's method section. Several spans are fitted in sequence, with token weights."""
        if self.method == "lstsq":
            if cut is not None and len(cut.spans) > 1:
                return {"name": "weighted_least_squares"}
            structure = "diagonal" if self.diag else "triangular" if self.thri else "low_rank" if self.two_vectors else "full"
            found = {"name": "least_squares", "structure": structure, "ridge": self.alpha, "rank": 1 if self.two_vectors else None}
            return {key: value for key, value in found.items() if value is not None}
        penalty = {"l1": self.alpha, "l2": self.alpha} if self.loss == "elasticnet" else {"l2": self.alpha}
        loss = "mse" if self.loss in ("mse", "elasticnet") else "cosine" if self.accurate else "cosine_simplified"
        return {"name": _SOLVERS[self.solver or "adam"], "loss": loss} | {key: value for key, value in penalty.items() if value}

    def task_names(self) -> list[str]:
        """For example ['winogrande@5', 'boolq']: the number of few-shot examples stands behind the @."""
        tasks = self.tasks or {}
        counts: list[int | None] = list(tasks.values())
        if self.fewshots is not None:
            counts = [*self.fewshots] if len(self.fewshots) > 1 else [*self.fewshots] * len(tasks)
        return [f"{name}@{count}" if count else name for name, count in zip(tasks, counts, strict=True)]

    def _model(self) -> dict[str, Any]:
        return {"path": self.model_path} | ({"quantisation": "nf4"} if self.use_4bit else {})

    def _calibration(self) -> dict[str, Any]:
        """A bare name is a preset of ours, a file that is there, else a data set of the hub. Nothing is compared, so all text is read."""
        source = self.dataset
        if source in presets():
            source = f"preset:{source}"
        elif ":" not in source and not Path(source).exists() and not source.endswith((".jsonl", ".txt", ".csv", ".parquet")):
            source = f"hub:{source}"
        found = {"source": source, "column": self.dataset_column or "text", "split": self.dataset_subset, "max_length": self.max_length}
        found["test_tokens"] = 0
        if self.dataset_size is not None:
            found |= {"max_texts": self.dataset_size, "max_tokens": self.dataset_size * self.max_length}
        else:
            found["max_tokens"] = _TOKENS
        return found


def _pairs(tasks: Any) -> dict[str, int | None]:
    """Task -> few-shot examples, in the order given, from any of the ways to write them."""
    if isinstance(tasks, str):
        pairs: list[tuple[Any, Any]] = [(name.strip(), None) for name in tasks.split(",") if name.strip()]
    elif isinstance(tasks, dict):
        pairs = [(name, _count(value)) for name, value in tasks.items()]
    elif isinstance(tasks, list):
        pairs = [pair for task in tasks for pair in (_pairs(task).items() if isinstance(task, dict) else [(task, None)])]
    else:
        pairs = []
    wrong = [name for name, count in pairs if not isinstance(name, str) or not (count is None or (type(count) is int and count >= 0))]
    if wrong or not pairs:
        raise ValueError("names of tasks separated by commas, a list of names, or a mapping of names to few-shot examples (0 or more)")
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a task is named twice; name it once")
    return dict(pairs)


def _count(value: Any) -> Any:
    """The few-shot examples of one task, which may stand in a mapping of their own: {fewshots: 5}."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("fewshots", "num_fewshot", "n_shot"):
        return next(iter(value.values()))
    return value
