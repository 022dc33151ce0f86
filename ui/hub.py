"""One process-wide home for models and their variants: a lock, a memory budget, unload before load.

Sessions keep fingerprints, never models, so that unloading really frees the memory.
"""

import gc
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import streamlit as st

from replaceme_core.errors import ReplaceMeError

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle, Span, Variant
    from replaceme_core.plan import ModelSection
    from replaceme_core.progress import Progress


@dataclass(eq=False)
class Resident:
    """A loaded model with everything that shares its tensors."""

    handle: "ModelHandle"
    section: "ModelSection"
    block_parameters: list[int]
    variants: dict[tuple[str, str], "Variant"] = field(default_factory=dict)
    """by session and name"""
    cuts: dict["Span", "Variant"] = field(default_factory=dict)
    """the cut without transform, by span"""
    used_at: float = 0.0

    @property
    def n_bytes(self) -> int:
        return self.handle.n_bytes


class ModelHub:
    """The only place of the app that loads and unloads models."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._residents: dict[str, Resident] = {}
        self._fingerprints: dict[str, str] = {}
        self.sessions: list[Any] = []
        """the last few sessions' states, newest last"""

    def other_session(self, mine: Any) -> Any:
        """The newest other session whose model is still here, for a tab that was reloaded."""
        found = [session for session in self.sessions if session is not mine and self._residents.get(session.model or "")]
        return found[-1] if found else None

    def remember(self, session: Any) -> None:
        """Note a session as the newest; only a few are kept."""
        self.sessions = [*[other for other in self.sessions if other is not session][-4:], session]

    def get(self, fingerprint: str | None) -> Resident | None:
        resident = self._residents.get(fingerprint or "")
        if resident is not None:
            resident.used_at = time.monotonic()
        return resident

    def load(self, section: "ModelSection", progress: "Progress") -> Resident:
        """The resident of this section, loaded now unless it is already here. Others leave first if memory is short."""
        from replaceme_core import loading

        with self._lock:
            known = self.get(self._fingerprints.get(section.model_dump_json()))
            if known is not None:
                return known
            self._make_room(loading.preflight(section).needed_bytes)
            handle = loading.load(section, progress)
            resident = self._residents.get(handle.fingerprint) or Resident(handle, section, _block_parameters(handle))
            self._residents[handle.fingerprint] = resident
            self._fingerprints[section.model_dump_json()] = handle.fingerprint
            resident.used_at = time.monotonic()
            return resident

    def unload(self, fingerprint: str) -> None:
        """Forget a model and its variants and give the memory back."""
        with self._lock:
            self._residents.pop(fingerprint, None)
            self._fingerprints = {key: value for key, value in self._fingerprints.items() if value != fingerprint}
            gc.collect()

    def leaving(self, needed_bytes: int) -> list[Resident]:
        """The residents, least recently used first, that must go before `needed_bytes` more are loaded."""
        gone: list[Resident] = []
        free = available_memory()
        for resident in sorted(self._residents.values(), key=lambda item: item.used_at):
            if needed_bytes <= 0.9 * free:
                break
            gone.append(resident)
            free += resident.n_bytes
        return gone

    def _make_room(self, needed_bytes: int) -> None:
        for resident in self.leaving(needed_bytes):
            self.unload(resident.handle.fingerprint)


def _block_parameters(handle: "ModelHandle") -> list[int]:
    """Parameters of every block."""
    from replaceme_core import families

    if not handle.family.blocks:
        return [0] * handle.n_blocks
    with handle.borrow() as model:
        blocks = families.blocks_of(model, handle.family)
        return [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]


def available_memory() -> int:
    """Bytes of main memory that can be had now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            table = dict(line.split(":", 1) for line in lines)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 << 30


@st.cache_resource(show_spinner=False)
def hub() -> ModelHub:
    return ModelHub()


@st.cache_resource(show_spinner=False)
def warm() -> threading.Thread:
    """Import the heavy libraries in the background while the first page is being read."""

    def imports() -> None:
        from replaceme_core import calibration, loading, measure, pipeline, solvers  # noqa: F401
        from replaceme_core.plan import ModelSection
        from ui import blocks_view  # noqa: F401

        with suppress(ReplaceMeError):  # transformers imports a family's code only when one is built
            loading.preflight(ModelSection(path="demo"))

    thread = threading.Thread(target=imports, name="warm", daemon=True)
    thread.start()
    return thread
