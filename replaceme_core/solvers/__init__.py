"""Fits of a transform, one solver per file, behind one interface and a table of names. A fit touches no model, only a `Measurement`.

Read methods (the table, `fit`), then least_squares with spectrum (the closed form and its ridge path), then cosine; the structures of T
are diagonal, triangular, orthogonal, low_rank. Gradient methods: objectives -> descent -> adam, minimise, proximal. removal: nothing fitted.
"""

from replaceme_core.solvers.least_squares import RidgePoint
from replaceme_core.solvers.methods import (
    METHODS,
    STRUCTURES,
    MethodInfo,
    error_map,
    fit,
    require_moments,
    require_takes,
    ridge_path,
    section_of,
)

__all__ = [
    "METHODS",
    "STRUCTURES",
    "MethodInfo",
    "RidgePoint",
    "error_map",
    "fit",
    "require_moments",
    "require_takes",
    "ridge_path",
    "section_of",
]
