"""One point of a sweep: fitted, merged, checked and measured with what all points share."""

import time
from dataclasses import dataclass, replace

from replaceme_core import pipeline
from replaceme_core.artifacts import Measurement, ModelHandle, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare, speed_gain
from replaceme_core.errors import Cancelled, ReplaceMeError
from replaceme_core.evaluation import evaluate, share_kept
from replaceme_core.evaluation.share_kept import Answers
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.progress import Portion, Progress
from replaceme_core.studies.sweep.points import Planned, PointResult
from replaceme_core.surgery import surgery


@dataclass(frozen=True, eq=False)
class Bench:
    """What every point is measured with."""

    sweep: Sweep
    handle: ModelHandle
    calibration: CalibrationSet
    text: TextPart
    """that KL and perplexity are measured on: test text"""
    answers: Answers | None
    """what the original got right, where benchmarks are asked for"""


def point_result(bench: Bench, point: Planned, measurement: Measurement | None, step: Portion) -> PointResult:
    """The point made and measured, or its sentence."""
    began = time.perf_counter()
    try:
        made = _made(bench, point, measurement, step)
    except Cancelled:
        raise
    except ReplaceMeError as error:
        made = PointResult(point, str(error))
    return replace(made, seconds=time.perf_counter() - began)


def _made(bench: Bench, point: Planned, measurement: Measurement | None, step: Portion) -> PointResult:
    sweep, handle = bench.sweep, bench.handle
    cut = point.cut.check(handle.n_blocks)
    began = time.perf_counter()
    fitted = pipeline.fit(handle, bench.calibration, measurement, cut, point.section, progress=step.part(0, 0.4), keep=False)
    seconds = time.perf_counter() - began
    variant = surgery.prune(handle, fitted, str(point))
    original, quality = compare.divergence(handle, [variant.handle], bench.text, step.part(0.4, 0.6))
    kept = _kept(bench, variant, step.part(0.6, 0.8))
    timing = speed_gain.Timing(sweep.measure.prompt_tokens, sweep.measure.new_tokens, sweep.measure.repeats)
    speed = speed_gain.measure_gain(handle, variant.handle, timing, step.part(0.8, 1)) if sweep.measure.speed else None
    return PointResult(
        planned=point,
        heldout_error=fitted.report.heldout_error,
        original=original,
        quality=quality,
        kept=kept,
        speed=speed,
        n_parameters=variant.handle.n_parameters,
        disk_bytes=speed_gain.disk_bytes(variant.handle),
        weights=variant.handle.fingerprint,
        proofs=variant.proofs,
        notes=fitted.report.notes,
        seconds_to_fit=seconds,
    )


def _kept(bench: Bench, variant: Variant, progress: Progress) -> share_kept.ShareKept | None:
    if bench.answers is None or bench.sweep.evaluation is None:
        return None
    scores = evaluate.evaluate(variant.handle, bench.sweep.evaluation, progress)
    return share_kept.share_kept(bench.answers, share_kept.answers(scores))
