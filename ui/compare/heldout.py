"""What does held-out text say? Perplexity and KL with intervals, speed and memory as measured, every system beside the others."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from ui.compare import words as say
from ui.compare.systems import Systems
from ui.look.chart_style import show
from ui.look.layout import split
from ui.look.palette import palette
from ui.model.form import amount, gib
from ui.parts.intervals import interval_chart
from ui.parts.job_panel import has_active_job, show_job
from ui.session.heldout import measure_quality, quality_key
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.comparison.compare import Divergence, Speed

_TEXTS = {"calibration": "held-out part of the calibration set", "demo": "the demo's held-out documents"}


def heldout(state: Studio, found: Systems) -> None:
    """The settings, the job, and everything that was measured under these settings."""
    st.markdown("### What does held-out text say?")
    st.caption(say.HELDOUT.format(reference=found.reference))
    source, tokens, button = split("heldout", [3, 2, 2], "bottom")
    texts = source.selectbox(
        "Held-out text", list(_TEXTS), format_func=_TEXTS.get, key="held_source", persist_state="session", index=0 if _foreign(state) else 1
    )
    n_tokens = tokens.select_slider("Tokens", [512, 1024, 2048, 4096, 8192], value=2048, key="held_tokens", persist_state="session")
    base = found.handles[found.reference]
    keys = {name: quality_key(base, handle, texts, n_tokens) for name, handle in found.handles.items()}
    done = state.divergences.keys() >= set(keys.values())
    if button.button(
        "Measure on held-out text",
        type="primary" if state.generation and not done else "secondary",
        disabled=has_active_job(state) or done,
        width="stretch",
        help="Everything for these settings is measured." if done else None,
    ):
        measure_quality(state, found.handles, texts, n_tokens, found.reference)
        st.rerun()
    if has_active_job(state):
        show_job(state, large=True)
    shown = {name: state.divergences[key] for name, key in keys.items() if key in state.divergences}
    if shown:
        _figures(state, found, shown)


def _foreign(state: Studio) -> bool:
    resident = state.resident
    return resident is None or resident.section.path != "demo"


def _figures(state: Studio, found: Systems, shown: "dict[str, Divergence]") -> None:
    speeds = {name: state.speeds[handle.fingerprint] for name, handle in found.handles.items() if handle.fingerprint in state.speeds}
    left, right = split("quality", [1, 1])
    rows = [_dot(name, row.perplexity, row.perplexity_low, row.perplexity_high) for name, row in shown.items()]
    _chart(found, rows, "perplexity (lower is better)", left)
    rows = [_dot(name, row.kl, row.kl_low, row.kl_high) for name, row in shown.items() if name != found.reference]
    _chart(found, rows, f"KL from '{found.reference}' (nats per token)", right)
    if speeds:
        left, right = split("speed", [1, 1])
        rows = [_dot(name, row.decode_tokens_per_s, *row.decode_range) for name, row in speeds.items()]
        _chart(found, rows, "tokens written per second (more is better)", left)
        rows = [_dot(name, row.prefill_ms, *row.prefill_range) for name, row in speeds.items()]
        _chart(found, rows, "reading the prompt, ms (less is better)", right)
    st.dataframe([_row(found, name, row, speeds.get(name)) for name, row in shown.items()], hide_index=True)
    first = next(iter(shown.values()))
    st.caption(
        f"{first.n_tokens:,} tokens in {first.n_sequences} sequences that the fit did not see. {say.RATIO_HELP.format(reference=found.reference)}"
    )
    if speeds:
        st.caption(_speed_note(next(iter(speeds.values())), next(iter(found.handles.values())).dtype))


def _dot(name: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {"system": name, "value": value, "low": low, "high": high}


def _chart(found: Systems, rows: list[dict[str, Any]], title: str, place: Any) -> None:
    if rows:
        told = "; ".join(f"{row['system']} {row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})" for row in rows)
        show(interval_chart(pd.DataFrame(rows), found.names, title, palette()), place, alt=f"{title}: {told}")


def _row(found: Systems, name: str, row: "Divergence", speed: "Speed | None") -> dict[str, str]:
    """The figures of one system, for the table that says in words what the charts show."""
    handle = found.handles[name]
    is_reference = name == found.reference
    ratio = "–" if is_reference or row.ratio is None else f"×{row.ratio:.3f} ({row.ratio_low:.3f}–{row.ratio_high:.3f})"
    return {
        "system": f"{name} (reference)" if is_reference else name,
        "perplexity": f"{row.perplexity:.2f} ({row.perplexity_low:.2f}–{row.perplexity_high:.2f})",
        "against the reference": ratio,
        "KL": "–" if is_reference else f"{row.kl:.3f} ({row.kl_low:.3f}–{row.kl_high:.3f})",
        "agreement": "–" if is_reference else f"{row.agreement:.1%}",
        "tokens/s": f"{speed.decode_tokens_per_s:.0f} ({speed.decode_range[0]:.0f}–{speed.decode_range[1]:.0f})" if speed else "–",
        "prompt, ms": f"{speed.prefill_ms:.1f} ({speed.prefill_range[0]:.1f}–{speed.prefill_range[1]:.1f})" if speed else "–",
        "parameters": amount(handle.n_parameters),
        "weights": gib(handle.n_bytes),
        "attention cache": gib(speed.cache_bytes) if speed else "–",
    }


def _speed_note(speed: "Speed", dtype: str) -> str:
    return (
        f"Speed, measured here: median of {speed.repeats} runs, the systems in turns (least–greatest), one text at a time: a prompt of "
        f"{speed.prompt_tokens} random tokens, then {speed.new_tokens} written. On {speed.device}, {dtype}. Weights and attention cache "
        f"(after {speed.prompt_tokens + speed.new_tokens} tokens) are counted from the tensors in memory."
    )
