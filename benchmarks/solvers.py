"""Solvers side by side, in one run: held-out loss against seconds.

    python -m benchmarks.solvers spans            # demo model: loss, KL and seconds on every span of a quarter of its depth
    python -m benchmarks.solvers race             # demo model, one span: every method, and its time to Adam's held-out loss
    python -m benchmarks.solvers synthetic        # the same race on 32,768 synthetic tokens of width 192
    python -m benchmarks.solvers structures       # demo model, one span: structures of T

Loss: mean 1 - cos(M T + Y, H_end) over held-out tokens. KL: of the pruned model to the original over 4,096 tokens of test documents, nats
per token. Seconds: the solver alone, from a measurement in memory, nothing cached. Time to a loss: seconds of the shortest run
of that method (1, 2, 4, ... steps) that reaches it; a reweighted cosine starts from weighted least squares, which is its step 0.
"""

import math
import time
from collections.abc import Callable, Sequence

import click
import torch

from replaceme_core import solvers
from replaceme_core.artifacts import LinearTransform, Measurement, ModelHandle, Span, StreamLengths, TokenSample
from replaceme_core.calibration.calibration import documents
from replaceme_core.comparison import compare
from replaceme_core.measurement.measure import measure
from replaceme_core.measurement.moments import MomentSums
from replaceme_core.models import loading
from replaceme_core.pipeline import prepare_for
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection
from replaceme_core.selection import spans
from replaceme_core.solvers import least_squares, low_rank, spectrum
from replaceme_core.surgery import surgery

TABLE = ("drop", "least_squares", "weighted_least_squares", "cosine", "cosine_simplified", "adam")
RACE = (
    *(MethodSection(name=name) for name in ("weighted_least_squares", "cosine")),
    *(MethodSection(name="adam", max_iterations=passes) for passes in (10, 100)),
    *(MethodSection(name=name, max_iterations=most) for name, most in (("lbfgs", 200), ("nonlinear_cg", 32), ("newton_cg", 8))),
    MethodSection(name="trust_region", max_iterations=16),
)
STRUCTURES = (
    *(MethodSection(structure=structure) for structure in ("full", "diagonal", "triangular", "orthogonal")),
    *(MethodSection(structure="low_rank", rank=rank) for rank in (1, 8, 32, 64)),
    *(MethodSection(structure="low_rank_update", rank=rank) for rank in (1, 8, 32, 64)),
)
CACHES = (spectrum.spectrum_of, least_squares.form_of, low_rank._directions, low_rank._beside_identity)


@click.group(help=__doc__)
@click.option("--threads", default=1, show_default=True)
def main(threads: int) -> None:
    torch.set_num_threads(threads)


def _model(command: Callable) -> Callable:
    for option in (
        click.option("--max-tokens", default=16384, show_default=True),
        click.option("--calibration", default="demo:mixture", show_default=True),
        click.option("--model", default="demo", show_default=True),
    ):
        command = option(command)
    return command


@main.command("spans")
@_model
@click.option("--length", type=int, help="blocks to remove; default: a quarter of the depth")
def over_spans(model: str, calibration: str, max_tokens: int, length: int | None) -> None:
    handle, measured = _measured(model, calibration, max_tokens)
    length = length or spans.length_of_share(handle.n_blocks, 0.25)
    click.echo("span  " + "".join(f"{method:>29}" for method in TABLE) + "   loss / KL / seconds")
    found = []
    for point in spans.profile(measured.distances["all"], length):
        fits = [timed(measured, point.span, MethodSection(name=method)) for method in TABLE]
        found.append({fit.method: fit.report for fit in fits})
        kls = _divergences(handle, fits)
        click.echo(
            f"{point.span!s:6}" + "".join(f"{loss_of(f):13.4f} {kl:.4f} {f.report.seconds:7.4f}s" for f, kl in zip(fits, kls, strict=True))
        )
    for ours in ("weighted_least_squares", "cosine"):
        ratios = sorted(row[ours].seconds / row["adam_cosine"].seconds for row in found)
        lower = sum(row[ours].heldout_cosine >= row["adam_cosine"].heldout_cosine for row in found)
        click.echo(
            f"{ours}: at or below Adam's held-out loss on {lower} of {len(found)} spans, in {ratios[0]:.4f} to {ratios[-1]:.4f} of its time"
        )


@main.command()
@_model
@click.option("--span", "chosen", default="5:8", show_default=True)
def race(model: str, calibration: str, max_tokens: int, chosen: str) -> None:
    _handle, measured = _measured(model, calibration, max_tokens)
    _race(measured, _span(chosen))


@main.command()
@click.option("--tokens", default=32768, show_default=True)
@click.option("--width", default=192, show_default=True)
def synthetic(tokens: int, width: int) -> None:
    measured = synthetic_measurement(tokens, width)
    sample, span = measured.train_sample, Span(1, 2)
    boundaries, writers = ([state.double() for state in points.values()] for points in (sample.boundaries, sample.writers))
    began = time.perf_counter()
    MomentSums([span], width).update(boundaries, writers, torch.zeros(sample.n_tokens, dtype=torch.bool))
    summing = time.perf_counter() - began
    click.echo(f"synthetic: {tokens:,} train tokens, all stored, {measured.n_heldout_tokens:,} held out, width {width}")
    click.echo(f"the pass sums the moments of these tokens, both weightings, in {summing:.2f} s; no solver's time includes it")
    _race(measured, Span(1, 2))


@main.command()
@_model
@click.option("--span", "chosen", default="5:8", show_default=True)
def structures(model: str, calibration: str, max_tokens: int, chosen: str) -> None:
    handle, measured = _measured(model, calibration, max_tokens)
    fits = [timed(measured, _span(chosen), section) for section in (MethodSection(name="drop"), *STRUCTURES)]
    click.echo(f"{'method':46}{'unknowns':>9}{'error':>8}{'loss':>8}{'KL':>8}{'seconds':>9}")
    for fit, kl in zip(fits, _divergences(handle, fits), strict=True):
        report = fit.report
        click.echo(f"{fit.method:46}{report.unknowns:9,}{report.heldout_error:8.3f}{loss_of(fit):8.4f}{kl:8.4f}{report.seconds:9.4f}")


def _race(measured: Measurement, span: Span, sections: Sequence[MethodSection] = RACE) -> None:
    """Every method in full, and the time it takes to Adam's held-out loss."""
    removal = timed(measured, span, MethodSection(name="drop"))
    goal = timed(measured, span, RACE[2])
    target, adam = loss_of(goal), goal.report.seconds
    click.echo(f"span {span}: loss with no transform {loss_of(removal):.4f}; of Adam, 10 passes, {target:.4f} in {adam:.3f} s")
    click.echo(f"{'method':34}{'steps':>6}{'loss':>9}{'seconds':>10}{'/ Adam':>9}{'to its loss':>13}{'/ Adam':>9}  converged")
    for section in sections:
        done = timed(measured, span, section)
        reached = adam if section.name == "adam" else _time_to(measured, span, section, target)
        passes = f", {section.max_iterations} passes" if section.name == "adam" else ""
        report = done.report
        click.echo(
            f"{done.method + passes:34}{report.iterations or 0:6}{loss_of(done):9.4f}{report.seconds:10.4f}{report.seconds / adam:9.3f}"
            f"{reached:13.4f}{reached / adam:9.4f}  {report.converged if report.converged is not None else 'closed form'}"
        )


def _time_to(measured: Measurement, span: Span, section: MethodSection, target: float) -> float:
    """Seconds of the shortest run that reaches the target; NaN if none does."""
    if section.name in ("cosine", "weighted_least_squares"):
        start = timed(measured, span, MethodSection(ridge=section.ridge))
        if loss_of(start) <= target:
            return start.report.seconds
    steps = 1
    while section.max_iterations is None or steps <= section.max_iterations:
        done = timed(measured, span, section.model_copy(update={"max_iterations": steps}))
        if loss_of(done) <= target * (1 + 1e-9):
            return done.report.seconds
        if done.report.converged:
            break
        steps *= 2
    return math.nan


def timed(measured: Measurement, span: Span, section: MethodSection) -> LinearTransform:
    """One fit with nothing cached; the fastest of five where it is short."""
    runs: list[LinearTransform] = []
    while not runs or (len(runs) < 5 and runs[0].report.seconds < 1):
        for cache in CACHES:
            cache.cache_clear()
        runs.append(solvers.fit(measured, span, section))
    return min(runs, key=lambda fit: fit.report.seconds)


def loss_of(fit: LinearTransform) -> float:
    return 1 - fit.report.heldout_cosine


def synthetic_measurement(n_tokens: int, width: int, n_heldout: int = 4096) -> Measurement:
    """Tokens whose stream after the span is a linear map of what is written, noise, and a length of its own for every token.

    What is written has singular values from 1 down to 0.03; what stands beside it is three times as long.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n = n_tokens + n_heldout
    written = normal(n, width) * torch.logspace(0, -1.5, width, dtype=torch.float64)
    true = torch.eye(width, dtype=torch.float64) + normal(width, width) * (2 / width**0.5)
    scale = written.norm() / (n * width) ** 0.5
    beside = 1.5 * scale * normal(n, width)
    end = (beside + written @ true + 0.5 * scale * normal(n, width)) * (0.5 * normal(n, 1)).exp()
    boundaries = torch.stack([beside, beside + written, end]).float()
    writers = torch.stack([written, written]).float()
    heldout = torch.arange(n) >= n_tokens
    sums = MomentSums([Span(1, 2)], width)
    sums.update(boundaries.double(), writers.double(), heldout)
    samples = [TokenSample(*(dict(enumerate(state[:, rows])) for state in (boundaries, writers))) for rows in (heldout, ~heldout)]
    return Measurement(
        "synthetic",
        "synthetic",
        "synthetic",
        {},
        torch.zeros(3, dtype=torch.float64),
        StreamLengths(*torch.ones(3, 3, dtype=torch.float64)),
        sums.result(),
        *samples,
        n,
        n_heldout,
        0.0,
        0.0,
    )


def _measured(model: str, calibration: str, max_tokens: int) -> tuple[ModelHandle, Measurement]:
    handle = loading.load(ModelSection(path=model))
    measured = measure(handle, prepare_for(handle, CalibrationSection(source=calibration, max_tokens=max_tokens)))
    click.echo(
        f"{handle.name}, {measured.n_tokens:,} tokens of {calibration}, {measured.train_sample.n_tokens:,} train tokens in its sample, "
        f"{torch.get_num_threads()} thread(s)"
    )
    return handle, measured


def _divergences(handle: ModelHandle, fits: list[LinearTransform]) -> list[float]:
    variants = [surgery.prune(handle, fit, fit.method).handle for fit in fits]
    return [row.kl for row in compare.divergence(handle, variants, documents(handle.tokenizer, 4096))[1:]]


def _span(text: str) -> Span:
    return Span(*map(int, text.split(":")))


if __name__ == "__main__":
    main()
