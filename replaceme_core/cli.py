"""Subcommands named after the stages. They parse, call and print; with --json one object on standard output, logs on standard error.

python -m replaceme_core distances --model demo --calibration demo:mixture --json
python -m replaceme_core plan-spans --model demo --shares 0.25,0.5
python -m replaceme_core fit --model demo --calibration demo:stories --span 6:9 --out exports/first
python -m replaceme_core evaluate --model exports/first --tasks demo --limit 50
python -m replaceme_core run --plan plan.yaml --out runs/first
"""

import math
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from replaceme_core import memory
from replaceme_core.bar import Bar
from replaceme_core.cli_evaluate import evaluate
from replaceme_core.cli_options import JSON, calibrated, cut_of, measured_by, show
from replaceme_core.cli_planner import plan_spans
from replaceme_core.errors import ReplaceMeError
from replaceme_core.progress import SILENT


class _Sentences(click.Group):
    """Turns the library's errors into one sentence on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with memory.told("for this command", memory.HOLD_LESS):
                return super().invoke(ctx)
        except ReplaceMeError as error:
            raise click.ClickException(str(error)) from error
        finally:
            Bar.close_all()


@click.group(cls=_Sentences, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    import logging

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave through the context managers
    for noisy in ("transformers", "lm_eval", "datasets", "bitsandbytes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@main.command()
@measured_by
@JSON
def distances(as_json: bool, **options: Any) -> None:
    """The cosine distance between every pair of boundaries."""
    _plan, handle, _tokens, measured = calibrated(options, [], ())
    found = measured.distances
    data = {
        "n_blocks": handle.n_blocks,
        "n_tokens": measured.n_tokens,
        "n_sequences": found["all"].n_sequences,
        "cosine_all": _rows(found["all"].values),
        "cosine_last": _rows(found["last"].values),
    }
    show(data, as_json, lambda: "\n".join(" ".join("   .   " if v is None else f"{v:7.4f}" for v in row) for row in data["cosine_all"]))


@main.command()
@measured_by
@click.option("--span", required=True, help="START:END, removes the blocks START to END-1; several: 2:4,6:8")
@click.option("--method", default="weighted_least_squares", show_default=True)
@click.option("--ridge", type=click.FloatRange(0), help="relative to the mean eigenvalue; default: least held-out error")
@click.option(
    "--set", "settings", multiple=True, help="KEY=VALUE of the plan's method section, e.g. --set structure=low_rank --set rank=16"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the pruned model")
@JSON
def fit(span: str, method: str, ridge: float | None, settings: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Fits a transform, merges it and exports the pruned model."""
    from replaceme_core import export, patch, pipeline, surgery
    from replaceme_core.budget import weightings_of
    from replaceme_core.folders import require_new
    from replaceme_core.plan import MethodSection, PruningPlan

    cut = cut_of(span)
    said = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings)}
    section = MethodSection.parse({"name": method, "ridge": ridge} | said, "the method")
    patch.require_merged(section)
    require_new(out)
    plan, handle, tokens, measured = calibrated(
        options, list(cut.spans), None if pipeline.runs_the_model(cut, section) else weightings_of(section)
    )
    transform = pipeline.fit(handle, tokens, measured, cut, section, plan.calibration.budget_bytes, Bar())
    recipe = plan.to_data() | {"span": cut.plain(), "method": section.model_dump(exclude_none=True)}
    name = pipeline.variant_name(handle, transform.method, cut)
    if handle.checkpoint is None:
        proofs = export.export(surgery.prune(handle, transform, name, recipe), out).proofs
    else:
        proofs = export.export_merged(handle, transform, name, PruningPlan.parse(recipe), out).proofs
    report = transform.report
    data: dict[str, Any] = {"span": [cut.spans[0].start, cut.spans[0].end], "cut": str(cut), "method": transform.method, **asdict(report)}
    data |= {"proofs": {p.name: asdict(p) for p in proofs}, "out": str(out)}
    show(
        data,
        as_json,
        lambda: (
            f"{cut.describe(handle.n_blocks)}\nheld-out error {report.heldout_error:.4f} (plain removal {report.removal_error:.4f}), "
            f"{report.n_tokens:,} tokens to fit, {report.n_heldout_tokens:,} held out\n" + "\n".join((*report.notes, f"written to {out}"))
        ),
    )


main.add_command(plan_spans)
main.add_command(evaluate)


@main.command()
@click.option("--markdown", is_flag=True, help="the table of the README")
@JSON
def families(markdown: bool, as_json: bool) -> None:
    """Which model families can be pruned, and how the transform merges."""
    from replaceme_core.families import FAMILIES
    from replaceme_core.family_table import markdown_table

    if markdown:
        click.echo(markdown_table())
        return
    rows = [{"family": t, "writer": f.writer, "merge": f.merge, "reason": f.reason} for f in FAMILIES for t in f.model_types]
    show(rows, as_json, lambda: "\n".join(f"{r['family']:14} {r['merge']:8} {r['writer']:24} {r['reason']}" for r in rows))


@main.command()
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


def _rows(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
