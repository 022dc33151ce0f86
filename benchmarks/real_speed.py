"""How long our stages take on a real model, as ratios that are measured side by side: `python -m benchmarks.real_speed --json`.

One JSON object: for each name its `ratio` (the median over `repeats`, with the least and the most), of what over what, on how
many tokens `n` (items of each task, for the benchmarks), and the seconds of both. Both sides of a ratio run in turns, in one process, on the same tokens. Each ratio is one function of a
`Bench` and a row of `RATIOS`; what costs more than the machine has time for is left out with --only.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor

from replaceme_core import refit, solvers
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.comparison.next_token import logits_of
from replaceme_core.evaluation import evaluate
from replaceme_core.evaluation.scores import Scores
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.needs import MOST_POSITIONS
from replaceme_core.models import loading
from replaceme_core.models.running.divergence import divergences, log_likelihoods
from replaceme_core.pipeline import prepare_for
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, MethodName, MethodSection, ModelSection
from replaceme_core.surgery import surgery

METHODS = ("drop", "least_squares", "weighted_least_squares", "cosine")
"""what is compared with the original: the cut, and three variants"""
BENCHMARKED = 2
"""of them that are asked the benchmarks"""


@dataclass
class Bench:
    """What the ratios are measured on; each part is made when it is first asked for."""

    model: str
    text: str
    n_tokens: int
    repeats: int
    span: Span
    tasks: str = ""
    items: int = 100

    @cached_property
    def handle(self) -> ModelHandle:
        return loading.load(ModelSection(path=self.model))

    @cached_property
    def calibration(self) -> CalibrationSet:
        return prepare_for(self.handle, CalibrationSection(source=self.text, max_tokens=self.n_tokens))

    @cached_property
    def measurement(self) -> Measurement:
        return measure(self.handle, self.calibration)

    @cached_property
    def pruned(self) -> list[ModelHandle]:
        fits = [solvers.fit(self.measurement, self.span, MethodSection(name=name)) for name in METHODS]
        return [surgery.prune(self.handle, fitted, fitted.method).handle for fitted in fits]

    def bare(self) -> None:
        """A forward pass of the base model over the calibration tokens, in the batches of the calibration pass."""
        for inputs, mask in self._batches:
            with self.handle.borrow() as model, torch.no_grad():
                model.base_model(input_ids=inputs, attention_mask=mask, use_cache=False)

    @cached_property
    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        return [inputs_of(self.calibration, batch) for batch in batches(self.calibration.lengths, MOST_POSITIONS)]

    def ratio(self, ours: Callable[[], Any], theirs: Callable[[], Any], of: str, n_tokens: int) -> dict[str, Any]:
        """Seconds of one over those of the other, each time one after the other."""
        pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(self.repeats)]
        ratios = [mine / other for mine, other in pairs]
        return {
            "ratio": round(median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "of": of,
            "n": n_tokens,
            "repeats": self.repeats,
            "seconds": [round(median(side), 2) for side in zip(*pairs, strict=True)],
        }


def compared(bench: Bench) -> dict[str, Any]:
    """Original, cut and three variants on text: shared blocks once and float32 terms, over every model whole and float64 tables."""
    text = TextPart.of("given", bench.calibration.name, bench.calibration.sequences, bench.n_tokens)
    pruned = bench.pruned
    new, old = list[compare.Divergence](), list[tuple[float, float, float]]()
    found = bench.ratio(
        lambda: new.extend(compare.divergence(bench.handle, pruned, text)),
        lambda: old.extend(every_model_whole(bench.handle, pruned, text)),
        f"original and {', '.join(METHODS)} at {bench.span}: shared blocks once / every model whole",
        text.n_tokens,
    )
    return found | {"largest_difference_of_kl": max(abs(row.kl - kl) for row, (_, kl, _) in zip(new, old, strict=True))}


def passed(bench: Bench) -> dict[str, Any]:
    """The calibration pass with its distances and the whole activation store, over a bare forward."""
    of = "calibration pass with distances and activation store / bare base_model forward"
    return bench.ratio(lambda: measure(bench.handle, bench.calibration, again=True), bench.bare, of, bench.calibration.n_tokens)


def summed(bench: Bench) -> dict[str, Any]:
    """The moments of one span under one weighting, read from the store, over a bare forward."""
    found = bench.measurement
    of = f"moments of {bench.span} from the store, token weights 1/|H| / bare base_model forward"
    return bench.ratio(lambda: dict(found.moments.of_many([bench.span], "end_norm")), bench.bare, of, bench.calibration.n_tokens)


def mapped(bench: Bench) -> dict[str, Any]:
    """The held-out error of weighted least squares at every span, each at its best ridge, over a bare forward."""
    of = f"held-out error of all {len(bench.measurement.spans())} spans / bare base_model forward"
    return bench.ratio(lambda: solvers.error_map(bench.measurement, "weighted_least_squares"), bench.bare, of, bench.calibration.n_tokens)


def _refitted(name: MethodName) -> Callable[[Bench], dict[str, Any]]:
    def measured(bench: Bench) -> dict[str, Any]:
        section, store = MethodSection(name=name), bench.measurement.store
        return bench.ratio(
            lambda: refit.fit(bench.handle, bench.calibration, bench.span, section, store=store),
            bench.bare,
            f"{name} at {bench.span}, the intact stream read from the store / bare base_model forward",
            bench.calibration.n_tokens,
        )

    return measured


def benchmarked(bench: Bench) -> dict[str, Any]:
    """The original and two variants on a folder of tasks: shared text and blocks once, over three runs in lm-eval's own batches.

    Nothing that was scored before is used. `largest_difference`: of a choice's log-likelihood, in nats; `other_answers`: choices and
    greedy marks that differ.
    """
    systems = [bench.handle, *bench.pruned[:BENCHMARKED]]
    section = EvaluationSection(tasks=bench.tasks or "plain", limit=bench.items)
    exact = section.model_copy(update={"exact": True})
    new, old = list[Scores](), list[Scores]()
    found = bench.ratio(
        lambda: new.extend(evaluate.require_all(evaluate.evaluate_all(systems, section, reuse=False))),
        lambda: old.extend(evaluate.evaluate(system, exact, reuse=False) for system in systems),
        "",
        bench.items,
    )
    mine, theirs = ([each for scores in side for task in scores.samples.values() for each in task] for side in (new, old))
    pairs = list(zip(mine, theirs, strict=True))
    apart = [abs(a - b) for one, other in pairs for a, b in zip(one.logliks, other.logliks, strict=True)]
    return found | {
        "of": f"original and {' and '.join(METHODS[:BENCHMARKED])} at {bench.span} on {', '.join(new[0].results)} (n: items of each): shared once / lm-eval's batches",
        "largest_difference": max(apart, default=0.0),
        "other_answers": sum(one.answer != other.answer or one.correct != other.correct for one, other in pairs),
        "requests": len(apart),
    }


def every_model_whole(reference: ModelHandle, others: Sequence[ModelHandle], text: TextPart) -> list[tuple[float, float, float]]:
    """The comparison as it was before models were run together: each one whole, one sequence at a time, and float64 terms.

    (perplexity, KL to the reference, agreement) of every model, the reference first.
    """
    sums = torch.zeros(1 + len(others), 4, dtype=torch.float64)
    for sequence in text.sequences:
        base = logits_of(reference, sequence)
        sums[0] += _sums(base, base, sequence)
        for number, handle in enumerate(others, start=1):
            sums[number] += _sums(base, logits_of(handle, sequence), sequence)
    return [(float((lost / n).exp()), float(kl / n), float(same / n)) for n, lost, kl, same in sums]


def _sums(reference: Tensor, own: Tensor, sequence: Tensor) -> Tensor:
    """[tokens, sum of negative log-likelihood, sum of KL, agreements] of one sequence."""
    lost = -log_likelihoods(own, sequence[1:]).sum()
    kl = torch.zeros((), dtype=torch.float64) if own is reference else divergences(reference, own).sum()
    same = (own.argmax(-1) == reference.argmax(-1)).sum()
    return torch.stack([torch.tensor(float(len(own)), dtype=torch.float64), lost.double(), kl.double(), same.double()])


RATIOS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "pass": passed,
    "moments": summed,
    "error_layer": mapped,
    "refit": _refitted("refit"),
    "sequential_refit": _refitted("sequential_refit"),
    "compare": compared,
    "benchmarks": benchmarked,
}
"""by the name in the JSON object"""


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people.")
@click.option("--tokens", default=4096, show_default=True, help="Of the calibration set, and of the text that is compared on.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--only", default="", help=f"Some of {', '.join(RATIOS)}, separated by commas.")
@click.option("--model", default="smollm2", show_default=True)
@click.option("--span", default="13:19", show_default=True, help="Blocks that are removed.")
@click.option("--tasks", default="", help="What the benchmarks ask, as in a plan: a folder of lm-eval YAML tasks, say; default: plain.")
@click.option("--items", default=100, show_default=True, help="Of each task, the first ones.")
@click.option("--text", default="smollm2:prose", show_default=True, help="Calibration text: a file or a source of the library.")
def main(as_json: bool, tokens: int, repeats: int, only: str, model: str, span: str, text: str, tasks: str, items: int) -> None:
    """Measures and prints."""
    bench = Bench(model, text, tokens, repeats, Span(*map(int, span.split(":"))), tasks, items)
    chosen = only.split(",") if only else list(RATIOS)
    if unknown := set(chosen) - set(RATIOS):
        raise click.UsageError(f"There is no ratio {', '.join(sorted(unknown))}; there are {', '.join(RATIOS)}.")
    found = {name: RATIOS[name](bench) for name in chosen}
    if as_json:
        click.echo(json.dumps({"model": model, "threads": torch.get_num_threads(), **found}))
        return
    for name, row in found.items():
        click.echo(
            f"{name:12} {row['ratio']:6.3f} [{row['range'][0]}, {row['range'][1]}] {row['of']}, n {row['n']:,}, {row['repeats']} repeats"
        )


if __name__ == "__main__":
    main()
