"""Polls of a class: everyone predicts a span from an own browser, one page shows the tally. They live in this process, and only there."""

import secrets
import threading
from collections import Counter
from dataclasses import dataclass, field

import streamlit as st

from replaceme_core.span import Span
from ui.session.link import POLL_SIGNS

_SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""no sign that is taken for another one when it is read from a wall"""
LONGEST_NAME = 24
_KEPT = 20


@dataclass(frozen=True)
class Vote:
    """What one session predicts; a name is a person's own choice."""

    span: Span
    name: str = ""


@dataclass(eq=False)
class Poll:
    """One question: which `length` blocks will this model miss least? Of two votes of one session the last counts."""

    code: str
    owner: str
    """the session whose page shows the tally"""
    model: str
    length: int
    revealed: bool = False
    _votes: dict[str, Vote] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def vote(self, voter: str, span: Span, name: str = "") -> bool:
        """Count a vote; False once the answer is shown, or if the span has another length."""
        with self._lock:
            if self.revealed or len(span) != self.length:
                return False
            self._votes[voter] = Vote(span, " ".join(name.split())[:LONGEST_NAME])
            return True

    def of(self, voter: str) -> Vote | None:
        return self._votes.get(voter)

    def tally(self) -> Counter[Span]:
        """Votes for every span that has one."""
        with self._lock:
            return Counter(vote.span for vote in self._votes.values())

    def names(self, span: Span) -> list[str]:
        """Who gave a name and predicts this span, in alphabetical order."""
        with self._lock:
            return sorted(vote.name for vote in self._votes.values() if vote.span == span and vote.name)


class Polls:
    """The polls of this process, the newest of them kept."""

    def __init__(self) -> None:
        self._polls: dict[str, Poll] = {}
        self._lock = threading.Lock()

    def start(self, owner: str, model: str, length: int) -> Poll:
        """A new poll of this session; one that it had before ends."""
        with self._lock:
            for code in [code for code, poll in self._polls.items() if poll.owner == owner]:
                del self._polls[code]
            while len(self._polls) >= _KEPT:
                del self._polls[next(iter(self._polls))]
            code = "".join(secrets.choice(_SIGNS) for _ in range(POLL_SIGNS))
            self._polls[code] = poll = Poll(code, owner, model, length)
            return poll

    def get(self, code: str | None) -> Poll | None:
        return self._polls.get(code or "")

    def of(self, owner: str) -> Poll | None:
        """The poll that this session's page shows."""
        return next((poll for poll in self._polls.values() if poll.owner == owner), None)

    def end(self, poll: Poll) -> None:
        with self._lock:
            self._polls.pop(poll.code, None)


@st.cache_resource(show_spinner=False)
def polls() -> Polls:
    return Polls()
