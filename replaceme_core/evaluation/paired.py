"""Is the difference between two models more than chance? Tests on the items that both answered, item by item.

Right and wrong answers: the exact McNemar test, which is a binomial test on the items that flipped. Everything else (perplexity,
repetition, parts of a point): a bootstrap over items, which are drawn for both models together. Over several tasks: Holm's correction.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from replaceme_core.evaluation.scores import PROBE, Sample, Scores, primary_of

RESAMPLES = 2000
_BATCH = 4_000_000
"""numbers that the bootstrap draws at once"""


@dataclass(frozen=True)
class Paired:
    """The test of one task. McNemar: `better` turned right, `worse` turned wrong. `difference` is the other model's value less the original's."""

    better: int
    worse: int
    p_value: float
    metric: str = "acc"
    test: Literal["McNemar", "bootstrap"] = "McNemar"
    n: int = 0
    difference: float = 0.0
    low: float | None = None
    """95 % interval of the difference, by bootstrap"""
    high: float | None = None
    adjusted: float | None = None
    """the p-value after Holm's correction over all tasks"""


def paired(original: Scores, other: Scores) -> dict[str, Paired]:
    """The McNemar test per task that has right and wrong answers, on the items both models answered, with Holm's correction."""
    tests = {}
    for task in original.samples:
        both = common(original, other, task)
        if both and all(a.correct is not None and b.correct is not None for a, b in both):
            tests[task] = _mcnemar(both)
    return _corrected(tests)


def paired_all(original: Scores, other: Scores) -> dict[tuple[str, str], Paired]:
    """Every test that can be made, by task and metric: McNemar, and the bootstrap for perplexities, rates and parts of a point; Holm over all."""
    tests: dict[tuple[str, str], Paired] = {}
    for task in original.samples:
        both = common(original, other, task)
        if not both:
            continue
        main = primary_of(both[0][0].values)
        flips = all(a.correct is not None and b.correct is not None for a, b in both)
        if flips:
            tests[(task, main or "acc")] = _mcnemar(both)
        for metric, kind in _resampled(original, task, both, None if flips else main):
            tests[(task, metric)] = _bootstrap(both, metric, kind)
    return _corrected(tests)


def paired_overall(tests: dict[str, Paired]) -> Paired:
    """One exact McNemar test on the items of all tasks together, the generative probe aside unless there is nothing else."""
    counted = [test for task, test in tests.items() if not task.startswith(PROBE)] or list(tests.values())
    better, worse = sum(t.better for t in counted), sum(t.worse for t in counted)
    n = sum(t.n for t in counted)
    return Paired(better, worse, mcnemar(worse, better), n=n, difference=(better - worse) / n if n else 0.0)


def common(original: Scores, other: Scores, task: str) -> list[tuple[Sample, Sample]]:
    """Items that both answered: the same number in the task, read by the same filter and, where both know it, the same content."""
    after = {sample.doc_id: sample for sample in other.samples.get(task, [])}
    pairs = [(sample, after[sample.doc_id]) for sample in original.samples.get(task, []) if sample.doc_id in after]
    return [(a, b) for a, b in pairs if a.filter == b.filter and (not (a.doc_hash and b.doc_hash) or a.doc_hash == b.doc_hash)]


def holm(p_values: Iterable[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): the smallest times k, the next times k-1, ..., never falling, at most 1."""
    values = np.asarray(list(p_values), dtype=float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(p) for p in adjusted]


def _corrected(tests: dict[Any, Paired]) -> dict[Any, Paired]:
    adjusted = holm(test.p_value for test in tests.values())
    return {name: replace(test, adjusted=p) for (name, test), p in zip(tests.items(), adjusted, strict=True)}


def _mcnemar(both: list[tuple[Sample, Sample]]) -> Paired:
    worse = sum(bool(a.correct) and not b.correct for a, b in both)
    better = sum(bool(b.correct) and not a.correct for a, b in both)
    metric = primary_of(both[0][0].values) or "acc"
    return Paired(better, worse, mcnemar(worse, better), metric, "McNemar", len(both), (better - worse) / len(both))


def mcnemar(worse: int, better: int) -> float:
    """The two-sided p-value of the exact test: items that turned wrong beside items that turned right."""
    from scipy.stats import binomtest

    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0


Kind = Literal["perplexity", "weighted_perplexity", "bits", "mean"]


def _resampled(scores: Scores, task: str, both: list[tuple[Sample, Sample]], main: str | None) -> list[tuple[str, Kind]]:
    """Metrics that are no share of right answers and whose figure we can form again from the items; one perplexity is enough.

    `main`: an accuracy of the task that is one of them, because its items give parts of a point.
    """
    found: list[tuple[str, Kind]] = []
    for metric, value in both[0][0].values.items():
        kind = "mean" if metric == main else _kind(metric, value)
        reported = scores.results.get(task, {}).get(metric)
        if kind is None or reported is None or any(metric not in a.values or metric not in b.values for a, b in both):
            continue
        whole = float(_figure(_columns(scores.samples[task], metric), kind))
        if np.isclose(whole, reported.value, rtol=1e-6):
            found.append((metric, kind))
    likelihoods = [each for each in found if each[1] != "mean"]
    return likelihoods[:1] + [each for each in found if each[1] == "mean"]


def _kind(metric: str, value: Any) -> Kind | None:
    """How lm-eval forms the figure of these metrics from the items."""
    if isinstance(value, list):
        return {"word_perplexity": "weighted_perplexity", "byte_perplexity": "weighted_perplexity", "bits_per_byte": "bits"}.get(metric)  # type: ignore[return-value]
    if metric == "perplexity":
        return "perplexity"
    return "mean" if metric == "repetition" or metric.partition(",")[0] in ("f1", "bleu_acc", "mc2") else None


def _columns(samples: Iterable[Sample], metric: str) -> np.ndarray:
    """[2, items]: what is summed above and below the line."""
    rows = [sample.values[metric] for sample in samples]
    return np.asarray([row if isinstance(row, list) else [row, 1.0] for row in rows], dtype=float).T


def _figure(columns: np.ndarray, kind: Kind) -> Any:
    """The metric of the items on the last axis."""
    ratio = columns[0].sum(-1) / columns[1].sum(-1)
    if kind == "mean":
        return ratio
    return -ratio / np.log(2) if kind == "bits" else np.exp(-ratio)


def _bootstrap(both: list[tuple[Sample, Sample]], metric: str, kind: Kind) -> Paired:
    """Percentile interval of the difference, and twice the smaller share of resamples on either side of 0 (at least one counts)."""
    before, after = _columns((a for a, _ in both), metric), _columns((b for _, b in both), metric)
    difference = float(_figure(after, kind) - _figure(before, kind))
    rng = np.random.default_rng(0)
    drawn: list[np.ndarray] = []
    size = max(1, min(RESAMPLES, _BATCH // len(both)))
    while len(drawn) * size < RESAMPLES:
        rows = rng.integers(0, len(both), (size, len(both)))
        drawn.append(_figure(after[:, rows], kind) - _figure(before[:, rows], kind))
    spread = np.concatenate(drawn)[:RESAMPLES]
    below, above = int((spread <= 0).sum()), int((spread >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (RESAMPLES + 1))
    low, high = (float(q) for q in np.quantile(spread, [0.025, 0.975]))
    return Paired(0, 0, p_value, metric, "bootstrap", len(both), difference, low, high)
