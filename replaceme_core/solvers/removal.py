"""Removed, no transform: the blocks are cut and nothing takes their place (T = I). The baseline of every fit."""

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import Progress
from replaceme_core.solvers.evidence import report


def solve(measurement: Measurement, span: Span, section: MethodSection, _progress: Progress) -> LinearTransform:
    """No fit; the report holds the errors of removal under uniform weights."""
    moments = measurement.moments[span, "uniform"]
    evidence = report(measurement, span, moments, None, condition=1.0, rank=moments.train.width, ridge=0.0, seconds=0.0)
    return LinearTransform(span, section.label, None, evidence)
