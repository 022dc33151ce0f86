"""`plan-spans`: how much to cut, and where, by measured KL."""

from dataclasses import asdict
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, calibrated, loaded, measured_by, show
from replaceme_core.errors import InputError


@click.command("plan-spans")
@measured_by
@click.option("--shares", default="0.125,0.25,0.375,0.5", show_default=True, help="shares of the blocks to remove, separated by commas")
@click.option("--places", default=3, show_default=True, type=click.IntRange(1), help="spans to fit and measure at each share")
@click.option(
    "--spans", default=1, show_default=True, type=click.IntRange(1), help="above 1: also the best cut of two spans, ..., of so many"
)
@click.option(
    "--criteria",
    default="sinks_kept,missed",
    show_default=True,
    help="of sinks_kept, distance, path and missed: what names the spans, in turn",
)
@click.option("--method", default="weighted_least_squares", show_default=True, help="what is fitted; for example sequential_refit")
@click.option(
    "--heldout-tokens", default=4096, show_default=True, type=click.IntRange(2), help="of the held-out part to measure on, at most"
)
@JSON
def plan_spans(
    shares: str, places: int, spans: int, criteria: str, method: str, heldout_tokens: int, as_json: bool, **options: Any
) -> None:
    """How much to cut, and where: the best few spans of each share, fitted, merged and measured on the held-out part.

    \b
    Examples:
      replaceme plan-spans --model demo --shares 0.25,0.5 --places 1 --max-tokens 2048 --heldout-tokens 512
    """
    from replaceme_core.plans.plan import MethodSection
    from replaceme_core.studies import planner

    section = MethodSection.parse({"name": method}, "the method")
    aim = planner.Aim(_shares(shares), places, spans, _criteria(criteria), section, heldout_tokens)
    plan, handle = loaded(options)
    planner.require_comparable(handle)
    tokens, measured = calibrated(plan, handle, planner.spans_for(aim))
    bar = Bar()
    found = planner.search(handle, tokens, measured, aim, bar)
    bar.close()
    points = [
        {
            "spans": [[span.start, span.end] for span in point.candidate.cut.spans],
            "n_removed": point.candidate.n_removed,
            "rank": point.candidate.rank,
            "criterion": point.candidate.criterion,
        }
        | {"score": point.candidate.score, "n_parameters": point.n_parameters, "heldout_error": point.heldout_error}
        | {"on_front": point.on_front, "quality": asdict(point.quality)}
        for point in found.points
    ]
    data = {"n_blocks": handle.n_blocks, "criteria": list(aim.criteria), "method": section.name, "original": asdict(found.original)}
    show(data | {"points": points, "notes": list(found.notes), "seconds": found.seconds}, as_json, lambda: _lines(found, handle.n_blocks))


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"'{text}' is not a list of shares; write numbers between 0 and 1, for example 0.125,0.25.") from None


def _criteria(text: str) -> Any:
    from replaceme_core.selection.criteria import CRITERIA

    unknown = [name for name in text.split(",") if name not in CRITERIA]
    if unknown:
        raise InputError(f"There is no criterion '{unknown[0]}'; choose of {', '.join(CRITERIA)}, separated by commas.")
    return tuple(text.split(","))


def _lines(found: Any, n_blocks: int) -> str:
    """One line per span that was measured; the best of each depth is marked."""
    from replaceme_core.comparison.intervals import bracketed

    lines = [f"{'removed':12} {'blocks':>10}  {'parameters':>14}  {'KL [95 %]':24} {'perplexity':>10}  named by"]
    for point in found.points:
        quality, spans = point.quality, str(point.candidate.cut)
        kl = bracketed(quality.kl, quality.kl_low, quality.kl_high)
        blocks = f"-{point.candidate.n_removed} of {n_blocks}"
        mark = "  *" if point.on_front else ""
        lines.append(
            f"{spans:12} {blocks:>10}  {point.n_parameters:>14,}  {kl:24} {quality.perplexity:>10.3f}  {point.candidate.criterion}{mark}"
        )
    said = f"KL to the original in nats per token, on {found.original.measured_on}; perplexity of the original "
    lines.append(f"{said}{found.original.perplexity:.3f}. *: no other line removes as much at a lower KL.")
    lines.append(
        "The held-out part chose the fits and the places, so that the least KL is a little too low: compare the choice on test text."
    )
    return "\n".join([*lines, *filter(None, [found.original.note]), *found.notes])
