"""What benchmarks/real_table.py compares: the leaderboard's methods, the paper's pipeline whole, two spans, and what training afterwards gives."""

from dataclasses import replace
from typing import Any

from replaceme_core.artifacts import Span
from replaceme_core.selection import sinks, spans
from replaceme_core.studies.leaderboard import contestants
from replaceme_core.studies.leaderboard.contestants import Contestant, Setting

HEALED_TOKENS = 512
"""of a step of healing: four times as many take more than an hour for this model on one core"""


def least(setting: Setting, n_blocks: int) -> Span:
    """The paper's choice: least cosine distance, whatever it does to a sink."""
    return spans.best(setting.measured.distances["all"], n_blocks)


def apart(setting: Setting, n_blocks: int) -> Any:
    """The two spans of least summed distance among those that keep the sink."""
    return spans.several(sinks.kept(setting.measured), n_blocks, 2)


def _own(name: str, title: str, method: str, where: Any) -> Contestant:
    return Contestant(name, title, "ours", "", "", "", contestants.of_method(method, where))


def systems() -> list[Contestant]:
    """The leaderboard's, and the paper's pipeline whole: its place as well as its fit."""
    two = [
        _own("two_spans", "two spans, weighted least squares", "weighted_least_squares", apart),
        _own("two_spans_refit", "two spans, refit around the cut", "local_refit", apart),
        _own("two_spans_exchange", "two spans, refit with exchanged neurons", "exchange_refit", apart),
    ]
    paper = [
        _own("paper_drop", "removed at the least distance", "drop", least),
        _own("paper", "the paper's place and least squares", "least_squares", least),
        _own("paper_cosine", "the paper's place and cosine", "cosine", least),
    ]
    ours, field = ([row for row in contestants.find(None) if row.group == group] for group in ("ours", "field"))
    after = [
        replace(
            _own(f"{name}_healed", f"{title}, healed", name, contestants.place),
            make=contestants.healed(name, HEALED_TOKENS), training=True, optional=True,
        )
        for name, title in (("drop", "removed"), ("least_squares", "least squares"), ("local_refit", "refit around the cut"))
    ]  # fmt: skip
    return [*ours, *paper, *two, *field, *after]
