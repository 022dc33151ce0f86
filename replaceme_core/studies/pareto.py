"""Which of several measured points no other one beats: the Pareto front."""

from collections.abc import Sequence
from math import isfinite


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For points of two figures that are both better when less: whether none is as low in both and lower in one. Equals beat nobody.

    A figure that is not finite is on no front.
    """
    return [all(map(isfinite, point)) and not any(_beats(other, point) for other in points) for point in points]


def _beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
    return other != point and other[0] <= point[0] and other[1] <= point[1]
