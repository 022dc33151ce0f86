"""`sweep`: methods x places from one file, as a queue that goes on where it was stopped."""

from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, show
from replaceme_core.plans.methods import in_words


@click.command("sweep")
@click.option("--sweep", "file", required=True, help="YAML sweep; 'demo' is a small one for the demo model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="sweep folder; one that is there is gone on with")
@JSON
def sweep(file: str, out: Path, as_json: bool) -> None:
    """Methods x places, each fitted, checked and measured; the same command again goes on where it was stopped.

    \b
    Examples:
      replaceme sweep --sweep demo --out sweeps/small
      replaceme sweep --sweep demo --out sweeps/small --json
    """
    from replaceme_core.plans.sweep_section import Sweep
    from replaceme_core.storage.shipped import DEMO
    from replaceme_core.studies.sweep import run as stage
    from replaceme_core.studies.sweep.points import front

    bar = Bar()
    found = stage.run(Sweep.read(DEMO / "sweep.yaml" if file == "demo" else file), out, bar)
    bar.close()
    data = stage.plain(found)
    data["fronts"] = {
        f"{quality}_{against}": sorted(front(found.made, quality, against))  # type: ignore[arg-type]
        for quality in ("kl", "kept")
        for against in ("depth", "ms")
    }
    show(data, as_json, lambda: "\n".join(_lines(found)))


def _lines(found: Any) -> list[str]:
    """The table of the points, the table of what they gain, and what could not be made."""
    from replaceme_core.comparison.intervals import bracketed
    from replaceme_core.studies.sweep.points import drift_free_ms, front, original_ms

    made, times = found.made, drift_free_ms(found.made)
    by_depth, by_time = front(made), front(made, against="ms")
    wide = max([6, *(len(result.planned.section.label) for result in made)])
    lines = [
        f"{'removed':14} {'method':{wide}} {'blocks':>9}  {'KL [95 %]':24} {'perplexity':>10} {'rel. accuracy [95 %]':>22} {'ms/token':>9}  front"
    ]
    for result in made:
        key, quality, kept = result.planned.key, result.quality, result.kept
        kl = bracketed(quality.kl, quality.kl_low, quality.kl_high)
        share = "-" if kept is None else f"{kept.share:.1%} [{kept.low:.1%}, {kept.high:.1%}]"
        time = f"{times[key][0]:.2f}" if key in times else "-"
        marks = ", ".join(word for word, keys in (("depth", by_depth), ("ms", by_time)) if key in keys)
        label = in_words(result.planned.section.label)
        lines.append(
            f"{result.planned.cut!s:14} {label:{wide}} {f'-{result.n_removed} of {found.index.n_blocks}':>9}  {kl:24} {quality.perplexity:>10.3f} "
            f"{share:>22} {time:>9}  {marks}"
        )
    if made:
        first = made[0].original
        lines.append(
            f"KL to the original in nats per token, on {first.measured_on}; perplexity of the original {first.perplexity:.3f}."
            " Front: no other point removes as much (is as fast) at a lower KL."
        )
    if times:
        lines += ["", *_gains(found, original_ms(made))]
    lines += [f"{result.planned}: {result.error}" for result in found.results if result.error]
    return [*lines, *found.index.notes, f"written to {found.folder}"]


def _gains(found: Any, original_ms: float) -> list[str]:
    """Speed, memory and size against the share of depth removed."""
    n_blocks = found.index.n_blocks
    lines = [
        f"{'removed':14} {'depth':>6} {'ideal':>6}  {'generation [range]':22} {'prefill [range]':22} {'peak memory':>11} {'on disk':>8}"
    ]
    for result in found.made:
        speed = result.speed
        ranges = [f"x{r.median:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in (speed.decode.ratio, speed.prefill.ratio)]
        peak = "-" if speed.pruned_peak_bytes is None else f"{speed.pruned_peak_bytes / speed.original_peak_bytes:.1%}"
        disk = f"{speed.pruned_disk_bytes / speed.original_disk_bytes:.1%}"
        share = result.n_removed / n_blocks
        lines.append(
            f"{result.planned.cut!s:14} {share:>6.1%} {f'x{1 / (1 - share):.2f}':>6}  {ranges[0]:22} {ranges[1]:22} {peak:>11} {disk:>8}"
        )
    timing = found.made[0].speed.timing
    lines.append(
        f"On {found.made[0].speed.device}; the original generates a token in {original_ms:.2f} ms. Median and range of {timing.repeats} repeats in "
        f"turn with the original, {timing.prompt_tokens} tokens of prefill, {timing.new_tokens} generated. Ideal: all time in the blocks."
    )
    return lines
