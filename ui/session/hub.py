"""One process-wide home for models and their variants: a lock, a memory budget, unload before load.

Sessions keep fingerprints, never models, so that unloading really frees the memory.
"""

import ctypes
import gc
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.session.access import access
from ui.session.reach import listens

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut, ModelHandle, Variant
    from replaceme_core.plans.plan import ModelSection
    from replaceme_core.progress import Progress
    from ui.session.calibration_choice import GivenText


_CLASS, _OWN = 40, 5
"""sessions that are found again after a reload, on a server that others reach and on one's own"""


@dataclass(eq=False)
class Resident:
    """A loaded model with everything that shares its tensors."""

    handle: "ModelHandle"
    section: "ModelSection"
    block_parameters: list[int]
    variants: dict[tuple[str, str], "Variant"] = field(default_factory=dict)
    """by session and name"""
    cuts: dict["Cut", "Variant"] = field(default_factory=dict)
    """the cut without transform, by span"""
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    """where a variant was merged on disk, by session and name: those of a model held quantised or spread share no tensor with it"""
    texts: dict[tuple[str, str], "GivenText"] = field(default_factory=dict)
    """the upload or pasted text that a variant was fitted on, by session and name"""
    records: dict[tuple[str, str], str] = field(default_factory=dict)
    """under which a variant is kept on the disk (see session.kept), by session and name"""
    unkept: dict[tuple[str, str], str] = field(default_factory=dict)
    """why a variant is not, by session and name; '' for one that is"""
    used_at: float = 0.0

    @property
    def n_bytes(self) -> int:
        return sum(self.bytes_by_device.values())

    @property
    def bytes_by_device(self) -> dict[str, int]:
        """With the variants that were merged on disk, which share no tensor with it."""
        own = [self.handle, *(self.variants[key].handle for key in self.folders if key in self.variants)]
        found: dict[str, int] = {}
        for handle in own:
            for device, size in handle.bytes_by_device.items():
                found[device] = found.get(device, 0) + size
        return found

    @property
    def is_demo(self) -> bool:
        """Whether it is the model that was trained for this app, which brings its own text and questions."""
        return self.section.path == "demo"

    @property
    def merges_on_disk(self) -> bool:
        """Whether a transform goes into the checkpoint, because the weights in memory are not those of the model."""
        return self.handle.checkpoint is not None


class ModelHub:
    """The only place of the app that loads and unloads models."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._residents: dict[str, Resident] = {}
        self._fingerprints: dict[str, str] = {}
        self.sessions: list[Any] = []
        """the last few sessions' states, newest last"""

    def remember(self, session: Any) -> None:
        """Note a session as the newest; as many are kept as people share the server, and a few where one person has it.

        Of too many, those go first that have only voted, then those without a model, the oldest first.
        """
        most = _CLASS if access().shared or listens() else _OWN
        kept = [other for other in self.sessions if other is not session]
        leaving = sorted(kept, key=lambda other: (other.model is not None, other.asked))[: max(0, len(kept) + 1 - most)]
        self.sessions = [*(other for other in kept if other not in leaving), session]

    def get(self, fingerprint: str | None) -> Resident | None:
        resident = self._residents.get(fingerprint or "")
        if resident is not None:
            resident.used_at = time.monotonic()
        return resident

    def load(self, section: "ModelSection", progress: "Progress") -> Resident:
        """The resident of this section, loaded now unless it is already here. Others leave first if memory is short."""
        from replaceme_core.measurement.preflight import preflight
        from replaceme_core.models import loading

        with self._lock:
            section = loading.as_stored(section)
            known = self.get(self._fingerprints.get(section.model_dump_json()))
            if known is not None:
                return known
            self._make_room(preflight(section).needed_bytes, section.device)
            handle = loading.load(section, progress)
            _require_rewritable(handle)
            resident = self._residents.get(handle.fingerprint)
            if resident is None or resident.merges_on_disk != (handle.checkpoint is not None):  # spread, the values are the same
                resident = Resident(
                    handle,
                    section,
                    _block_parameters(handle),
                    *((resident.variants, {}, resident.folders, resident.texts, resident.records, resident.unkept) if resident else ()),
                )
                self._forget_sections(handle.fingerprint)
            self._residents[handle.fingerprint] = resident
            self._fingerprints[section.model_dump_json()] = handle.fingerprint
            resident.used_at = time.monotonic()
            return resident

    def unload(self, fingerprint: str) -> None:
        """Forget a model and its variants and give the memory back."""
        with self._lock:
            self._residents.pop(fingerprint, None)
            self._forget_sections(fingerprint)
            gc.collect()
            cuda = getattr(sys.modules.get("torch"), "cuda", None)
            if cuda is not None and cuda.is_available() and cuda.is_initialized():
                cuda.empty_cache()  # other processes on the card get it, too
            trim_heap()

    def _forget_sections(self, fingerprint: str) -> None:
        self._fingerprints = {key: value for key, value in self._fingerprints.items() if value != fingerprint}

    def leaving(self, needed_bytes: int, device: str = "cpu") -> list[Resident]:
        """The residents, least recently used first, that must go before `needed_bytes` more are loaded to a device of the plan ('auto', ...)."""
        from replaceme_core import memory

        place = _place(device)
        gone: list[Resident] = []
        free = memory.of(place)[0]
        for resident in sorted(self._residents.values(), key=lambda item: item.used_at):
            if needed_bytes <= 0.9 * free:
                break
            given_back = sum(size for where, size in resident.bytes_by_device.items() if place in ("spread", _place(where)))
            if given_back:
                gone.append(resident)
                free += given_back
        return gone

    def _make_room(self, needed_bytes: int, device: str) -> None:
        for resident in self.leaving(needed_bytes, device):
            self.unload(resident.handle.fingerprint)


def _place(device: str) -> str:
    """Where the memory of a device is: a card by its number, 'spread' for all, else main memory, which an Apple GPU shares."""
    from replaceme_core.models import loading

    if device in ("spread", "cpu", "meta"):
        return device
    found = loading.resolve_device(device)
    if not found.startswith("cuda"):
        return "cpu"
    return found if ":" in found else "cuda:0"


def _require_rewritable(handle: "ModelHandle") -> None:
    """A `ModelError` at once for a model held quantised or spread whose checkpoint could not take a transform later."""
    from replaceme_core.surgery import checkpoint

    if handle.family.merge != "refused":
        checkpoint.require_rewritable(handle)


def _block_parameters(handle: "ModelHandle") -> list[int]:
    """Parameters of every block, of a packed 4-bit layer too."""
    from replaceme_core.models.architecture import families

    if not handle.family.blocks:
        return [0] * handle.n_blocks
    with handle.borrow() as model:
        blocks = families.blocks_of(model, handle.family)
        return [sum(_n_values(module) for module in block.modules()) for block in blocks]


def _n_values(module: Any) -> int:
    """Parameters of one module alone; the shape of a quantised weight is that of its packing, so the layer's widths say."""
    size = getattr(module, "in_features", 0) * getattr(module, "out_features", 0)
    return sum(size if size and name == "weight" else p.numel() for name, p in module.named_parameters(recurse=False))


def trim_heap() -> None:
    """Give freed memory back to the system: the C library keeps what lies between living blocks. Nothing happens where it is not glibc."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@st.cache_resource(show_spinner=False)
def hub() -> ModelHub:
    return ModelHub()
