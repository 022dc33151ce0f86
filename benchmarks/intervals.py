"""How often a 95 % interval holds the true mean, by kind of interval and number of documents: why `comparison.intervals` is what it is.

    python -m benchmarks.intervals                # some minutes; the table stands in benchmarks/LOG.md

A document is a sum of KL over 30 to 127 tokens; the rates are normal, gamma or log-normal, the last of them as skewed as measured KLs
(sigma 0.8) or more (1.3). Each cell: coverage, and the median width as a share of the mean.
"""

import warnings
from collections.abc import Callable

import click
import numpy as np
import torch

from replaceme_core.comparison.intervals import LEAST, interval

RATES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: 1 + 0.3 * rng.standard_normal(n),
    "gamma 1.5": lambda rng, n: rng.gamma(1.5, 1, n),
    "log-normal 0.8": lambda rng, n: rng.lognormal(0, 0.8, n),
    "log-normal 1.3": lambda rng, n: rng.lognormal(0, 1.3, n),
}
Bounds = tuple[float | None, float | None]


def drawn(rng: np.random.Generator, rates: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and tokens of `n` documents."""
    counts = rng.integers(30, 128, n).astype(float)
    return RATES[rates](rng, n) * counts, counts


def resampled(method: str) -> Callable[[np.ndarray, np.ndarray], Bounds]:
    """scipy's bootstrap of this method."""

    def bounds(sums: np.ndarray, counts: np.ndarray) -> Bounds:
        from scipy.stats import bootstrap

        def ratio(rows: np.ndarray, axis: int = -1) -> np.ndarray:
            return sums[rows].sum(axis) / counts[rows].sum(axis)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BCa warns where all resamples are alike
            found = bootstrap((np.arange(len(sums)),), ratio, vectorized=True, n_resamples=1000, method=method, rng=0).confidence_interval
        return float(found.low), float(found.high)

    return bounds


def student(sums: np.ndarray, counts: np.ndarray) -> Bounds:
    """The mean and its linearised standard error, times the quantile of Student's t."""
    from scipy.stats import t

    mean = sums.sum() / counts.sum()
    error = ((sums - mean * counts) / counts.mean()).std(ddof=1) / len(sums) ** 0.5
    half = float(t.ppf(0.975, len(sums) - 1)) * error
    return float(mean - half), float(mean + half)


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], Bounds]] = {
    "percentile": resampled("percentile"),
    "BCa": resampled("BCa"),
    "Student's t": student,
    "studentised": lambda sums, counts: interval(torch.tensor(sums), torch.tensor(counts)),
}


def cell(rates: str, n: int, repeats: int, truth: float) -> dict[str, str]:
    """Every kind of interval on the same documents."""
    rng = np.random.default_rng(n)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        documents = drawn(rng, rates, n)
        for kind, bounds in KINDS.items():
            low, high = bounds(*documents)
            if low is not None and high is not None:
                found[kind].append((low, high))
    return {kind: _said(rows, truth) for kind, rows in found.items()}


def _said(rows: list[tuple[float, float]], truth: float) -> str:
    if not rows:
        return f"none below {LEAST}"
    covered = np.mean([low <= truth <= high for low, high in rows])
    return f"{covered:.1%} ({np.median([high - low for low, high in rows]) / truth:.2f})"


@click.command()
@click.option("--repeats", default=500, show_default=True, type=click.IntRange(1))
def main(repeats: int) -> None:
    """Prints one table of Markdown."""
    click.echo("| rates | documents | " + " | ".join(KINDS) + " |\n|---|---|" + "---|" * len(KINDS))
    for rates in RATES:
        sums, counts = drawn(np.random.default_rng(7), rates, 3_000_000)
        for n in (3, 5, 10, 30, 60):
            row = cell(rates, n, repeats, float(sums.sum() / counts.sum()))
            click.echo(f"| {rates} | {n} | " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
