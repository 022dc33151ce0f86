"""Subcommands named after the stages. They parse, call and print; with --json one object on standard output, logs on standard error.

python -m replaceme_core distances --model demo --calibration demo:mixture --json
python -m replaceme_core fit --model demo --calibration demo:stories --span 6:9 --out exports/first
python -m replaceme_core evaluate --model exports/first --tasks demo --limit 50
python -m replaceme_core run --plan plan.yaml --out runs/first
"""

import json
import math
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from replaceme_core import memory
from replaceme_core.bar import Bar
from replaceme_core.errors import ReplaceMeError, SpanError
from replaceme_core.folders import plain
from replaceme_core.progress import SILENT
from replaceme_core.span import Cut, Span

_MODEL = click.option("--model", required=True, help="'demo', a local folder, or a Hugging Face id")
_CALIBRATION = click.option(
    "--calibration", default="demo:mixture", show_default=True, help="demo:NAME, a file, preset:NAME, hub:ID, self, or a folder of images"
)
_TOKENS = click.option("--max-tokens", default=16384, show_default=True, type=click.IntRange(2), help="calibration tokens")
_LENGTH = click.option("--max-length", default=512, show_default=True, type=click.IntRange(2), help="tokens per sequence")
_HOLDOUT = click.option("--holdout", default=0.1, show_default=True, type=click.FloatRange(0, 1, True, True), help="share kept out")
_SEED = click.option("--seed", default=0, show_default=True, type=int)
_DTYPE = click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
_QUANTISE = click.option(
    "--quantise", type=click.Choice(["nf4", "int8"]), help="4 or 8 bits for the calibration pass; the export is unquantised"
)
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps, or spread (over all devices)")
_BUDGET = click.option("--budget-gib", default=2.0, show_default=True, help="memory for the pass beside the weights, in GiB")
_JSON = click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")


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


def _measured(command: Any) -> Any:
    """The options of what runs a calibration pass."""
    for option in (_BUDGET, _DEVICE, _QUANTISE, _DTYPE, _SEED, _HOLDOUT, _LENGTH, _TOKENS, _CALIBRATION, _MODEL):
        command = option(command)
    return command


def _calibrated(options: dict[str, Any], spans: Any, method: Any) -> tuple[Any, Any, Any, Any]:
    """(plan, handle, calibration set, measurement) from the options that distances and fit share."""
    from replaceme_core import budget, checkpoint, loading, measure, pipeline
    from replaceme_core.plan import PruningPlan

    model = {"path": options["model"], "dtype": options["dtype"], "quantisation": options["quantise"], "device": options["device"]}
    calibration = {key: options[key] for key in ("max_tokens", "max_length", "holdout", "seed", "budget_gib")}
    plan = PruningPlan.parse({"model": model, "calibration": {"source": options["calibration"]} | calibration})
    bar = Bar()
    handle = loading.load(plan.model, bar)
    if spans:
        checkpoint.require_rewritable(handle)
    tokens = pipeline.prepare_for(handle, plan.calibration, bar)
    measured = measure.measure(handle, tokens, plan.calibration.budget_bytes, spans, bar, weightings=budget.weightings_of(method))
    bar.close()
    return plan, handle, tokens, measured


@main.command()
@_measured
@_JSON
def distances(as_json: bool, **options: Any) -> None:
    """The cosine distance between every pair of boundaries."""
    _plan, handle, _tokens, measured = _calibrated(options, [], None)
    found = measured.distances
    data = {
        "n_blocks": handle.n_blocks,
        "n_tokens": measured.n_tokens,
        "n_sequences": found["all"].n_sequences,
        "cosine_all": _rows(found["all"].values),
        "cosine_last": _rows(found["last"].values),
    }
    _show(data, as_json, lambda: "\n".join(" ".join("   .   " if v is None else f"{v:7.4f}" for v in row) for row in data["cosine_all"]))


@main.command()
@_measured
@click.option("--span", required=True, help="START:END, removes the blocks START to END-1; several: 2:4,6:8")
@click.option("--method", default="weighted_least_squares", show_default=True)
@click.option("--ridge", type=click.FloatRange(0), help="relative to the mean eigenvalue; default: least held-out error")
@click.option(
    "--set", "settings", multiple=True, help="KEY=VALUE of the plan's method section, e.g. --set structure=low_rank --set rank=16"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the pruned model")
@_JSON
def fit(span: str, method: str, ridge: float | None, settings: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Fits a transform, merges it and exports the pruned model."""
    from replaceme_core import export, pipeline, surgery
    from replaceme_core.folders import require_new
    from replaceme_core.plan import MethodSection, PruningPlan

    cut = _cut(span)
    said = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in settings)}
    section = MethodSection.parse({"name": method, "ridge": ridge} | said, "the method")
    require_new(out)
    plan, handle, tokens, measured = _calibrated(options, list(cut.spans), section)
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
    _show(
        data,
        as_json,
        lambda: (
            f"{cut.describe(handle.n_blocks)}\nheld-out error {report.heldout_error:.4f} (plain removal {report.removal_error:.4f}), "
            f"{report.n_tokens:,} tokens to fit, {report.n_heldout_tokens:,} held out\n" + "\n".join((*report.notes, f"written to {out}"))
        ),
    )


@main.command()
@_MODEL
@click.option("--tasks", default="demo", show_default=True, help="'demo', a folder of lm-eval YAML files, or lm-eval names")
@click.option("--limit", type=click.IntRange(1), help="items per task")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@_DTYPE
@_DEVICE
@_JSON
def evaluate(model: str, tasks: str, limit: int | None, batch_size: int, as_json: bool, **held: Any) -> None:
    """Benchmark scores of a model, by lm-eval."""
    from replaceme_core import evaluate as stage
    from replaceme_core import loading
    from replaceme_core.plan import EvaluationSection, ModelSection

    bar = Bar()
    handle = loading.load(ModelSection(path=model, **held), bar)
    scores = stage.evaluate(handle, EvaluationSection(tasks=tasks, limit=limit, batch_size=batch_size), bar)
    bar.close()
    _show(scores.to_data(), as_json, lambda: _score_lines(scores))


@main.command()
@click.option("--markdown", is_flag=True, help="the table of the README")
@_JSON
def families(markdown: bool, as_json: bool) -> None:
    """Which model families can be pruned, and how the transform merges."""
    from replaceme_core.families import FAMILIES
    from replaceme_core.family_table import markdown_table

    if markdown:
        click.echo(markdown_table())
        return
    rows = [{"family": t, "writer": f.writer, "merge": f.merge, "reason": f.reason} for f in FAMILIES for t in f.model_types]
    _show(rows, as_json, lambda: "\n".join(f"{r['family']:14} {r['merge']:8} {r['writer']:24} {r['reason']}" for r in rows))


@main.command()
@click.option("--plan", required=True, type=click.Path(path_type=Path, dir_okay=False), help="YAML plan")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="run folder")
@click.option("--dry-run", "dry", is_flag=True, help="only say what it would do and need")
@_JSON
def run(plan: Path, out: Path, dry: bool, as_json: bool) -> None:
    """The whole pipeline; OUT/model is the export. Under torchrun, several processes share the passes."""
    from replaceme_core import dry_run, pipeline
    from replaceme_core.distribution import joined
    from replaceme_core.plan import PruningPlan

    if dry:
        sizes = dry_run.dry_run(PruningPlan.read(plan))
        _show(asdict(sizes), as_json, sizes.lines)
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
    _show(
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


def _cut(text: str) -> Cut:
    found = [re.fullmatch(r"\s*(\d+):(\d+)\s*", part) for part in text.split(",")]
    if not all(found):
        raise SpanError(f"'{text}' is not a span; write START:END, for example 6:9 for the blocks 6, 7 and 8; or several: 2:4,6:8.")
    return Cut.of(Span(int(each[1]), int(each[2])) for each in found if each)


def _rows(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]


def _score_lines(scores: Any) -> str:
    lines = []
    for task, metrics in scores.results.items():
        for metric, score in metrics.items():
            stderr = "" if score.stderr is None else f" \u00b1 {score.stderr:.4f}"
            lines.append(f"{task:28} {metric:18} {score.value:9.4f}{stderr}  (n = {score.n})")
    average = "" if scores.average is None else f"\naverage accuracy {scores.average:.4f}"
    return "\n".join(lines) + average


def _show(data: Any, as_json: bool, words: Callable[[], str]) -> None:
    click.echo(json.dumps(plain(data), ensure_ascii=False, allow_nan=False) if as_json else words())
