"""`runs`: the history of runs and exports: lists them, compares some side by side, cleans up after crashes."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.options import JSON, show
from replaceme_core.export import runs as history

FOLDER = click.option("--folder", multiple=True, help="where to look; default: runs/ and exports/")


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def runs(ctx: click.Context, as_json: bool) -> None:
    """The history of runs and exports, the newest first: `runs` alone lists it.

    \b
    Examples:
      replaceme runs
      replaceme runs --json
      replaceme runs list --folder exports
      replaceme runs clean --yes
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(listing, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"give --json behind the name: runs {ctx.invoked_subcommand} --json")


@runs.command("list")
@FOLDER
@JSON
def listing(folder: tuple[str, ...] = (), as_json: bool = False) -> None:
    """What each run removed, by which method, and how far it is from the original."""
    found = sorted((run for each in folder or history.FOLDERS for run in history.list_runs(each)), key=lambda run: -run.modified)
    show([_plain(run) for run in found], as_json, lambda: "\n".join(map(_line, found)) or "no runs yet")


@runs.command("compare")
@click.argument("folders", nargs=-1, required=True)
@JSON
def comparing(folders: tuple[str, ...], as_json: bool) -> None:
    """Two or more runs side by side, and what their plans do not have in common.

    \b
    Examples:
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --out exports/a
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --method drop --out exports/b
      replaceme runs compare exports/a exports/b
    """
    if len(folders) < 2:
        raise click.UsageError("give at least two folders")
    found = [history.read_run(folder) for folder in folders]
    differ = history.differences(run.folder for run in found)
    show({"runs": [_plain(run) for run in found], "differences": differ}, as_json, lambda: _table(found, differ))


@runs.command("clean")
@FOLDER
@click.option("--healings", is_flag=True, help="also the checkpoints from which a stopped healing (training) would go on")
@click.option("--yes", is_flag=True, help="remove without asking")
@click.option("--dry-run", "dry", is_flag=True, help="only say what would be removed")
@JSON
def cleaning(folder: tuple[str, ...], healings: bool, yes: bool, dry: bool, as_json: bool) -> None:
    """Removes what killed processes left and runs that are damaged. What another process is writing stays.

    A folder that holds anything which no run writes, or no file that only a run writes, is never removed.
    """
    bases = folder or history.FOLDERS
    found = [pair for each in bases for pair in history.broken(each)]
    if healings:
        found += [(path, "checkpoint of a healing") for each in bases for path in history.checkpoints(each)]
    for path, reason in found:
        click.echo(f"{path}: {reason}", err=as_json)
    if found and not (yes or dry):
        click.confirm(f"remove {len(found)} folder(s)?", abort=True, err=True)
    gone = [] if dry else history.clean(path for path, _ in found)
    data = {"found": [{"folder": str(path), "reason": reason} for path, reason in found], "removed": [str(path) for path in gone]}
    show(data, as_json, lambda: f"{len(gone)} of {len(found)} removed" if found else "nothing to clean")


def _plain(run: history.RunSummary) -> dict[str, Any]:
    data = asdict(run) | {"folder": str(run.folder), "cut": str(run.cut), "when": _when(run), "n_removed": len(run.cut)}
    return data | {"span": [run.span.start, run.span.end]}


def _when(run: history.RunSummary) -> str:
    return datetime.fromtimestamp(run.modified).isoformat(sep=" ", timespec="minutes")


def _figures(run: history.RunSummary) -> dict[str, str]:
    """What is shown of a run, in words; empty where it is not known."""
    interval = f" [{run.kl_low:.4f}, {run.kl_high:.4f}]" if run.kl_low is not None and run.kl_high is not None else ""
    return {
        "removes": str(run.cut),
        "method": run.method,
        "healed (training)": "" if run.healed is None else f"held-out KL {run.healed:.4f}",
        "held-out error of the fit": f"{run.heldout_error:.4f}",
        "KL, nats per token [95 %]": "" if run.kl is None else f"{run.kl:.4f}{interval}",
        "perplexity": "" if run.perplexity is None else f"{run.perplexity:.3f}",
        "tokens of KL": "" if run.n_tokens is None else f"{run.n_tokens:,} {run.part or 'held-out'}",
        "average accuracy": "" if run.average is None else f"{run.average:.4f}",
        "when": _when(run),
    }


def _line(run: history.RunSummary) -> str:
    healed = ", healed (training)" if run.healed is not None else ""
    part = run.part or "held-out"
    quality = f"{part} KL {run.quality:.4f}" if run.quality is not None else f"held-out error {run.heldout_error:.4f}"
    return f"{_when(run)}  {run.folder!s:32} {run.cut!s:12} {run.method + healed:36} {quality}"


def _table(found: list[history.RunSummary], differ: dict[str, list[Any]]) -> str:
    columns = [_figures(run) for run in found]
    rows = [("", [str(run.folder) for run in found])]
    rows += [(name, [column[name] for column in columns]) for name in columns[0] if any(column[name] for column in columns)]
    rows += [("plan: " + key, ["" if value is None else str(value) for value in values]) for key, values in differ.items()]
    widths = [max(map(len, column)) for column in zip(*([name, *values] for name, values in rows), strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip([name, *values], widths, strict=True)).rstrip() for name, values in rows
    )


def default_folder(name: str) -> Path:
    """A new folder below runs/ with this name, or with a number behind it."""
    base, number = Path(history.FOLDERS[0]) / name, 2
    found = base
    while found.exists():
        found, number = base.with_name(f"{base.name}-{number}"), number + 1
    return found
