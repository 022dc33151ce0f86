"""The long step of Compare: every column on held-out text."""

from typing import TYPE_CHECKING, Any

from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import ORIGINAL, submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.calibration.calibration import CalibrationSet


def quality_key(reference: "ModelHandle", handle: "ModelHandle", texts: str, n_tokens: int) -> str:
    """Under which the divergence of a system from the reference is kept."""
    return f"{reference.fingerprint} {handle.fingerprint} {texts} {n_tokens}"


def measure_quality(state: Studio, columns: dict[str, "ModelHandle"], texts: str, n_tokens: int, reference: str = ORIGINAL) -> Job:
    """Perplexity, KL and speed of every column on held-out text: the calibration set's own part, or the demo's documents."""
    prepared = state.calibration
    base = columns[reference]
    handles = [base, *(handle for name, handle in columns.items() if name != reference)]

    def work(job: Job) -> None:
        from replaceme_core.comparison import compare

        job.update(0, 0, "", "reading held-out text")
        if texts == "calibration" and prepared is not None:
            sequences = first_sequences(n_tokens, prepared)
        else:
            sequences = compare.heldout_sequences(base, n_tokens)
        rows = compare.divergence(base, handles[1:], sequences, job)
        for handle, row in zip(handles, rows, strict=True):
            state.divergences[quality_key(base, handle, texts, n_tokens)] = row
        for handle, speed in zip(handles, compare.speeds(handles, progress=job), strict=True):
            state.speeds[handle.fingerprint] = speed

    return submit(state, "Measuring on held-out text", work, f"{texts} {n_tokens} {reference} {sorted(columns)}")


def first_sequences(n_tokens: int, prepared: "CalibrationSet") -> list[Any]:
    """The first held-out sequences of a calibration set, as many as `n_tokens` need."""
    chosen, count = [], 0
    for sequence in (row for row, out in zip(prepared.sequences, prepared.heldout, strict=True) if out):
        if count >= n_tokens:
            break
        chosen.append(sequence)
        count += len(sequence)
    return chosen
