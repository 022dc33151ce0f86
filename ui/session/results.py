"""What was measured and written in a session, known by the fingerprint of its weights, so that it outlives the model's stay in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ui.session.state import Slot

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.calibration.calibration import CalibrationSet
    from replaceme_core.comparison.compare import Divergence, Speed
    from replaceme_core.evaluation.evaluate import Scores
    from replaceme_core.export.export import Export


@dataclass(eq=False)
class Results(Slot):
    """Of this session, of any model."""

    divergences: "dict[QualityKey, Divergence]" = field(default_factory=dict)
    """the newest last"""
    timings: "list[dict[str, Speed]]" = field(default_factory=list)
    """of every run, in which the systems took turns, by fingerprint; the newest last"""
    scores: dict[tuple[str, str], "Scores"] = field(default_factory=dict)
    """by fingerprint and evaluation settings"""
    exports: list[tuple[str, "Export"]] = field(default_factory=list)
    """with the fingerprint of the exported weights"""
    pushed: list[tuple[str, str, bool]] = field(default_factory=list)
    """folder, address on the hub, and whether it is private"""

    def exports_of(self, fingerprint: str) -> "list[Export]":
        """The exports of these weights, the newest last."""
        return [export for written, export in self.exports if written == fingerprint]

    def on_one_text(self, reference: str | None, systems: dict[str, str]) -> "dict[str, Divergence]":
        """The figures on text of these systems (fingerprints by name) that may stand side by side.

        Of the texts that were measured on, the one with the most of the systems counts; of several such, that of the newest figure.
        """
        found: dict[tuple[str, int], dict[str, Divergence]] = {}
        for key, row in reversed(self.divergences.items()):
            if key.reference == reference:
                rows = found.setdefault((key.text, key.n_tokens), {})
                rows.update({name: row for name, fingerprint in systems.items() if fingerprint == key.system})
        return max(found.values(), key=len, default={})

    def timed_together(self, fingerprints: Iterable[str]) -> "dict[str, Speed]":
        """The speeds of one run, because a machine is not equally fast at all times: of that with the most of these systems, the newest of several."""
        asked = list(fingerprints)
        runs = [{each: run[each] for each in asked if each in run} for run in reversed(self.timings)]
        return max(runs, key=len, default={})


class QualityKey(NamedTuple):
    """What the divergence of a system from a reference belongs to."""

    reference: str
    """fingerprint of its weights"""
    system: str
    """the same"""
    text: str
    """'demo', or the fingerprint of a calibration set's test part"""
    n_tokens: int


def quality_key(
    reference: "ModelHandle", handle: "ModelHandle", texts: str, n_tokens: int, calibration: "CalibrationSet | None"
) -> QualityKey:
    """`texts`: 'calibration' for the test part of the set that is measured, whose tokens stand for it, or 'demo'."""
    text = calibration.test_fingerprint if texts == "calibration" and calibration is not None else texts
    return QualityKey(reference.fingerprint, handle.fingerprint, text, n_tokens)
