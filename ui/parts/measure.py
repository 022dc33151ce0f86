"""What several studies ask: which shares of the depth, and how much test text."""

from typing import Any

_SHARES = (0.125, 0.25, 0.375, 0.5)
_TOKENS = (512, 1024, 2048, 4096, 8192)


def ask_shares(place: Any, n_blocks: int, study: str, default: list[float] | None, help: str) -> list[float]:
    """Shares of the depth, each with its number of blocks; `default` None: all of them."""
    from replaceme_core.selection import spans

    found: list[float] = place.multiselect(
        "Shares of the depth",
        _SHARES,
        default=_SHARES if default is None else default,
        format_func=lambda share: f"{share:.1%}".replace(".0%", "%") + f" ({spans.length_of_share(n_blocks, share)})",
        key=f"{study}_shares_{n_blocks}",
        persist_state="session",
        help=f"{help} In brackets: blocks.",
    )
    return found


def ask_tokens(place: Any, key: str, value: int, label: str = "Test tokens", help: str | None = None) -> int:
    """How many tokens of the test part a figure is measured on."""
    found: int = place.select_slider(label, _TOKENS, value=value, key=key, persist_state="session", help=help)
    return found
