"""The job behind many prompts: greedy texts of every system, the KL on the reference's text, and the token at which each parts from it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ui.compare import words
from ui.compare.generation import Chat
from ui.compare.jobs import readable
from ui.session.jobs import Job
from ui.session.state import Lifetime, Slot, Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from ui.compare.systems import Systems


@dataclass(frozen=True, eq=False)
class Row:
    """One prompt."""

    prompt: str
    pieces: dict[str, list[str]]
    """what each token added, by system"""
    kl: dict[str, float]
    """mean KL(reference || system) over the tokens that the reference wrote, in nats"""
    parts: dict[str, int | None]
    """the first token (from 0) that is another one than the reference's; None: both texts are the same"""


@dataclass(eq=False)
class PromptSet:
    """What was made so far; the worker adds rows while pages read them."""

    reference: str
    fingerprints: dict[str, str]
    n_tokens: int
    rows: list[Row] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.fingerprints)

    def of(self, handles: "dict[str, ModelHandle]") -> bool:
        """Whether these systems made it."""
        return all(name in handles and handles[name].fingerprint == own for name, own in self.fingerprints.items())


@dataclass(eq=False)
class PromptSetState(Slot):
    """The last prompt set of a session."""

    lifetime: ClassVar[Lifetime] = "model"
    made: PromptSet | None = None


def write_all(state: Studio, found: "Systems", prompts: list[str], n_tokens: int, chat: Chat | None = None) -> Job:
    """Every system on every prompt. What is finished when the job is cancelled stays."""
    handles = found.reference_first
    made = PromptSet(found.reference, {name: handle.fingerprint for name, handle in handles.items()}, n_tokens)
    state.slot(PromptSetState).made = made

    def work(job: Job) -> None:
        for number, prompt in enumerate(prompts):
            job.update(number, len(prompts), "prompts", "generating")
            made.rows.append(_row(handles, prompt, n_tokens, chat, job))

    return submit(state, words.SET_TITLE, work, f"{prompts} {n_tokens} {found.reference} {sorted(made.fingerprints.values())}")


def _row(handles: "dict[str, ModelHandle]", prompt: str, n_tokens: int, chat: Chat | None, job: Job) -> Row:
    import torch

    from replaceme_core.comparison import compare

    read = readable(handles, prompt, chat, None)
    pieces: dict[str, list[str]] = {}
    tokens: dict[str, list[int]] = {}
    for name, handle in handles.items():
        writer = compare.Writer(handle, read[name].prompt, max_new_tokens=n_tokens)
        own: list[str] = []
        while writer.ended is None:
            job.update(job.done, job.total, "prompts", "generating")  # where Cancel is heard
            own.append(writer.step())
        pieces[name], tokens[name] = own, list(writer.tokens)
    reference, *others = handles
    ids = torch.cat([compare.encode(handles[reference], read[reference].prompt), torch.tensor(tokens[reference], dtype=torch.long)])
    reading = compare.read(handles[reference], [handles[name] for name in others], ids, last=max(2, len(tokens[reference])))
    kl = {}
    for at, name in enumerate(others, start=1):
        known = [item.kl for item in reading.expected[at] if item is not None]
        kl[name] = sum(known) / len(known) if known else 0.0
    return Row(prompt, pieces, kl, {name: _parts(tokens[reference], tokens[name]) for name in others})


def _parts(one: list[int], other: list[int]) -> int | None:
    """The first place at which the two differ, the end of the shorter one if it is the beginning of the other."""
    if one == other:
        return None
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
