"""The paper's kind of table on any model: what each method of pruning costs, with intervals, at equal shares of the depth.

    rows = run(handle, calibration, texts.comparison_text(handle, path, calibration), Aim(shares=(0.25,)), Path("table.jsonl"))

Every finished row is written to the file at once. A run that was stopped goes on there: rows of the same model, calibration set and
settings are read, not made again. A method that fails leaves a row that says why and is tried again next time.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.parts import TextPart
from replaceme_core.errors import Cancelled, ExportError, InputError, ReplaceMeError
from replaceme_core.evaluation.evaluate import require_text
from replaceme_core.evaluation.suites import identity
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.progress import SILENT, Portion, Progress
from replaceme_core.selection import sinks, spans
from replaceme_core.storage.folders import plain
from replaceme_core.studies.leaderboard import contestants
from replaceme_core.studies.leaderboard.contestants import Contestant, Setting
from replaceme_core.studies.leaderboard.standing import adds_up, standing
from replaceme_core.studies.planner import require_comparable

ORIGINAL = "original"
FORMAT = 4
"""of the rows; one more whenever a figure changes its meaning, so that old rows are not set beside new ones"""


_BEGIN = b'{"method": "'
"""of every row, as it is written"""


@dataclass(frozen=True)
class Aim:
    """What is run."""

    methods: tuple[Contestant, ...] = field(default_factory=lambda: tuple(contestants.find(None)))
    shares: tuple[float, ...] = (0.25,)
    """of the blocks to remove"""
    evaluation: EvaluationSection | None = field(default_factory=EvaluationSection)
    """None: no benchmarks"""
    seed: int = 0


def run(
    handle: ModelHandle,
    calibration: CalibrationSet,
    text: TextPart,
    aim: Aim,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """The rows, the original first, then share by share; KL and perplexity are those on `text`, a test part."""
    require_comparable(handle)
    if aim.evaluation is not None:
        require_text(handle)
    lengths = _lengths(handle, aim)
    record = Record(out, _settings(handle, calibration, text, aim))
    total = 1 + len(lengths) * len(aim.methods)
    original = record.done(ORIGINAL, 0)
    if original is None:
        found = standing(handle, handle, text, aim.evaluation, {}, Portion(progress, 0, 0, total, "rows", ORIGINAL, inner=True))
        words = {"title": ORIGINAL, "group": ORIGINAL, "kind": "", "training": False, "plain": True, "reference": "", "arxiv": ""}
        original = record.add({"method": ORIGINAL, **words, "share": 0.0, "n_removed": 0, "removed": [], "seconds": 0.0} | found)
    rows, setting = [original], None
    for index, (share, length, row) in enumerate(((s, n, row) for s, n in lengths for row in aim.methods), start=1):
        done = record.done(row.name, length)
        if done is None:
            step = Portion(progress, index, 0, total, "rows", f"{row.title} at {share:.1%}", inner=True)
            setting = setting or _setting(handle, calibration, [n for _, n in lengths], aim.seed, step)
            done = record.add(_row(row, share, length, setting, text, aim.evaluation, original, step))
        rows.append(done)
    progress.update(total, total, "rows", "the leaderboard")
    return rows


def _row(
    row: Contestant,
    share: float,
    length: int,
    setting: Setting,
    text: TextPart,
    evaluation: EvaluationSection | None,
    original: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """One method at one share; where it cannot be made, the reason."""
    data: dict[str, Any] = row.to_data() | {"share": share, "n_removed": length}
    try:
        made = row.make(setting, length, progress)
        found = standing(setting.handle, made.handle, text, evaluation, original, progress)
    except Cancelled:
        raise
    except ReplaceMeError as error:
        return data | {"error": str(error)}
    proofs = [asdict(proof) for proof in made.proofs]
    data |= {
        "removed": list(made.removed),
        "seconds": made.seconds,
        "proofs": proofs,
        "notes": list(made.notes),
        "figures": dict(made.figures),
    }
    return data | found


class Record:
    """The rows of a file, one JSON object a line; without a file they are only in memory."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        for row in map(_today, read(path) if path is not None else ()):
            if row.get("settings") != settings:
                raise InputError(
                    f"'{path}' holds rows of another model, calibration set or setting ({_differences(row.get('settings') or {}, settings)}), "
                    "and figures of both cannot stand in one table. Choose another file (--out)."
                )
            self._rows[row["method"], row["n_removed"]] = row

    def done(self, method: str, n_removed: int) -> dict[str, Any] | None:
        """The row, if it is there and is no failure."""
        row = self._rows.get((method, n_removed))
        return row if row is not None and "error" not in row else None

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes the row at once."""
        row = plain(row | {"settings": self._settings})
        self._rows[row["method"], row["n_removed"]] = row
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a+b") as file:
                    _end_whole(file)
                    file.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
            except OSError as error:
                raise ExportError(f"'{self._path}' cannot be written ({error.strerror}); choose a file you may write to.") from error
        return row


def _today(row: dict[str, Any]) -> dict[str, Any]:
    """A row of format 3 as one of today where it means the same: that format took a part of a point (truthfulqa_mc2) for a right answer."""
    settings = row.get("settings") or {}
    if settings.get("format") != 3 or not adds_up(row):
        return row
    return row | {"settings": settings | {"format": FORMAT}}


def _end_whole(file: Any) -> None:
    """Ends the last line, or cuts it off where a killed process left it unfinished."""
    file.seek(0)
    *_, last = file.read().split(b"\n")
    if not last:
        return
    try:
        json.loads(last)
        file.write(b"\n")
    except ValueError:
        file.truncate(file.tell() - len(last))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; a last line that was cut off is left out. Raises `InputError` for what is no leaderboard."""
    if not path.exists():
        return
    try:
        lines = path.read_bytes().split(
            b"\n"
        )  # of bytes, since a line may be cut off within a letter, and a text may hold other line breaks
    except OSError as error:
        raise InputError(f"'{path}' cannot be read as rows of a leaderboard ({error.strerror}); choose another file (--out).") from error
    rows = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row["method"], row["n_removed"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            unfinished = number == len(lines) and isinstance(error, ValueError)  # JSON that is whole, and no row, is somebody else's
            if unfinished and (rows or line.startswith(_BEGIN[: len(line)])):
                return
            raise InputError(f"Line {number} of '{path}' is no row of a leaderboard; choose another file (--out).") from error
        rows += 1
        yield row


def _lengths(handle: ModelHandle, aim: Aim) -> list[tuple[float, int]]:
    """Each share with its blocks; shares that mean the same number are taken once."""
    if not aim.shares or not all(0 < share < 1 for share in aim.shares) or not aim.methods:
        raise InputError(f"A leaderboard needs methods, and shares between 0 and 1; these are {aim.shares}.")
    if handle.n_blocks < 2:
        raise InputError("A model of one block has nothing to remove.")
    lengths: dict[int, float] = {}
    for share in aim.shares:
        lengths.setdefault(spans.length_of_share(handle.n_blocks, share), share)
    return [(share, length) for length, share in lengths.items()]


def _setting(handle: ModelHandle, calibration: CalibrationSet, lengths: list[int], seed: int, progress: Progress) -> Setting:
    """One pass, of which any span can be fitted; where the disk cannot take that, a second one of the spans of least distance alone."""
    measured = measure(handle, calibration, progress=progress)
    if measured.lacking:
        measured = measure(handle, calibration, spans=[spans.best(sinks.kept(measured), length) for length in lengths], progress=progress)
    return Setting(handle, calibration, measured, seed)


def _settings(handle: ModelHandle, calibration: CalibrationSet, text: TextPart, aim: Aim) -> dict[str, Any]:
    """What all rows of one table share."""
    digest = hashlib.sha256(b"".join(sequence.numpy().tobytes() for sequence in text.sequences)).hexdigest()[:16]
    section = aim.evaluation
    return {
        "format": FORMAT,
        "model": handle.name,
        "model_fingerprint": handle.fingerprint,
        "dtype": handle.dtype,
        "calibration": calibration.name,
        "calibration_fingerprint": calibration.fingerprint,
        "calibration_tokens": calibration.n_tokens,
        "part": text.part,
        "text": text.name,
        "test_tokens": text.n_counted,
        "test_fingerprint": digest,
        "tasks": section.tasks if section else None,
        "limit": section.limit if section else None,
        "num_fewshot": section.num_fewshot if section else None,
        "tasks_seed": section.seed if section else None,
        "tasks_identity": identity(section) if section else None,
        "seed": aim.seed,
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {old.get(key)} there, {value} here" for key, value in new.items() if old.get(key) != value)
