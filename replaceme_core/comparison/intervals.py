"""95 % intervals of a mean per token, from its sums over documents: the studentised bootstrap (bootstrap-t; Efron & Tibshirani 1993, 12.5).

Each resample's deviation is measured in its own standard error, so that a few tokens with large values, which every KL has, make the
interval wide on the right side. The percentile and the BCa bootstrap (scipy.stats.bootstrap) hold the mean in 57 to 67 % of
draws from three documents and 67 to 91 % from ten, where 95 % is said; this one in 83 to 96 % from ten (benchmarks/LOG.md). Fewer than ten allow no interval.
"""

import numpy as np
from jaxtyping import Float64
from torch import Tensor

LEAST = 10
"""independent pieces of text from which an interval is made"""
_RESAMPLES = 2000


def interval(
    sums: Float64[Tensor, " documents"], counts: Float64[Tensor, " documents"], level: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """Of sum / count over all documents, at this level; (None, None) where they are too few. Repeats itself: the resamples are always the same ones."""
    total, n = sums.double().cpu().numpy(), counts.double().cpu().numpy()
    if len(total) < LEAST:
        return None, None
    mean, error = _mean_and_error(total, n)
    drawn = np.random.default_rng(0).integers(0, len(total), (_RESAMPLES, len(total)))
    means, errors = _mean_and_error(total[drawn], n[drawn])
    if not error > 0:
        return float(mean), float(mean)
    floor = error / len(total)  # where a resample holds equals only, its own error says nothing
    ends = np.quantile((means - mean) / np.maximum(errors, floor), [(1 + level) / 2, (1 - level) / 2])
    low, high = mean - ends * error
    return float(low), float(high)


def _mean_and_error(total: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ratio of the sums on the last axis, and its standard error by linearisation (Cochran 1977, 2.11)."""
    mean = total.sum(-1) / n.sum(-1)
    rest = (total - mean[..., None] * n) / n.mean(-1, keepdims=True)
    return mean, rest.std(-1, ddof=1) / np.sqrt(total.shape[-1])


def bracketed(value: float, low: float | None, high: float | None, form: str = ".4f") -> str:
    """For people: '0.0422 [0.0317, 0.0528]', or the value alone where there is no interval."""
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"
