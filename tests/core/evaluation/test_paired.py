"""Paired tests by a second route: Holm's by hand, the bootstrap against an exact case, perplexities formed again from the items."""

import math

import numpy as np
import pytest
from scipy import stats

from replaceme_core.evaluation.paired import common, holm, paired, paired_all, paired_overall
from replaceme_core.evaluation.samples import row_of, sample_of
from replaceme_core.evaluation.scores import Sample, Score, Scores
from replaceme_core.evaluation.share_kept import answers, share_kept


def choices(task: str, correct: list[bool], **more) -> dict[str, list[Sample]]:
    return {task: [Sample(i, "", ["a", "b"], 0, 0 if c else 1, c, {"acc": float(c)}, **more) for i, c in enumerate(correct)]}


def scores(samples: dict[str, list[Sample]], **figures: dict[str, float]) -> Scores:
    results = {task: {name: Score(value, None, 1) for name, value in named.items()} for task, named in figures.items()}
    return Scores("model", results, None, {}, samples)


def test_holm_is_the_published_procedure():
    """The example of Wikipedia's article: 0.01, 0.04, 0.03, 0.005 give 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_correction_counts_the_tasks():
    before, after = [True] * 12 + [False] * 8, [False] * 8 + [True] * 4 + [False] * 8
    many = {f"t{i}": rows for i in range(5) for rows in choices("x", before).values()}
    other = {f"t{i}": rows for i in range(5) for rows in choices("x", after).values()}
    found = paired(scores(many), scores(other))
    assert found["t0"].p_value == pytest.approx(2 / 2**8)
    assert found["t0"].adjusted == pytest.approx(5 * 2 / 2**8)
    assert (found["t0"].worse, found["t0"].better, found["t0"].difference) == (8, 0, pytest.approx(-0.4))
    overall = paired_overall(found)
    assert (overall.worse, overall.better, overall.n, overall.difference) == (40, 0, 100, pytest.approx(-0.4))
    assert paired_overall(found | {"probe_copy": found["t0"]}) == overall, "what is generated stands by itself"
    assert paired_overall({"probe_copy": found["t0"]}).n == 20, "unless there is nothing else"


def rolling(logliks: list[float], words: list[int]) -> list[Sample]:
    values = [{"word_perplexity": [loglik, n]} for loglik, n in zip(logliks, words, strict=True)]
    return [Sample(i, "", [], -1, -1, None, value) for i, value in enumerate(values)]


def test_a_perplexity_is_tested_by_drawing_items_for_both_models_together():
    rng = np.random.default_rng(1)
    words = rng.integers(5, 40, 60)
    before = -words * rng.normal(2.0, 0.3, 60)
    after = before - words * 0.05
    figures = [math.exp(-loglik.sum() / words.sum()) for loglik in (before, after)]
    first = scores({"t": rolling(before.tolist(), words.tolist())}, t={"word_perplexity": figures[0]})
    second = scores({"t": rolling(after.tolist(), words.tolist())}, t={"word_perplexity": figures[1]})
    test = paired_all(first, second)[("t", "word_perplexity")]
    assert test.test == "bootstrap"
    assert test.difference == pytest.approx(figures[1] - figures[0])
    assert test.low is not None
    assert 0 < test.low < test.difference < test.high
    assert test.p_value < 0.01
    reference = stats.bootstrap(
        (before, after, words.astype(float)),
        lambda a, b, n, axis=-1: np.exp(-b.sum(axis) / n.sum(axis)) - np.exp(-a.sum(axis) / n.sum(axis)),
        paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=3,
    ).confidence_interval  # fmt: skip
    assert (test.low, test.high) == (pytest.approx(reference.low, rel=0.05), pytest.approx(reference.high, rel=0.05))
    assert test.high - test.low == pytest.approx(reference.high - reference.low, rel=0.08), "one of 90 % would be a sixth narrower"
    assert paired_all(first, first)[("t", "word_perplexity")].p_value == 1.0


def test_bits_of_a_byte_are_told_apart_in_bits():
    """What the figure of the task says before and after, base 2."""
    found = []
    for shift in (0.0, 0.1):
        values = [{"bits_per_byte": [-(2.0 + 0.1 * (i % 3) + shift) * 30, 30]} for i in range(40)]
        rows = [Sample(i, "", [], -1, -1, None, value) for i, value in enumerate(values)]
        nats = -sum(v["bits_per_byte"][0] for v in values) / sum(v["bits_per_byte"][1] for v in values)
        found.append(scores({"t": rows}, t={"bits_per_byte": nats / math.log(2)}))
    test = paired_all(*found)[("t", "bits_per_byte")]
    assert test.difference == pytest.approx(0.1 / math.log(2))


def test_a_difference_of_chance_is_found_by_the_bootstrap_as_often_as_promised():
    """Two models that differ by noise alone: about 5 of 100 tests fall below 0.05."""
    rng, below = np.random.default_rng(2), 0
    for _ in range(100):
        samples = [
            [Sample(i, "", [], -1, -1, None, {"repetition": float(v)}) for i, v in enumerate(rng.normal(0.3, 0.1, 50))] for _ in range(2)
        ]
        both = [scores({"t": rows}, t={"repetition": float(np.mean([s.values["repetition"] for s in rows]))}) for rows in samples]
        below += paired_all(*both)[("t", "repetition")].p_value < 0.05
    assert 0 <= below <= 13


def test_a_metric_whose_figure_cannot_be_formed_again_is_not_tested():
    samples = {"t": [Sample(i, "", [], -1, -1, None, {"f1": float(i)}) for i in range(5)]}
    assert paired_all(scores(samples, t={"f1": 0.99}), scores(samples, t={"f1": 0.99})) == {}


def test_items_of_another_content_are_not_paired():
    before, after = choices("t", [True] * 4, doc_hash="a"), choices("t", [False] * 4, doc_hash="b")
    assert common(scores(before), scores(after), "t") == []
    assert paired(scores(before), scores(after)) == {}
    assert len(common(scores(before), scores(choices("t", [False] * 4)), "t")) == 4


def truthful(bias: float, n: int = 200) -> Scores:
    """A model on truthfulqa_mc2, whose items lm-eval gives the share of probability that lies on true answers."""
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    rng, rows = np.random.default_rng(5), []
    for number in range(n):
        results = [(float(loglik), False) for loglik in rng.normal(size=4) - 5 + np.array([bias, bias, 0, 0])]
        doc = {"mc2_targets": {"labels": [1, 1, 0, 0]}}
        row = {"doc_id": number, "doc": doc, "target": 0, "arguments": [("Q", f"c{k}") for k in range(4)], "filtered_resps": results}
        rows.append(row | {"metrics": ["acc"], **process_results_mc2(doc, results)})
    samples = [sample_of(row) for row in rows]
    return scores({"mc2": samples}, mc2={"acc": float(np.mean([sample.values["acc"] for sample in samples]))})


def test_parts_of_a_point_are_compared_as_figures_and_never_as_right_answers():
    """Every item of truthfulqa_mc2 gives a part of a point: none is right or wrong, and a great loss is not 'the same answers'."""
    original, pruned = truthful(1.5), truthful(-0.5)
    assert {sample.correct for sample in original.samples["mc2"]} == {None}
    assert [sample_of(row_of(sample)) for sample in original.samples["mc2"]] == original.samples["mc2"]
    assert paired(original, pruned) == {}
    (test,) = paired_all(original, pruned).values()
    loss = pruned.results["mc2"]["acc"].value - original.results["mc2"]["acc"].value
    assert (test.test, test.metric, test.difference) == ("bootstrap", "acc", pytest.approx(loss))
    assert test.low is not None
    assert test.low < loss < test.high < 0
    assert test.p_value < 0.01
    assert paired_all(original, original)[("mc2", "acc")].p_value == 1.0


def test_the_share_kept_of_parts_of_a_point_is_that_of_the_averages():
    original, pruned = truthful(1.5), truthful(-0.5)
    found = share_kept(answers(original), answers(pruned))
    averages = [each.results["mc2"]["acc"].value for each in (original, pruned)]
    assert (found.original_average, found.average) == (pytest.approx(averages[0]), pytest.approx(averages[1]))
    assert found.share == pytest.approx(averages[1] / averages[0])
    values = [np.array([sample.values["acc"] for sample in each.samples["mc2"]]) for each in (original, pruned)]
    reference = stats.bootstrap(
        values, lambda a, b, axis=-1: b.mean(axis) / a.mean(axis), paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=3
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == (pytest.approx(reference.low, rel=0.02), pytest.approx(reference.high, rel=0.02))


def test_the_interval_of_a_share_is_that_of_questions_drawn_with_replacement_in_every_task():
    """Second route: the questions themselves are drawn, a task at a time."""
    rng = np.random.default_rng(4)
    before = {task: {str(i): float(rng.random() < share) for i in range(n)} for task, share, n in (("a", 0.7, 80), ("b", 0.4, 50))}
    after = {task: {i: float(v and rng.random() < 0.8) for i, v in points.items()} for task, points in before.items()}
    found = share_kept(before, after)
    assert found is not None
    columns = [np.array(list(points.values())) for each in before for points in (before[each], after[each])]

    def share(a, pruned_a, b, pruned_b):
        return (pruned_a.mean() + pruned_b.mean()) / (a.mean() + b.mean())

    drawn = []
    for _ in range(4000):
        rows = [rng.integers(0, len(column), len(column)) for column in columns[::2]]
        drawn.append(share(columns[0][rows[0]], columns[1][rows[0]], columns[2][rows[1]], columns[3][rows[1]]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.share == pytest.approx(share(*columns))
    assert found.high - found.low == pytest.approx(high - low, rel=0.08), "one of 90 % would be a sixth narrower"
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
