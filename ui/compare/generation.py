"""One prompt and all that was made of it: what every system wrote, how the texts were read, and what the lens showed."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ui.session.link import PromptInUse
from ui.session.state import Lifetime, Slot, Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.comparison.logit_lens import Lens
    from replaceme_core.comparison.reading import Reading
    from ui.session.jobs import Job


@dataclass(frozen=True)
class Chat:
    """A conversation: its system message, and what the user said before the present message."""

    system: str = ""
    said: tuple[str, ...] = ()


@dataclass(eq=False)
class Written:
    """What one system has written so far; the worker adds to it while pages read it."""

    fingerprint: str
    prompt: str = ""
    """all that it read: the prompt, or the conversation in the model's template"""
    earlier: tuple[str, ...] = ()
    """its own answers to what was said before"""
    pieces: list[str] = field(default_factory=list)
    """what each token added"""
    ended: str = ""
    """why it ended: 'limit', 'end of text', 'context full', 'stopped'; empty while it writes"""
    tokens: list[int] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(eq=False)
class Generation:
    """It belongs to the session, not to a run of the page: a click in the middle of it loses nothing."""

    prompt: str
    settings: dict[str, Any]
    columns: dict[str, Written]
    chat: Chat | None = None
    """None: the prompt is plain text, which the systems go on with"""
    job: "Job | None" = None
    finished: bool = False
    readings: "dict[tuple[Any, ...], Reading]" = field(default_factory=dict)
    lenses: "dict[tuple[str, int], Lens]" = field(default_factory=dict)
    """by fingerprint and tokens shown"""
    jobs: "dict[Any, Job]" = field(default_factory=dict)
    """the job of every reading and lens that was asked for: one that failed is not started again by itself"""
    positions: dict[tuple[str, ...], int] = field(default_factory=dict)
    """the token whose expectations are shown, by reading"""

    @property
    def read_first(self) -> str:
        """What the first system read; all read the same but for their own earlier answers."""
        return next((written.prompt for written in self.columns.values()), self.prompt)

    def goes_on_with(self, handles: "dict[str, ModelHandle]") -> bool:
        """Whether these systems are those of a conversation that can be gone on with."""
        known = {name: written.fingerprint for name, written in self.columns.items()}
        return self.chat is not None and self.finished and known == {name: handle.fingerprint for name, handle in handles.items()}

    @property
    def texts(self) -> dict[str, str]:
        return {name: written.text for name, written in self.columns.items()}

    def end(self) -> None:
        """Nothing more is written: what had no end of its own was stopped, perhaps before its turn had come."""
        for written in self.columns.values():
            written.ended = written.ended or "stopped"
        self.finished = True

    def of(self, name: str, fingerprint: str) -> Written | None:
        """What the system of this name wrote, unless another model has the name by now."""
        written = self.columns.get(name)
        return written if written is not None and written.fingerprint == fingerprint else None


@dataclass(eq=False)
class CompareState(Slot):
    """What the Compare page knows of a session."""

    lifetime: ClassVar[Lifetime] = "model"
    generation: Generation | None = None
    draft: str | None = None
    """a prompt that was chosen and not yet sent"""
    offered: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """the texts of a part as prompts, by the calibration set's fingerprint and the part"""


def present(state: Studio) -> Generation | None:
    """What was written last, unless an address brought another prompt since."""
    own = state.slot(CompareState)
    if own.generation is not None and not state.slot(PromptInUse).text:
        own.generation = None
    return own.generation
