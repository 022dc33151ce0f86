"""What one browser session knows. It lives under one non-widget key; the worker thread may write results into it."""

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import streamlit as st

from replaceme_core.plans.plan import MethodSection
from ui.compare.generation import Generation
from ui.lesson.state import LessonState
from ui.session.hub import Resident, hub
from ui.sweep.state import SweepChoice

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, Measurement, Span, Variant
    from replaceme_core.calibration.calibration import CalibrationSet
    from replaceme_core.comparison.compare import Divergence, Speed
    from replaceme_core.evaluation.evaluate import Scores
    from replaceme_core.export.export import Export
    from replaceme_core.plans.plan import CalibrationSection, Criterion
    from replaceme_core.studies.planner import Found
    from ui.export.jobs import Zipped
    from ui.frame.address import Address
    from ui.session.calibration_choice import GivenText

_KEY = "studio"


@dataclass(eq=False)
class Studio:
    """The state of one session. Models and variants stay in the hub; this holds fingerprints and small results."""

    owner: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    model: str | None = None
    calibration: "CalibrationSet | None" = None
    calibration_section: "CalibrationSection | None" = None
    calibration_text: "GivenText | None" = None
    """the upload or pasted text of that set"""
    measurement: "Measurement | None" = None
    span: "Span | None" = None
    more: "list[Span]" = field(default_factory=list)
    """further spans of the same cut, put aside"""
    pinned: "Cut | None" = None
    """what the present cut is compared with"""
    criterion: "Criterion" = "distance"
    """what the places of one length are ranked by"""
    places: "Found | None" = None
    """what the search for places measured last"""
    method: MethodSection = field(default_factory=MethodSection)
    """what the Fit page is set to"""
    chart_nonce: int = 0
    """changes the heatmap's key, the only way to drop a stale highlight"""
    seen_click: Any = None
    table_moves: tuple[int, tuple[int, int] | None] = (0, None)
    """number of the matrix's table, and the cell (start, end) that was chosen on it last"""
    visited: set[str] = field(default_factory=set)
    settled_job: int = 0
    """id of the ended job that the page already shows"""
    job_drawn: bool = False
    """whether this run of the page shows the job already"""
    caches: dict[Any, Any] = field(default_factory=dict)
    prepared: dict[Any, Any] = field(default_factory=dict)
    """the calibration set that the Model page previews"""
    generation: Generation | None = None
    divergences: dict[str, "Divergence"] = field(default_factory=dict)
    """by `scoring.quality_key`"""
    speeds: dict[str, "Speed"] = field(default_factory=dict)
    scores: dict[tuple[str, str], "Scores"] = field(default_factory=dict)
    """by fingerprint of the weights and evaluation settings"""
    sweep: SweepChoice = field(default_factory=SweepChoice)
    exports: list[tuple[str, "Export"]] = field(default_factory=list)
    """with the fingerprint of the exported weights"""
    zipped: "Zipped | None" = None
    """the zip that waits to be fetched"""
    present: bool = False
    """presenter mode: large type, fewer controls"""
    wanted: "Address | None" = None
    """what an address asked for and could not be had yet"""
    address_seen: dict[str, str] = field(default_factory=dict)
    """what stood in the address bar at the end of the last run"""
    address_problems: list[str] = field(default_factory=list)
    turned: bool = False
    """whether a control of the page began this run, so that the address bar may be one step behind"""
    prompt: str = ""
    """the prompt of the address"""
    lesson: LessonState = field(default_factory=LessonState)

    @property
    def resident(self) -> Resident | None:
        """The loaded model with its variants; None if nothing is loaded, or if another tab made it leave."""
        return hub().get(self.model)

    @property
    def reads_images(self) -> bool:
        """Whether the loaded model is an encoder of images."""
        return self.resident is not None and self.resident.handle.family.inputs == "images"

    @property
    def variants(self) -> dict[str, "Variant"]:
        """This session's variants of the current model, by name."""
        resident = self.resident
        if resident is None:
            return {}
        return {name: variant for (owner, name), variant in resident.variants.items() if owner == self.owner}

    @property
    def cut(self) -> "Cut | None":
        """All that is removed: the current span and those put aside."""
        from replaceme_core.span import Cut

        return Cut.of([self.span, *self.more]) if self.span else None

    @property
    def removed(self) -> list[int] | None:
        """The removed blocks."""
        return self.cut.blocks if self.cut else None

    def span_words(self, n_blocks: int) -> str:
        return self.cut.describe(n_blocks) if self.cut else f"{n_blocks} blocks, all kept"

    @staticmethod
    def apart(span: "Span", others: "list[Span]") -> bool:
        """Whether a block stays between this span and each of the others."""
        return all(span.end < other.start or other.end < span.start for other in others)

    def use_model(self, resident: Resident) -> None:
        """Make this the current model. What belonged to another model's text and blocks goes; variants stay in the hub."""
        if resident.handle.fingerprint != self.model:
            self.forget_model()
        self.model = resident.handle.fingerprint
        hub().remember(self)

    def forget_model(self) -> None:
        """No model, and nothing that belongs to one; scores, speeds and exports are known by their weights and stay."""
        self.model = None
        self.calibration = self.calibration_section = self.calibration_text = None
        self.measurement = self.span = self.generation = self.places = None
        self.more, self.pinned = [], None
        self.caches, self.prepared = {}, {}
        self.chart_nonce += 1

    def use_measurement(
        self, measurement: "Measurement", calibration: "CalibrationSet", section: "CalibrationSection", given: "GivenText | None" = None
    ) -> None:
        """Take a finished pass over; a span that still fits is kept, else the least distant quarter is chosen."""
        from replaceme_core.selection import spans

        self.calibration, self.calibration_section, self.calibration_text = calibration, section, given
        self.caches, self.places = {}, None
        if self.span is None or self.span.end > measurement.n_blocks:
            length = spans.length_of_share(measurement.n_blocks, 0.25)
            self.span = spans.best(measurement.distances["all"], length) if measurement.n_blocks > 1 else None
            self.more = []
        self.chart_nonce += 1
        self.measurement = measurement

    def choose_cut(self, cut: "Cut") -> None:
        """Make all spans of a cut the present ones."""
        self.more = list(cut.spans[1:])
        self.choose(cut.spans[0])

    def choose(self, span: "Span", from_chart: bool = False) -> None:
        """Make this the current span and keep heatmap, slider and table in step. A span put aside that it meets is taken back."""
        self.more = [other for other in self.more if self.apart(other, [span])]
        if span == self.span:
            return
        self.span = span
        if not from_chart:
            self.chart_nonce += 1


def adopt(other: Studio) -> None:
    """Go on with the state of another tab, as after a reload of the page."""
    st.session_state[_KEY] = other


def studio() -> Studio:
    """The state of this session."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = Studio()
    return st.session_state[_KEY]
