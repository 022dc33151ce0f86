"""`leaderboard`: the field's methods and this project's on one model, at equal shares of the depth."""

from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, calibrated, loaded, measured_by, show
from replaceme_core.errors import InputError


@click.command()
@measured_by
@click.option("--list", "only_list", is_flag=True, help="only name the methods, with their papers; loads nothing")
@click.option("--methods", help="names from --list, separated by commas; default: all that are not optional")
@click.option("--training/--no-training", default=False, show_default=True, help="also the optional rows, which train: deep refit, healing")
@click.option("--shares", default="0.25", show_default=True, help="shares of the blocks to remove, separated by commas")
@click.option("--tasks", help="as for evaluate, with its default; 'none' leaves the benchmarks out")
@click.option("--limit", type=click.IntRange(1), help="items per task")
@click.option(
    "--test-tokens",
    "--heldout-tokens",
    default=4096,
    show_default=True,
    type=click.IntRange(2),
    help="of the demo's documents; other models: of further calibration texts, which no method reads",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="file of finished rows (JSON lines); a stopped run goes on there"
)
@JSON
def leaderboard(only_list: bool, methods: str | None, training: bool, as_json: bool, **options: Any) -> None:
    """Every method on one model: quality with intervals, parameters, time, memory, seconds to prune.

    \b
    Examples:
      replaceme leaderboard --list
      replaceme leaderboard --model demo --methods drop,uidl --tasks none --max-tokens 2048 --heldout-tokens 512
    """
    from replaceme_core.studies.leaderboard import contestants

    names = [name.strip() for name in methods.split(",")] if methods else None
    if only_list:
        rows = [row.to_data() for row in (contestants.table() if names is None else contestants.find(names))]
        show(rows, as_json, lambda: "\n".join(map(_described, rows)))
        return
    found = _run(tuple(contestants.find(names, training)), options)
    shown = [{key: value for key, value in row.items() if key != "answers"} for row in found]
    show(shown, as_json, lambda: "\n".join(_lines(found)))


# `--list` needs no model
next(option for option in leaderboard.params if option.name == "model").required = False


def _run(chosen: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    from replaceme_core.comparison.texts import comparison_text
    from replaceme_core.plans.defaults import tasks_for
    from replaceme_core.plans.plan import EvaluationSection
    from replaceme_core.studies import planner
    from replaceme_core.studies.leaderboard import run as stage

    if options["model"] is None:
        raise InputError("Name a model: --model demo, a folder, or a Hugging Face id. (--list needs none.)")
    tasks = options["tasks"] or tasks_for(options["model"])
    evaluation = None if tasks == "none" else EvaluationSection(tasks=tasks, limit=options["limit"])
    aim = stage.Aim(chosen, _shares(options["shares"]), evaluation, options["seed"])
    beside = 0 if options["model"] == "demo" else options["test_tokens"]  # the demo has documents of its own
    plan, handle = loaded(options | {"test_tokens": beside})
    planner.require_comparable(handle)
    tokens, _none = calibrated(plan, handle, None, passes=False)
    text = comparison_text(handle, options["model"], tokens, options["test_tokens"])
    bar = Bar()
    rows = stage.run(handle, tokens, text, aim, options["out"], bar)
    bar.close()
    return rows


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"'{text}' is not a list of shares; write numbers between 0 and 1, for example 0.125,0.25.") from None


def _described(row: dict[str, Any]) -> str:
    marks = ["trains"] * row["training"] + ["stays in memory"] * (not row["plain"]) + ["optional"] * row["optional"]
    paper = f"arXiv {row['arxiv']}" if row["arxiv"] else row["reference"]
    return f"{row['method']:30} {row['kind']:6} {paper:18} {row['description']}{' (' + ', '.join(marks) + ')' if marks else ''}"


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """One line per row; the settings, which hold for all, at the end."""
    lines = [
        f"{'method':30} {'blocks':>6} {'parameters':>11} {'rel. accuracy [95 %]':>24} {'KL [95 %]':>26} {'perplexity':>10} "
        f"{'ms/token':>8} {'MiB':>7} {'seconds':>8}  trains"
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['method']:30} {-row['n_removed']:>6} {row['error']}")
            continue
        lines.append(
            f"{row['method']:30} {-row['n_removed']:>6} {-row['share_removed']:>11.1%} {_interval(row, 'kept', '.1%'):>24} "
            f"{_interval(row, 'kl', '.4f'):>26} {row.get('perplexity', float('nan')):>10.3f} {row['ms_per_token']:>8.2f} "
            f"{row['bytes'] / 2**20:>7.1f} {row['seconds']:>8.1f}  {'yes' if row['training'] else ''}"
        )
    settings = rows[0]["settings"]
    items = f"{rows[0]['n_items']:,} benchmark items" if "n_items" in rows[0] else "no benchmarks"
    lines.append(
        f"{items}; KL in nats per token on {settings['test_tokens']:,} {settings['part']} tokens of {settings['text']}; calibrated on "
        f"{settings['calibration_tokens']:,} tokens of {settings['calibration']}; seconds are those to prune, on {rows[0]['device']}"
    )
    return lines


def _interval(row: dict[str, Any], name: str, form: str) -> str:
    from replaceme_core.comparison.intervals import bracketed

    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    return "-" if value is None else bracketed(value, low, high, form)
