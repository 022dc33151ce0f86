"""What one browser session knows. It lives under one non-widget key; the worker thread may write results into it.

Here stands what several pages need. What one page alone needs is a class of that page, which a session makes on first use:

    state.slot(BlocksState).criterion = "path"
"""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import streamlit as st

from ui.session.hub import Resident, hub

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, Measurement, Span, Variant
    from replaceme_core.calibration.calibration import CalibrationSet
    from replaceme_core.plans.plan import CalibrationSection, MethodSection
    from ui.session.calibration_choice import GivenText

_KEY = "studio"
SESSION = "session"
"""the parameter of an address that holds a session's id"""
Lifetime = Literal["session", "model", "measurement"]


class Slot:
    """A part of a session's state that belongs to one page or stage. A dataclass whose fields all have defaults."""

    lifetime: ClassVar[Lifetime] = "session"
    """when it is dropped: with the session, with the model, or with the measurement (which goes with the model, too)"""


S = TypeVar("S", bound=Slot)


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
    partial: "Measurement | None" = None
    """distances of what the pass that is under way has read so far, without sums to fit from"""
    partial_of: int = 0
    """tokens that this pass will have read at its end"""
    span: "Span | None" = None
    more: "list[Span]" = field(default_factory=list)
    """further spans of the same cut, put aside"""
    span_moves: int = 0
    """how often the span was set by anything but a click on the heatmap, whose highlight is then stale"""
    text_moves: int = 0
    """how often the calibration set was chosen by anything but the form of the Model page, whose fields then follow"""
    present: bool = False
    """presenter mode: large type, fewer controls"""
    asked: bool = False
    """whether long work was ever asked for"""
    voted: bool = False
    """whether it takes part in a poll, so that a reload must be the same voter"""
    tab: str = ""
    """streamlit's id of the browser tab that shows this session"""
    turned: bool = False
    """whether a control of the page began this run, so that the address bar may be one step behind"""
    _suggested: "Span | None" = field(default=None, init=False, repr=False)
    """the span that was chosen by itself and that nobody has touched; it follows the distances while they sharpen"""
    _by_distance: "Span | None" = field(default=None, init=False, repr=False)
    """the span that a finished pass suggested and that nobody has touched; it gives way to the first by measured cost"""
    _method: "MethodSection | None" = field(default=None, init=False, repr=False)
    """None: untouched, so that the first page need not wait for the plans to be imported"""
    _slots: dict[type[Slot], Any] = field(default_factory=dict, init=False, repr=False)
    _done: "dict[str, Callable[[Studio], bool]]" = field(default_factory=dict, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def slot(self, kind: type[S]) -> S:
        """This session's `kind`, made on first use."""
        with self._lock:
            if kind not in self._slots:
                self._slots[kind] = kind()
            found: S = self._slots[kind]
            return found

    def _drop(self, *lifetimes: Lifetime) -> None:
        with self._lock:
            self._slots = {kind: held for kind, held in self._slots.items() if kind.lifetime not in lifetimes}

    def mark_done(self, step: str, still: "Callable[[Studio], bool]") -> None:
        """The step has a result, for as long as `still` finds it."""
        self._done[step] = still

    @property
    def method(self) -> "MethodSection":
        """What the Fit page is set to."""
        if self._method is None:
            from replaceme_core.plans.plan import MethodSection

            self._method = MethodSection()
        return self._method

    @method.setter
    def method(self, chosen: "MethodSection") -> None:
        self._method = chosen

    @property
    def done_steps(self) -> set[str]:
        """The steps that have a result now."""
        return {step for step, still in list(self._done.items()) if still(self)}

    @property
    def resident(self) -> Resident | None:
        """The loaded model with its variants; None if nothing is loaded, or if another tab made it leave."""
        return hub().get(self.model)

    @property
    def has_work(self) -> bool:
        """Whether there is something to come back to after a reload."""
        return self.model is not None or self.asked or self.voted

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
    def shown(self) -> "Measurement | None":
        """What is known of the distances: of the pass that is under way, else of the one that was made."""
        return self.partial or self.measurement

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
        """No model, and nothing that belongs to one; what is known by its weights (scores, speeds, exports) stays."""
        self.model = None
        self.calibration = self.calibration_section = self.calibration_text = None
        self.measurement = self.partial = self.span = self._suggested = self._by_distance = None
        self.more = []
        self._drop("model", "measurement")
        self.span_moves += 1

    def use_measurement(
        self, measurement: "Measurement", calibration: "CalibrationSet", section: "CalibrationSection", given: "GivenText | None" = None
    ) -> None:
        """Take a finished pass over; a span that still fits is kept, else the least distant quarter that keeps the attention sink is chosen."""
        self.calibration, self.calibration_section, self.calibration_text = calibration, section, given
        self._drop("measurement")
        self._suggest(measurement)
        self._by_distance = self.span if self.span == self._suggested else None
        self._suggested = None
        self.span_moves += 1
        self.measurement, self.partial = measurement, None
        self.mark_done("model", lambda state: state.resident is not None and state.measurement is not None)

    def use_partial(self, so_far: "Measurement", n_tokens: int) -> None:
        """Show the distances of a pass that is under way; `n_tokens` it will have read at its end."""
        self._suggest(so_far)
        self.partial, self.partial_of = so_far, n_tokens

    def _suggest(self, measurement: "Measurement") -> None:
        """The least distant quarter that keeps the attention sink, where no span was chosen by a person."""
        from replaceme_core.selection import sinks, spans

        if self.span is not None and self.span.end <= measurement.n_blocks and self.span != self._suggested:
            return
        length = spans.length_of_share(measurement.n_blocks, 0.25)
        found = spans.best(sinks.kept(measurement), length) if measurement.n_blocks > 1 else None
        if found != self.span:
            self.span, self.more = found, []
            self.span_moves += 1
        self._suggested = found

    def suggest_measured(self, span: "Span") -> bool:
        """The first place by measured cost; it takes the place of one that the distance suggested and nobody has touched or fitted.

        True if it did.
        """
        moves = self._by_distance is not None and self.span == self._by_distance != span and not self.more and not self.variants
        self._by_distance = None
        if moves:
            self.span = span
            self.span_moves += 1
        return moves

    @property
    def is_only_distance(self) -> bool:
        """Whether the present span was suggested by the distance alone and nobody has touched it."""
        return self._by_distance is not None and self.span == self._by_distance

    def choose_cut(self, cut: "Cut") -> None:
        """Make all spans of a cut the present ones."""
        self.more = list(cut.spans[1:])
        self.choose(cut.spans[0])

    def choose(self, span: "Span", from_chart: bool = False) -> None:
        """Make this the current span and keep heatmap, slider and table in step. A span put aside that it meets is taken back."""
        self._suggested = self._by_distance = None
        self.more = [other for other in self.more if self.apart(other, [span])]
        if span == self.span:
            return
        self.span = span
        if not from_chart:
            self.span_moves += 1


def adopt(other: Studio) -> None:
    """Go on with the state of another tab, as after a reload of the page."""
    st.session_state[_KEY] = other


def has_studio() -> bool:
    """Whether this tab has a session already."""
    return _KEY in st.session_state


def studio() -> Studio:
    """The state of this session."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = Studio()
    return st.session_state[_KEY]


def carried() -> dict[str, str]:
    """What the address keeps from page to page: presenter mode, and the id by which a reload finds this session again."""
    state = st.session_state.get(_KEY)
    if state is None:
        return {}
    return ({"present": "1"} if state.present else {}) | ({SESSION: state.owner} if state.has_work else {})


def presenting() -> bool:
    """Whether this session shows its pages to a room; asked before its state is made, too."""
    return bool(getattr(st.session_state.get(_KEY), "present", False))
