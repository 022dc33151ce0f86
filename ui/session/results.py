"""What was measured and written in a session, known by the fingerprint of its weights, so that it outlives the model's stay in memory."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ui.session.state import Slot

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.comparison.compare import Divergence, Speed
    from replaceme_core.evaluation.evaluate import Scores
    from replaceme_core.export.export import Export


@dataclass(eq=False)
class Results(Slot):
    """Of this session, of any model."""

    divergences: dict[str, "Divergence"] = field(default_factory=dict)
    """by `quality_key`"""
    speeds: dict[str, "Speed"] = field(default_factory=dict)
    """by fingerprint"""
    scores: dict[tuple[str, str], "Scores"] = field(default_factory=dict)
    """by fingerprint and evaluation settings"""
    exports: list[tuple[str, "Export"]] = field(default_factory=list)
    """with the fingerprint of the exported weights"""
    pushed: list[tuple[str, str, bool]] = field(default_factory=list)
    """folder, address on the hub, and whether it is private"""

    def exports_of(self, fingerprint: str) -> "list[Export]":
        """The exports of these weights, the newest last."""
        return [export for written, export in self.exports if written == fingerprint]

    def divergence_of(self, reference: str | None, fingerprint: str) -> "Divergence | None":
        """The figures on text of these weights against the reference that were measured last."""
        pair = f"{reference} {fingerprint} "
        return next((row for key, row in reversed(self.divergences.items()) if key.startswith(pair)), None)


def quality_key(reference: "ModelHandle", handle: "ModelHandle", texts: str, n_tokens: int) -> str:
    """Under which the divergence of a system from the reference is kept."""
    return f"{reference.fingerprint} {handle.fingerprint} {texts} {n_tokens}"
