"""`run`: the whole pipeline, from a plan."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, plan_of, show
from replaceme_core.progress import SILENT

INCOMPLETE = 3
"""exit code of a run whose model is written, while a measurement of it failed"""


@click.command()
@click.option("--plan", required=True, help="YAML plan, or 'demo' (see `replaceme plan demo`)")
@click.option("--out", type=click.Path(path_type=Path), help="run folder; needed unless --dry-run")
@click.option("--dry-run", "dry", is_flag=True, help="only say what it would do and need")
@JSON
def run(plan: str, out: Path | None, dry: bool, as_json: bool) -> None:
    """The whole pipeline; OUT/model is the export. Under torchrun, several processes share the passes.

    \b
    Examples:
      replaceme run --plan demo --dry-run
      replaceme run --plan demo --out runs/first
    """
    from replaceme_core import dry_run, pipeline
    from replaceme_core.comparison.intervals import bracketed
    from replaceme_core.distribution import joined

    if dry:
        sizes = dry_run.dry_run(plan_of(plan))
        show(asdict(sizes), as_json, sizes.lines)
        return

    if out is None:
        raise click.UsageError("name the run folder: --out")
    bar = Bar()
    with joined() as group:
        done = pipeline.run(plan_of(plan), out, bar if group.leads else SILENT, group)
    bar.close()
    for sentence in done.missing:
        click.echo(sentence, err=True)
    if not group.leads:
        return
    cut, first = done.variant.transform.cut, done.variant.transform.span
    data: dict[str, Any] = {"out": str(done.folder), "span": [first.start, first.end], "method": done.variant.transform.method}
    data |= {"report": asdict(done.variant.transform.report), "comparison": [asdict(row) for row in done.comparison]}
    data |= {"scores": [scores.to_data() for scores in done.scores], "missing": list(done.missing)}
    show(
        data,
        as_json,
        lambda: (
            f"{cut.describe(done.original.n_blocks)}\n"
            + "".join(
                f"KL to the original {bracketed(pruned.kl, pruned.kl_low, pruned.kl_high)} nats per token, on {pruned.measured_on}\n"
                for pruned in done.comparison[1:]
            )
            + f"written to {done.folder}"
            + (", but not all was measured that the plan asks for (see above)" if done.missing else "")
        ),
    )
    if done.missing:
        click.get_current_context().exit(INCOMPLETE)
