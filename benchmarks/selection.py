"""Which criterion finds the span whose removal costs least? Every span, its measured KL beside what one pass says of it.

    python -m benchmarks.selection measure --out selection.jsonl        # the demo model: 66 spans, four calibration sets
    python -m benchmarks.selection table selection.jsonl

`measure` writes one line per span and calibration set; what is in the file already is not run again. KL is that of the pruned model to
the original, nats per token, on text that no fit has seen: removed without a transform, and after weighted least squares. `table` repeats the
passes, which take seconds, and compares. A criterion is good if it ranks spans as KL does (Spearman, Kendall), and if the span it picks
at each length costs little more than the best one (regret).
"""

import json
import math
from pathlib import Path

import click
import pandas as pd
import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity

from replaceme_core import solvers
from replaceme_core.artifacts import Measurement, ModelHandle, Span
from replaceme_core.calibration.calibration import documents, prepare
from replaceme_core.comparison import compare
from replaceme_core.measurement import measure
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection
from replaceme_core.surgery import surgery

SETS = ((8192, 0), (8192, 1), (16384, 0), (16384, 1))
"""tokens of the mixture and seed"""
CRITERIA = {
    "distance": "1 - cos(H_start, H_end), all tokens (the paper's)",
    "distance_last": "the same at the last token of each sequence",
    "angular": "arccos of the mean cosine; the order of 'distance' by construction",
    "distance_at_end": "distance x |H_end| / |H_L|",
    "path": "sum over the removed blocks of 1 - cos(H_i, H_i+1), all tokens",
    "path_last": "the same at the last token of each sequence",
    "path_angular": "sum over the removed blocks of the angle of their mean cosine",
    "removal": "mean |H_start - H_end|^2 / |H_end|^2: what no transform misses of the stream",
    "error": "weighted least squares, held-out |M T - Z|^2 / |Z|^2, best ridge",
    "error_no_ridge": "the same with ridge 0",
    "error_plain": "the same of plain least squares",
    "missed": "held-out mean |M T + Y - H_end|^2 / |H_end| (the weights of the fit; ^2 in figures logged before these changed): what the fit misses of the stream",
    "missed_no_ridge": "the same with ridge 0",
    "missed_log": "the same as a geometric mean over the stored held-out tokens",
    "missed_cosine": "1 - cos(M T + Y, H_end) on the stored held-out tokens",
    "missed_at_end": "missed x (|H_end| / |H_L|)^2",
    "missed_halfway": "missed x |H_end| / |H_L|",
    "missed_lens": "what the fit misses, carried to the last boundary by a linear map, as a share of |H_L|^2",
    "lens_kl": "the same through the final norm and the head: KL of what they say",
    "lens_kl_removal": "the same of what no transform misses",
    "in_turn": "the first by distance, the first by missed, the second by distance, ...: for short lists",
}
TARGETS = {"kl_drop": "removed, no transform", "kl_fit": "weighted least squares"}
_TEST = 4096
_LENS_RIDGE = 1e-3
_BATCH = 6


class Criteria:
    """Every criterion, from one measurement of a Llama model; nothing runs a block again."""

    def __init__(self, measured: Measurement, handle: ModelHandle) -> None:
        self._measured = measured
        self._states = {boundary: state.double() for boundary, state in measured.sample.boundaries.items()}
        self._last = handle.n_blocks
        self._lenses = {boundary: self._lens(boundary) for boundary in self._states}
        with handle.borrow() as model:
            self._head = model.lm_head.weight.double()
            self._gain, self._epsilon = model.model.norm.weight.double(), model.model.norm.variance_epsilon

    def of(self, span: Span) -> dict[str, float]:
        """By name."""
        start, end, last = (self._states[boundary] for boundary in (span.start, span.end, self._last))
        return (
            self._distances(span)
            | self._errors(span)
            | {
                "lens_kl": self._kl(last + self._gap(span) @ self._lenses[span.end]),
                "lens_kl_removal": self._kl(last + (start - end) @ self._lenses[span.end]),
            }
        )

    def _distances(self, span: Span) -> dict[str, float]:
        distances = self._measured.distances
        blocks = [Span(block, block + 1) for block in span.blocks]
        angles = distances["all"].angular()
        return {
            "distance": distances["all"].at(span),
            "distance_last": distances["last"].at(span),
            "angular": float(angles[span.start, span.end]),
            "distance_at_end": distances["all"].at(span) * self._growth(span),
            "path": math.fsum(distances["all"].at(block) for block in blocks),
            "path_last": math.fsum(distances["last"].at(block) for block in blocks),
            "path_angular": math.fsum(float(angles[block.start, block.end]) for block in blocks),
        }

    def _errors(self, span: Span) -> dict[str, float]:
        heldout = self._measured.moments[span, "end_norm"].heldout
        stream, growth = heldout.energy / heldout.n_tokens, self._growth(span)
        error = solvers.fit(self._measured, span, MethodSection()).report.heldout_error
        unridged = solvers.fit(self._measured, span, "weighted_least_squares", 0.0).report.heldout_error
        gap, end, last = self._gap(span), self._states[span.end], self._states[self._last]
        lost = gap.square().sum(-1) / end.square().sum(-1)
        carried = (gap @ self._lenses[span.end]).square().sum(-1) / last.square().sum(-1)
        return {
            "removal": heldout.error(None) * stream,
            "error": error,
            "error_no_ridge": unridged,
            "error_plain": solvers.fit(self._measured, span, "least_squares").report.heldout_error,
            "missed": error * stream,
            "missed_no_ridge": unridged * stream,
            "missed_log": float(lost.log().mean().exp()),
            "missed_cosine": float(1 - cosine_similarity(end + gap, end, dim=-1).mean()),
            "missed_at_end": error * stream * growth**2,
            "missed_halfway": error * stream * growth,
            "missed_lens": float(carried.mean()),
        }

    def _growth(self, span: Span) -> float:
        return float(self._measured.norms[span.end] / self._measured.norms[-1])

    def _gap(self, span: Span) -> Tensor:
        """What the fitted transform misses of H_end, [tokens, width]."""
        matrix = solvers.fit(self._measured, span, MethodSection()).matrix
        written = self._measured.sample.writers[span.carrier].double()
        return self._states[span.start] + written @ (matrix - torch.eye(written.shape[1], dtype=written.dtype)) - self._states[span.end]

    def _lens(self, boundary: int) -> Tensor:
        """The linear map from a boundary to the last one: ridge least squares on the stored train tokens, weights 1/|H_L|^2."""
        states, last = (self._measured.train_sample.boundaries[index].double() for index in (boundary, self._last))
        weighted = states / last.square().sum(-1, keepdim=True)
        gram = weighted.T @ states
        return torch.linalg.solve(gram + _LENS_RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype), weighted.T @ last)

    def _kl(self, states: Tensor) -> float:
        """KL of what the head says at the intact last boundary to what it says at `states`, nats per token."""
        true, other = (self._said(rows) for rows in (self._states[self._last], states))
        return float((true.exp() * (true - other)).sum(-1).mean())

    def _said(self, states: Tensor) -> Tensor:
        normed = states * (states.square().mean(-1, keepdim=True) + self._epsilon).rsqrt() * self._gain
        return (normed @ self._head.T).log_softmax(-1)


def regrets(rows: pd.DataFrame, criterion: str, target: str, k: int = 1) -> pd.Series:
    """By length: the least target among the `k` spans that the criterion puts first, divided by the least of this length."""
    first = rows[rows.groupby("length")[criterion].rank(method="first") <= k]
    return first.groupby("length")[target].min() / rows.groupby("length")[target].min()


def correlations(rows: pd.DataFrame, criterion: str, target: str) -> dict[str, float]:
    """Rank correlations over all spans, and their mean within the lengths that have four spans or more."""
    within = [group for _, group in rows.groupby("length") if len(group) >= 4]
    return {
        "spearman": float(spearmanr(rows[criterion], rows[target]).statistic),
        "kendall": float(kendalltau(rows[criterion], rows[target]).statistic),
        "spearman within": math.fsum(spearmanr(group[criterion], group[target]).statistic for group in within) / len(within),
        "kendall within": math.fsum(kendalltau(group[criterion], group[target]).statistic for group in within) / len(within),
    }


def _measured(handle: ModelHandle, tokens: int, seed: int) -> Measurement:
    section = CalibrationSection(source="demo:mixture", max_tokens=tokens, seed=seed)
    return measure.measure(handle, prepare(section, handle.tokenizer))


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("measure")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", default="demo", show_default=True)
def measure_all(out: Path, model: str) -> None:
    """Fits, prunes and compares every span on every calibration set; one line each."""
    done = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line] if out.exists() else []
    known = {(row["tokens"], row["seed"], row["span"]) for row in done}
    dropped = {row["span"]: row["kl_drop"] for row in done}
    handle = loading.load(ModelSection(path=model))
    text = documents(handle.tokenizer, _TEST)
    every = [Span(start, end) for start in range(1, handle.n_blocks) for end in range(start + 1, handle.n_blocks + 1)]
    for tokens, seed in SETS:
        todo = [span for span in every if (tokens, seed, str(span)) not in known]
        measured = _measured(handle, tokens, seed)
        for at in range(0, len(todo), _BATCH):
            batch = todo[at : at + _BATCH]
            fits = [solvers.fit(measured, span, MethodSection()) for span in batch]
            cuts = [solvers.fit(measured, span, "drop") for span in batch if str(span) not in dropped]
            variants = [surgery.prune(handle, fit, f"{fit.method} {fit.span}").handle for fit in [*fits, *cuts]]
            kls = [row.kl for row in compare.divergence(handle, variants, text)[1:]]
            dropped |= {str(cut.span): kl for cut, kl in zip(cuts, kls[len(fits) :], strict=True)}
            with out.open("a", encoding="utf-8") as file:
                for span, kl in zip(batch, kls[: len(fits)], strict=True):
                    row = {"tokens": tokens, "seed": seed, "span": str(span), "length": len(span)}
                    file.write(json.dumps(row | {"kl_fit": kl, "kl_drop": dropped[str(span)]}) + "\n")


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", default="demo", show_default=True)
def table(path: Path, model: str) -> None:
    """Correlation and regret of each criterion, the mean over the calibration sets; then each set, then each length."""
    handle = loading.load(ModelSection(path=model))
    sets = {key: group.reset_index(drop=True) for key, group in pd.read_json(path, lines=True).groupby(["tokens", "seed"])}
    for (tokens, seed), rows in sets.items():
        found = Criteria(_measured(handle, tokens, seed), handle)
        values = [found.of(Span(*map(int, span.split(":")))) for span in rows["span"]]
        sets[tokens, seed] = pd.concat([rows, pd.DataFrame(values)], axis=1)
        ranks = sets[tokens, seed].groupby("length")[["distance", "missed"]].rank(method="first")
        sets[tokens, seed]["in_turn"] = (2 * ranks["distance"]).clip(upper=2 * ranks["missed"] + 1)
    for target, words in TARGETS.items():
        _show(sets, target, words)


def _show(sets: dict[tuple[int, int], pd.DataFrame], target: str, words: str) -> None:
    by_length = pd.DataFrame(
        {
            (criterion, f"{key[0] // 1024}k/{key[1]}"): regrets(rows, criterion, target)
            for key, rows in sets.items()
            for criterion in CRITERIA
        }
    )
    ranks = pd.DataFrame([{"criterion": c} | correlations(rows, c, target) for rows in sets.values() for c in CRITERIA])
    summary = ranks.groupby("criterion").mean()
    grouped = by_length.T.groupby(level=0)
    summary["regret"], summary["worst"] = grouped.mean().mean(axis=1), grouped.max().max(axis=1)
    for k in (2, 3, 5):
        means = {c: pd.concat([regrets(rows, c, target, k) for rows in sets.values()]).mean() for c in CRITERIA}
        summary[f"best of {k}"] = pd.Series(means)
    paper = by_length["distance"]
    for name, better in (("better", True), ("worse", False)):
        summary[name] = [int(((by_length[c] < paper) if better else (by_length[c] > paper)).sum().sum()) for c in summary.index]
    click.echo(
        f"\n{words}: mean over {len(sets)} calibration sets x {len(by_length)} lengths; better and worse: picks against those of 'distance'"
    )
    click.echo(summary.sort_values("regret").round(3).to_string())
    click.echo(f"\n{words}: mean regret on each calibration set")
    click.echo(by_length.mean().unstack().loc[list(CRITERIA)].round(3).to_string())
    click.echo(f"\n{words}: regret by length, mean over the calibration sets")
    click.echo(grouped.mean().loc[list(CRITERIA)].round(2).to_string())


if __name__ == "__main__":
    main()
