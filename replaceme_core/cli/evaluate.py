"""`evaluate`: benchmark scores of a model, beside scores from elsewhere, with the paired tests between them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import DEVICE, DTYPE, JSON, show
from replaceme_core.errors import EvaluationError

_TASKS = (
    "entries separated by commas: 'plain' (English, offline), 'demo', a suite (replaceme, replaceme-table, streamline, quick), 'probe', lm-eval names (NAME@5: 5-shot), "
    "a folder of lm-eval YAML files, or a JSONL file of own questions"
)


class _Batch(click.ParamType):
    name = "auto|n"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value != "auto" and not (str(value).isdigit() and int(value) > 0):
            self.fail(f"'{value}' is neither 'auto' nor a whole number above 0", param, ctx)
        return value if value == "auto" else int(value)


@click.command()
@click.option("--model", help="'demo', a local folder, or a Hugging Face id; may be left out with --import")
@click.option("--tasks", help=f"{_TASKS}; default: 'demo' for the demo model, 'plain' for any other")
@click.option(
    "--num-fewshot", type=click.IntRange(0), help="few-shot examples before each question, for every task; default: each task's own"
)
@click.option("--limit", type=click.IntRange(1), help="items per task, the first ones")
@click.option("--seed", default=1234, show_default=True, type=int, help="of the few-shot examples and the probe's prompts")
@click.option(
    "--apply-chat-template",
    is_flag=True,
    help="ask in the chat template of the tokenizer, as a user would; off by default, as in lm-eval; the probe is always asked in plain text",
)
@click.option(
    "--fewshot-as-multiturn/--no-fewshot-as-multiturn",
    default=True,
    show_default=True,
    help="with the chat template: every few-shot example as a question and an answer of its own, or all in one message",
)
@click.option("--system-instruction", metavar="TEXT", help="stands before every question, as a chat's system message or as plain text")
@click.option("--batch-size", default="auto", show_default=True, type=_Batch(), help="requests per forward pass")
@click.option(
    "--exact",
    is_flag=True,
    help="log-likelihoods in lm-eval's own batches; without it what questions share is run once, which is faster and the same to rounding",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="ask again what is kept from an earlier run (in ~/.cache/replaceme, or the folder that REPLACEME_CACHE names)",
)
@click.option(
    "--export", "out", multiple=True, type=click.Path(path_type=Path), help="FILE.csv, .tex, .md, or .json (lm-eval's layout); repeatable"
)
@click.option(
    "--import",
    "others",
    multiple=True,
    type=click.Path(path_type=Path),
    help="results_*.json of lm-eval, or its folder, to set beside; repeatable",
)
@DTYPE
@DEVICE
@JSON
def evaluate(model: str | None, out: tuple[Path, ...], others: tuple[Path, ...], fresh: bool, as_json: bool, **options: Any) -> None:
    """Benchmark scores of a model, by lm-eval and a generative probe. What was scored before is not asked again.

    \b
    Examples:
      replaceme evaluate --model demo --tasks demo,probe --limit 2
      replaceme evaluate --model demo --tasks demo --limit 2 --export scores.md --export results_demo.json
    """
    from replaceme_core.evaluation import harness_files

    if model is None and not others:
        raise click.UsageError("Missing option '--model' (or --import for scores from elsewhere).")
    _require_endings(out)
    read = [harness_files.read(path) for path in others]
    systems: dict[str, Any] = {}
    for scores in [_scored(model, fresh, options), *read] if model is not None else read:
        systems[_free_name(scores.model, systems)] = scores
    for path in out:
        _export(path, systems)
    show(_data(systems), as_json, lambda: _lines(systems))


def _scored(model: str, fresh: bool, options: dict[str, Any]) -> Any:
    from replaceme_core.evaluation import evaluate as stage
    from replaceme_core.evaluation.suites import entries
    from replaceme_core.models import loading
    from replaceme_core.plans.defaults import tasks_for
    from replaceme_core.plans.plan import EvaluationSection, ModelSection

    asked = {key: value for key, value in options.items() if key not in ("dtype", "device")}
    section = EvaluationSection.parse(asked | {"tasks": asked["tasks"] or tasks_for(model)}, "the benchmarks")
    entries(section)  # what cannot be asked is told before the model is read
    bar = Bar()
    handle = loading.load(ModelSection(path=model, dtype=options["dtype"], device=options["device"]), bar)
    scores = stage.evaluate(handle, section, bar, reuse=not fresh)
    bar.close()
    return scores


def _free_name(name: str, taken: dict[str, Any]) -> str:
    return name if name not in taken else next(f"{name} ({i})" for i in range(2, len(taken) + 3) if f"{name} ({i})" not in taken)


def _require_endings(files: tuple[Path, ...]) -> None:
    for path in files:
        if path.suffix not in (".csv", ".tex", ".md", ".json"):
            raise EvaluationError(f"'{path}' ends in '{path.suffix}'; scores are written as .csv, .tex, .md or .json (lm-eval's layout).")


def _export(path: Path, systems: dict[str, Any]) -> None:
    """All systems as a table; as lm-eval's JSON the first one, with its samples beside it."""
    from replaceme_core.evaluation import harness_files, tables
    from replaceme_core.storage.cache import write_atomically

    first = next(iter(systems))
    if path.suffix == ".json":
        harness_files.write(systems[first], path)
        return
    try:
        write_atomically(path, tables.FORMATS[path.suffix](systems, first).encode())
    except OSError as error:
        raise EvaluationError(f"'{path}' cannot be written ({error.strerror}); choose a folder you may write to.") from error


def _data(systems: dict[str, Any]) -> dict[str, Any]:
    from replaceme_core.evaluation import tables
    from replaceme_core.evaluation.paired import paired_all

    first, *rest = systems
    data: dict[str, Any] = systems[first].to_data()
    if rest:
        data["others"] = [systems[name].to_data() | {"model": name} for name in rest]
        data["paired"] = {
            name: [{"task": task, **asdict(test)} for (task, _), test in paired_all(systems[first], systems[name]).items()] for name in rest
        }
        data["unequal"] = tables.unequal(systems)
    return data


def _lines(systems: dict[str, Any]) -> str:
    from replaceme_core.evaluation import tables

    lines, first = [], next(iter(systems))
    for name, scores in systems.items():
        lines += [f"{name}:"] if len(systems) > 1 else []
        for task in scores.shown:
            for metric, score in scores.results[task].items():
                stderr = "" if score.stderr is None else f" ± {score.stderr:.4f}"
                lines.append(f"{task:28} {metric:18} {score.value:9.4f}{stderr}  (n = {score.n})")
        lines += [] if scores.average is None else [f"average accuracy {scores.average:.4f}"]
        lines += [
            f"{task}: {cut} of {n} prompts were longer than the model reads and were cut." for task, (cut, n) in scores.truncated.items()
        ]
        warning = tables.doubtful_average(scores, scores.shown)
        lines += [warning] if warning else []
    for name in list(systems)[1:]:
        lines += ["", f"{name} against {first}:", *_paired_lines(systems[first], systems[name])]
    return "\n".join([*lines, *(tables.unequal(systems) if len(systems) > 1 else [])])


def _paired_lines(original: Any, other: Any) -> list[str]:
    from replaceme_core.evaluation.paired import paired_all

    tests = paired_all(original, other)
    if not tests:
        return ["no question-by-question answers to compare: give the samples files beside the results"]
    return [
        f"{task:28} {metric:18} {test.difference:+9.4f}  p = {test.p_value:.4f}, Holm {test.adjusted:.4f}  ({test.test}, n = {test.n}"
        + (f", {test.worse} worse, {test.better} better)" if test.test == "McNemar" else ")")
        for (task, metric), test in tests.items()
    ]
