"""The field's methods and ours on the demo model at 12.5, 25, 37.5 and 50 % of the depth: docs/results/leaderboard.md, six rows in README.md.

    python -m benchmarks.leaderboard run                  # benchmarks/leaderboard.jsonl; what is there is not run again
    python -m benchmarks.leaderboard table                # the whole table, and which baseline wins where
    python -m benchmarks.leaderboard table --write        # the six rows into README.md; `make docs` makes the whole table by itself

`run --training` adds the optional rows, which train (deep refit, healing).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import re
from pathlib import Path
from statistics import median
from typing import Any

import click

from replaceme_core.calibration.calibration import documents, prepare
from replaceme_core.cli.bar import Bar
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection
from replaceme_core.studies.leaderboard import contestants
from replaceme_core.studies.leaderboard import run as leaderboard
from replaceme_core.studies.leaderboard.run import ORIGINAL, Aim

HERE = Path(__file__).resolve().parent
OUT, README = HERE / "leaderboard.jsonl", HERE.parent / "README.md"
BEGIN, END = "<!-- leaderboard: python -m benchmarks.leaderboard table --write -->", "<!-- leaderboard end -->"
SHARES = (0.125, 0.25, 0.375, 0.5)
TOKENS, TEST, LIMIT = 8192, 4096, 50
SHORT, SHORT_DEPTHS = ("drop", "least_squares", "cosine", "exchange_refit", "sequential_refit", "llm_pruner"), (3, 6)
"""rows and depths of the README: nothing fitted, the paper's two fits, what the app recommends, the best of ours and the best of the field's, of those that do not train"""
BASE = "cosine"
"""the paper's own best, which a baseline has to beat"""
STRONGEST = "sequential_refit"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--methods", help="names, separated by commas; default: all that are not optional")
@click.option("--training", is_flag=True, help="also the optional rows, which train")
def run(out: Path, methods: str | None, training: bool) -> None:
    """Makes the rows that are not in the file yet."""
    chosen = contestants.find(methods.split(",") if methods else None, training)
    bar = Bar()
    handle = loading.load(ModelSection(path="demo"), bar)
    calibration = prepare(CalibrationSection(max_tokens=TOKENS), handle.tokenizer)
    aim = Aim(tuple(chosen), SHARES, EvaluationSection(limit=LIMIT))
    leaderboard.run(handle, calibration, documents(handle.tokenizer, TEST), aim, out, bar)
    bar.close()


@main.command()
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--write", is_flag=True, help="six rows, between the marks of README.md; else the whole table on standard output")
def table(out: Path, write: bool) -> None:
    """The table in Markdown, and what it says."""
    if not write:
        click.echo(full(out))
        return
    old = README.read_text(encoding="utf-8")
    README.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{short(out)}\n{END}", old, flags=re.DOTALL), encoding="utf-8")


def full(path: Path) -> str:
    """The whole table, what it is made of, and where a baseline wins."""
    rows = made(path)
    return "\n".join([*_table(rows, [row.name for row in contestants.table()], _lengths(rows)), "", *said(rows)])


def short(path: Path) -> str:
    """The table of the README."""
    return "\n".join(_table(made(path), list(SHORT), list(SHORT_DEPTHS)))


def made(path: Path) -> list[dict[str, Any]]:
    """The rows of the file that have figures; of two for one place the later."""
    return list({(row["method"], row["n_removed"]): row for row in leaderboard.read(path) if "error" not in row}.values())


def _lengths(rows: list[dict[str, Any]]) -> list[int]:
    return sorted({row["n_removed"] for row in rows if row["n_removed"]})


def _table(rows: list[dict[str, Any]], names: list[str], lengths: list[int]) -> list[str]:
    """A row for each method, a column for each depth: relative accuracy with its interval, and KL."""
    by, titles = {(row["method"], row["n_removed"]): row for row in rows}, {row.name: row.title for row in contestants.table()}
    n_blocks = next(round(row["n_removed"] / row["share"]) for row in rows if row["share"] == 0.25)
    gone = {n: by["drop", n]["share_removed"] for n in lengths}
    depths = " | ".join(f"{n} of {n_blocks} blocks ({gone[n]:.1%} of the parameters)" for n in lengths)
    lines = [f"| method | {depths} | seconds to prune |", "|---" * (len(lengths) + 2) + "|"]
    kinds = [[row for row in rows if row["n_removed"] == n and row["training"] == trains] for n in lengths for trains in (False, True)]
    best = {min(row["kl"] for row in kind) for kind in kinds if len(kind) > 1}
    for name in names:
        own = [by.get((name, n)) for n in lengths]
        done = [row for row in own if row is not None]
        if done:
            cells = " | ".join("" if row is None else _cell(row, row["kl"] in best) for row in own)
            title = f"{titles[name]}{'' if done[0]['plain'] else ' ¹'}"
            title = f"*{title}*" if done[0]["group"] == "field" else title
            lines.append(f"| {title}{' [trains]' if done[0]['training'] else ''} | {cells} | {_seconds(done)} |")
    return lines


def _seconds(rows: list[dict[str, Any]]) -> str:
    """The least and the most over the depths."""
    low, high = (f"{pick(row['seconds'] for row in rows):.0f}" for pick in (min, max))
    return low if low == high else f"{low}–{high}"


def _cell(row: dict[str, Any], best: bool) -> str:
    half = 100 * (row["kept_high"] - row["kept_low"]) / 2
    kl = f"{row['kl']:.3f}"
    return f"{100 * row['kept']:.0f} ± {half:.0f} %, {f'**{kl}**' if best else kl}"


def said(rows: list[dict[str, Any]]) -> list[str]:
    """What the table is made of, and plainly where a baseline wins."""
    original = next(row for row in rows if row["method"] == ORIGINAL)
    settings, lengths = original["settings"], _lengths(rows)
    lines = [
        f"Each cell: relative accuracy, the benchmark average as a share of the original's (± half of the paired 95 % interval; n = {original['n_items']:,} "
        f"questions, {original['average']:.1%} right before), and KL to the original in nats per token on {settings.get('test_tokens', settings.get('heldout_tokens')):,} "
        f"tokens of test documents; in bold the least KL of the methods that do not train, and of those that do. Methods of the field in italics. Calibrated on {settings['calibration_tokens']:,} tokens; "
        "one seed; seconds on one core of a CPU that did other work. Intervals of the KL, times and memory are in `benchmarks/leaderboard.jsonl`.",
        "",
    ]
    if any(row["method"] == "secretly_linear" for row in rows):
        lines[0] += (
            " ¹ stays in memory, because no plain configuration describes it; Secretly linear keeps a matrix for each block that it replaces, "
            f"and so removes {_kept_share(rows)} % fewer parameters."
        )
    lines[0] += _costs(rows, lengths)
    for n in lengths:
        here = [row for row in rows if row["n_removed"] == n]
        base, ours = (next((row for row in here if row["method"] == name), None) for name in (BASE, STRONGEST))
        if base is None or ours is None:
            continue
        beating = [row for row in here if row["group"] == "field" and row["kl"] < base["kl"]]
        winning = [row for row in beating if row["kl"] < ours["kl"]]
        names = ", ".join(f"{_titled(row)} ({row['kl']:.3f})" for row in sorted(beating, key=lambda row: row["kl"])) or "none"
        end = f"; below the sequential refit ({ours['kl']:.3f}): {', '.join(map(_titled, winning)) or 'none'}."
        lines.append(f"- {n} blocks: of the field, below the paper's cosine fit ({base['kl']:.3f}) in KL: {names}{end}")
    return lines


def _titled(row: dict[str, Any]) -> str:
    return row["title"] + (" [trains]" if row["training"] else "")


def _costs(rows: list[dict[str, Any]], lengths: list[int]) -> str:
    """Time and memory hang on the number of blocks, not on the method: the median over the plain results."""
    plain = {n: [row for row in rows if row["n_removed"] == n and row["plain"]] for n in lengths}
    faster = ", ".join(f"{median(row['ms_per_token_original'] / row['ms_per_token'] for row in own):.2f}" for own in plain.values())
    sizes = ", ".join(f"{own[0]['bytes'] / 2**20:.1f}" for own in plain.values())
    whole = next(row for row in rows if row["method"] == ORIGINAL)
    return (
        f" A token takes the same for all methods that cut as many blocks: {faster} times as fast as the original, timed in turns with it "
        f"(medians; a busy machine); weights {sizes} MiB of {whole['bytes'] / 2**20:.1f}."
    )


def _kept_share(rows: list[dict[str, Any]]) -> int:
    """By how many percent a result that keeps matrices in the place of blocks removes less than a plain one."""
    own = next(row for row in rows if row["method"] == "secretly_linear")
    plain = next(row for row in rows if row["plain"] and row["n_removed"] == own["n_removed"])
    return round(100 * (1 - own["parameters_removed"] / plain["parameters_removed"]))


if __name__ == "__main__":
    main()
