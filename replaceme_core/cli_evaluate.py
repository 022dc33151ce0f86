"""`evaluate`: benchmark scores of a model, by lm-eval."""

from typing import Any

import click

from replaceme_core.bar import Bar
from replaceme_core.cli_options import DEVICE, DTYPE, JSON, MODEL, show


@click.command()
@MODEL
@click.option("--tasks", default="demo", show_default=True, help="'demo', a folder of lm-eval YAML files, or lm-eval names")
@click.option("--limit", type=click.IntRange(1), help="items per task")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@DTYPE
@DEVICE
@JSON
def evaluate(model: str, tasks: str, limit: int | None, batch_size: int, as_json: bool, **held: Any) -> None:
    """Benchmark scores of a model, by lm-eval."""
    from replaceme_core import evaluate as stage
    from replaceme_core import loading
    from replaceme_core.plan import EvaluationSection, ModelSection

    bar = Bar()
    handle = loading.load(ModelSection(path=model, **held), bar)
    scores = stage.evaluate(handle, EvaluationSection(tasks=tasks, limit=limit, batch_size=batch_size), bar)
    bar.close()
    show(scores.to_data(), as_json, lambda: _score_lines(scores))


def _score_lines(scores: Any) -> str:
    lines = []
    for task, metrics in scores.results.items():
        for metric, score in metrics.items():
            stderr = "" if score.stderr is None else f" \u00b1 {score.stderr:.4f}"
            lines.append(f"{task:28} {metric:18} {score.value:9.4f}{stderr}  (n = {score.n})")
    average = "" if scores.average is None else f"\naverage accuracy {scores.average:.4f}"
    return "\n".join(lines) + average
