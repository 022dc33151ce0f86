"""One sweep = one file: a base plan, and lists of methods and of places to cut, each of them tried with each.

    sweep = Sweep.read("sweep.yaml")        # every problem of the file in one PlanError

Sections: model, calibration and evaluation as in a plan (see `plan.py`), methods (names, or method sections), cuts, measure.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, Field, field_validator, model_validator

from replaceme_core.errors import PlanError, SpanError
from replaceme_core.plans.plan import TAKES, CalibrationSection, EvaluationSection, MethodSection, ModelSection, PassCriterion, PruningPlan
from replaceme_core.plans.section import Section
from replaceme_core.span import Cut, Span


class CutsSection(Section):
    """Which blocks go: named by hand, or where a criterion is least, for shares of the depth or lengths in blocks."""

    spans: list[list[tuple[int, int]]] = Field(
        [], description="by hand: [start, end] removes the blocks start to end-1; several at once: [[2, 4], [6, 8]]"
    )
    shares: list[float] = Field([], description="of the blocks, each above 0 and below 1")
    lengths: list[int] = Field([], description="in blocks, each 1 or more")
    criterion: PassCriterion = Field("sinks_kept", description="what is least at the places that shares and lengths name (see criteria)")
    places: int = Field(1, ge=1, description="spans of each share or length, the best first")

    @field_validator("spans", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """[6, 9] stands for [[6, 9]]."""
        if not isinstance(value, list):
            return value
        return [[cut] if isinstance(cut, list | tuple) and cut and all(isinstance(end, int) for end in cut) else cut for cut in value]

    @field_validator("spans")
    @classmethod
    def _possible(cls, value: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
        for pairs in value:
            if not pairs or any(not 1 <= start < end for start, end in pairs):
                raise ValueError(f"{pairs} is not a cut; write [start, end] with 1 <= start < end, or several of them")
            try:
                Cut.of(Span(*pair) for pair in pairs)
            except SpanError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("shares")
    @classmethod
    def _shares(cls, value: list[float]) -> list[float]:
        if wrong := [share for share in value if not 0 < share < 1]:
            raise ValueError(f"{wrong[0]:g} is not a share of the depth; choose numbers above 0 and below 1")
        return value

    @field_validator("lengths")
    @classmethod
    def _lengths(cls, value: list[int]) -> list[int]:
        if wrong := [length for length in value if length < 1]:
            raise ValueError(f"{wrong[0]} is not a length; choose whole numbers, 1 or more")
        return value

    @model_validator(mode="after")
    def _some(self) -> "CutsSection":
        if not (self.spans or self.shares or self.lengths):
            raise ValueError("name at least one of spans, shares and lengths")
        if not (self.shares or self.lengths) and ("criterion" in self.model_fields_set or "places" in self.model_fields_set):
            raise ValueError("criterion and places go with shares or lengths; spans are named by hand")
        return self

    @property
    def named(self) -> list[Cut]:
        """Those by hand."""
        return [Cut.of(Span(*pair) for pair in pairs) for pairs in self.spans]


class MeasureSection(Section):
    """What is measured of every point, beside its checks."""

    test_tokens: int = Field(
        2048,
        ge=2,
        validation_alias=AliasChoices("test_tokens", "heldout_tokens"),
        description="of the demo's documents or the calibration's test part, for KL and perplexity",
    )
    speed: bool = Field(True, description="time and peak memory beside the original's")
    prompt_tokens: int = Field(128, ge=1, description="of the prompt that is timed")
    new_tokens: int = Field(16, ge=1, description="generated after it")
    repeats: int = Field(5, ge=1, description="of original and pruned in turn")


class Sweep(Section):
    """The whole sweep. Frozen; unknown keys are errors; all problems are reported together."""

    model: ModelSection
    calibration: CalibrationSection = CalibrationSection()
    methods: list[MethodSection] = Field([MethodSection()], min_length=1)
    cuts: CutsSection
    evaluation: EvaluationSection | None = None
    measure: MeasureSection = MeasureSection()

    @field_validator("methods", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """'cosine' stands for {name: cosine}."""
        return [{"name": method} if isinstance(method, str) else method for method in value] if isinstance(value, list) else value

    @field_validator("methods")
    @classmethod
    def _once_each(cls, value: list[MethodSection]) -> list[MethodSection]:
        for number, method in enumerate(value):
            if method in value[:number]:
                raise ValueError(f"'{method.label}' is there twice")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Sweep":
        if self.model.quantisation or self.model.device == "spread":
            raise ValueError("a sweep cuts the model in memory, so it is held as a whole: leave out quantisation and device: spread")
        return self

    @classmethod
    def read(cls, path: str | Path) -> "Sweep":
        """A sweep from a YAML file. A calibration file that is not found from here is looked for beside it."""
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PlanError(f"{path} cannot be read as a YAML sweep: {error}") from error
        sweep = cls.parse(data, origin=str(path))
        base = PruningPlan(model=sweep.model, calibration=sweep.calibration).found_beside(Path(path).parent)
        return sweep.model_copy(update={"calibration": base.calibration})

    def to_yaml(self) -> str:
        data = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        for name, section in (
            ("model", self.model),
            ("calibration", self.calibration),
            ("evaluation", self.evaluation),
        ):  # what is left out follows the model, a default named does not
            if section is not None:
                data[name] = section.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        data["methods"] = [plain_method(method) for method in self.methods]
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def plain_method(method: MethodSection) -> dict[str, Any]:
    """A method section as plain data: its name and what was told to it."""
    data = method.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {"name": method.name} | {key: value for key, value in data.items() if method.name in TAKES.get(key, (method.name,))}
