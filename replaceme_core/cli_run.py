"""`run`: the whole pipeline, from a plan."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from replaceme_core.bar import Bar
from replaceme_core.cli_options import JSON, show
from replaceme_core.progress import SILENT


@click.command()
@click.option("--plan", required=True, type=click.Path(path_type=Path, dir_okay=False), help="YAML plan")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="run folder")
@click.option("--dry-run", "dry", is_flag=True, help="only say what it would do and need")
@JSON
def run(plan: Path, out: Path, dry: bool, as_json: bool) -> None:
    """The whole pipeline; OUT/model is the export. Under torchrun, several processes share the passes."""
    from replaceme_core import dry_run, pipeline
    from replaceme_core.distribution import joined
    from replaceme_core.plan import PruningPlan

    if dry:
        sizes = dry_run.dry_run(PruningPlan.read(plan))
        show(asdict(sizes), as_json, sizes.lines)
        return

    bar = Bar()
    with joined() as group:
        done = pipeline.run(PruningPlan.read(plan), out, bar if group.leads else SILENT, group)
    bar.close()
    if not group.leads:
        return
    cut, first = done.variant.transform.cut, done.variant.transform.span
    data: dict[str, Any] = {"out": str(done.folder), "span": [first.start, first.end], "method": done.variant.transform.method}
    data |= {"report": asdict(done.variant.transform.report), "comparison": [asdict(row) for row in done.comparison]}
    data |= {"scores": [scores.to_data() for scores in done.scores]}
    show(
        data,
        as_json,
        lambda: (
            f"{cut.describe(done.original.n_blocks)}\n"
            + "".join(
                f"KL to the original {pruned.kl:.4f} nats per token [{pruned.kl_low:.4f}, {pruned.kl_high:.4f}], "
                f"n = {pruned.n_tokens:,} held-out tokens\n"
                for pruned in done.comparison[1:]
            )
            + f"written to {done.folder}"
        ),
    )
