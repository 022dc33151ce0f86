"""Deterministic descent by scipy: L-BFGS, nonlinear conjugate gradients, Newton-CG and trust region, all from T = I.

For comparison with the closed forms; one evaluation of a cosine costs two products over all stored tokens, and the second-order
methods pay two more for every product with the Hessian. All stop at the same relative gradient norm.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from replaceme_core.artifacts import LinearTransform, Measurement, Span
from replaceme_core.plans.plan import MethodSection
from replaceme_core.progress import Progress
from replaceme_core.solvers.descent import TOLERANCE, Descent, concluded, limit_of
from replaceme_core.solvers.objectives import Objective, Shrunk, objective_of

_ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "lbfgs": ("L-BFGS-B", {"ftol": 0.0, "gtol": 0.0, "maxfun": 10**9}),
    "nonlinear_cg": ("CG", {"gtol": 0.0}),
    "newton_cg": ("Newton-CG", {"xtol": 0.0}),
    "trust_region": ("trust-ncg", {"gtol": 0.0}),
}
"""scipy's names; its own tolerances are off, because `_Watch` stops all four by one rule"""


def solve(measurement: Measurement, span: Span, section: MethodSection, progress: Progress) -> LinearTransform:
    """scipy.optimize.minimize with the analytic gradient, and the analytic Hessian product where the method takes one."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    began = time.perf_counter()
    objective = Shrunk(objective_of(measurement, span, section.objective), section.l2)
    width = measurement.moments[span, "end_norm"].train.width
    route, options = _ROUTES[section.name]
    watch = _Watch(objective, width, limit_of(section), progress, route)
    second = {"hessp": watch.curvature} if section.name in ("newton_cg", "trust_region") else {}
    start = np.eye(width).ravel()
    if watch.is_flat(start):  # the blocks do nothing: T = I is the answer already
        return concluded(
            measurement, span, section, objective, Descent(torch.eye(width, dtype=torch.float64), 0, time.perf_counter() - began)
        )
    with threadpool_limits(1, user_api="blas"):  # scipy's own threads would fight torch's for the cores
        found = minimize(
            watch.evaluate, start, jac=True, method=route, callback=watch.stepped, options=options | {"maxiter": watch.most}, **second
        )
    fitted = torch.from_numpy(np.asarray(found.x, dtype=np.float64)).view(width, width)
    seconds = time.perf_counter() - began
    ended = "" if watch.steps >= watch.most else f" ({found.message})"
    return concluded(measurement, span, section, objective, Descent(fitted, watch.steps, seconds, ended=ended))


class _Watch:
    """The loss as scipy asks for it: flat arrays, progress reported at every evaluation, stopped at the common tolerance."""

    def __init__(self, objective: Objective, width: int, most: int, progress: Progress, name: str) -> None:
        self._objective, self._width, self._progress, self._name = objective, width, progress, name
        self.most, self.steps = most, 0
        self._last: tuple[np.ndarray, float, np.ndarray] | None = None
        self._hessian: tuple[np.ndarray, Callable[[Tensor], Tensor]] | None = None
        self._reference = float(np.linalg.norm(self.evaluate(np.eye(width).ravel())[1]))

    def is_flat(self, values: np.ndarray) -> bool:
        """True if the gradient is zero at the start."""
        return not self.evaluate(values)[1].any()

    def evaluate(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient; those of the last point are kept."""
        if self._last is None or not np.array_equal(self._last[0], values):
            value, gradient = self._objective.value_and_gradient(self._matrix(values))
            self._last = (values.copy(), value, gradient.numpy().ravel())
            self._report()
        return self._last[1], self._last[2]

    def curvature(self, values: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The Hessian times a direction; what depends on the point alone is kept."""
        self._report()
        if self._hessian is None or not np.array_equal(self._hessian[0], values):
            self._hessian = (values.copy(), self._objective.hessian(self._matrix(values)))
        product: np.ndarray = self._hessian[1](self._matrix(direction)).numpy().ravel()
        return product

    def stepped(self, intermediate_result: Any) -> None:
        """After each iteration; the parameter's name is what makes scipy pass the point."""
        self.steps += 1
        if np.linalg.norm(self.evaluate(intermediate_result.x)[1]) <= TOLERANCE * self._reference:
            raise StopIteration

    def _report(self) -> None:
        self._progress.update(self.steps, self.most, "steps", self._name)

    def _matrix(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).view(self._width, self._width)
