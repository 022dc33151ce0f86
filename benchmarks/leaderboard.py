"""The field's methods and ours on the demo model at 12.5, 25, 37.5 and 50 % of the depth: the table in README.md.

    python -m benchmarks.leaderboard run                  # benchmarks/leaderboard.jsonl; what is there is not run again
    python -m benchmarks.leaderboard table --write        # the table, and which baseline wins where, into README.md

`run --training` adds the optional rows, which train (deep refit, healing).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import re
from pathlib import Path
from statistics import median
from typing import Any

import click

from replaceme_core.calibration.calibration import prepare
from replaceme_core.cli.bar import Bar
from replaceme_core.comparison import compare
from replaceme_core.models import loading
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection
from replaceme_core.studies.leaderboard import contestants
from replaceme_core.studies.leaderboard import run as leaderboard
from replaceme_core.studies.leaderboard.run import ORIGINAL, Aim

HERE = Path(__file__).resolve().parent
OUT, README = HERE / "leaderboard.jsonl", HERE.parent / "README.md"
BEGIN, END = "<!-- leaderboard: python -m benchmarks.leaderboard table --write -->", "<!-- leaderboard end -->"
SHARES = (0.125, 0.25, 0.375, 0.5)
TOKENS, HELDOUT, LIMIT = 8192, 4096, 50
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
    leaderboard.run(handle, calibration, compare.heldout_sequences(handle, HELDOUT), aim, out, bar)
    bar.close()


@main.command()
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--write", is_flag=True, help="between the marks of README.md; else on standard output")
def table(out: Path, write: bool) -> None:
    """The table in Markdown, and what it says."""
    rows = list({(row["method"], row["n_removed"]): row for row in leaderboard.read(out) if "error" not in row}.values())
    text = "\n".join([*_table(rows), "", *said(rows)])
    if not write:
        click.echo(text)
        return
    old = README.read_text(encoding="utf-8")
    README.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", old, flags=re.DOTALL), encoding="utf-8")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """A row for each method, a column for each depth: share kept with its interval, and KL."""
    lengths = sorted({row["n_removed"] for row in rows if row["n_removed"]})
    by = {(row["method"], row["n_removed"]): row for row in rows}
    n_blocks = next(round(row["n_removed"] / row["share"]) for row in rows if row["share"] == 0.25)
    names = [row.name for row in contestants.table() if any((row.name, n) in by for n in lengths)]
    gone = {n: by["drop", n]["share_removed"] for n in lengths}
    depths = " | ".join(f"{n} of {n_blocks} blocks ({gone[n]:.1%} of the parameters)" for n in lengths)
    head = f"| method | {depths} | seconds to prune | trains |"
    lines = [head, "|---" * (len(lengths) + 3) + "|"]
    kinds = [[row for row in rows if row["n_removed"] == n and row["training"] == trains] for n in lengths for trains in (False, True)]
    best = {min(row["kl"] for row in kind) for kind in kinds if len(kind) > 1}
    for name in names:
        own = [by.get((name, n)) for n in lengths]
        cells = " | ".join("" if row is None else _cell(row, row["kl"] in best) for row in own)
        seconds = [row["seconds"] for row in own if row is not None]
        low, high = (f"{value:.0f}" for value in (min(seconds), max(seconds)))
        span = low if low == high else f"{low}–{high}"
        first = next(row for row in own if row is not None)
        title = f"{first['title']}{'' if first['plain'] else ' ¹'}"
        lines.append(
            f"| {'*' + title + '*' if first['group'] == 'field' else title} | {cells} | {span} | {'yes' if first['training'] else ''} |"
        )
    return lines


def _cell(row: dict[str, Any], best: bool) -> str:
    half = 100 * (row["kept_high"] - row["kept_low"]) / 2
    kl = f"{row['kl']:.3f}"
    return f"{100 * row['kept']:.0f} ± {half:.0f} %, {f'**{kl}**' if best else kl}"


def said(rows: list[dict[str, Any]]) -> list[str]:
    """What the table is made of, and plainly where a baseline wins."""
    original = next(row for row in rows if row["method"] == ORIGINAL)
    settings, lengths = original["settings"], sorted({row["n_removed"] for row in rows if row["n_removed"]})
    lines = [
        f"Each cell: share of the original's benchmark average that is kept (half of the paired 95 % interval; n = {original['n_items']:,} "
        f"questions, {original['average']:.1%} right before), and KL to the original in nats per token on {settings['heldout_tokens']:,} "
        f"held-out tokens; in bold the least KL of the methods that do not train, and of those that do. Methods of the field in italics. Calibrated on {settings['calibration_tokens']:,} tokens; "
        "one seed; seconds on a busy two-core CPU, one thread. Intervals of the KL, times and memory are in `benchmarks/leaderboard.jsonl`.",
        "",
    ]
    if any(not row["plain"] for row in rows):
        lines[0] += f" ¹ stays in memory and removes {_kept_share(rows)} % fewer parameters: each replaced block keeps a matrix."
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
    """By how many percent a result with layers of its own removes less than a plain one."""
    own = next(row for row in rows if not row["plain"])
    plain = next(row for row in rows if row["plain"] and row["n_removed"] == own["n_removed"])
    return round(100 * (1 - own["parameters_removed"] / plain["parameters_removed"]))


if __name__ == "__main__":
    main()
