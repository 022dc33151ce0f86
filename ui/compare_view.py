"""The parts of the Compare page: generation in columns, token differences, held-out figures."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from ui import merge_view, words
from ui.chart_style import show
from ui.job_panel import has_active_job, show_job
from ui.layout import split
from ui.model_form import amount, gib
from ui.palette import palette
from ui.ruler import ruler
from ui.score_charts import interval_chart, kl_chart, system_colours, token_strip
from ui.scoring import measure_quality
from ui.state import Generation, Studio
from ui.work import ORIGINAL, systems

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle

_MOST = 3
_PROMPT = "Once upon a time"


def ask_variants(state: Studio, place: str) -> list[str]:
    """Which variants are set beside the original and the cut; the newest by default."""
    names = list(state.variants)
    if len(names) == 1:
        return names
    key = f"variants_{place}"
    kept = [name for name in st.session_state.get(key, []) if name in names]
    if key in st.session_state:
        st.session_state[key] = kept or names[-1:]
    chosen = st.multiselect(
        "Variants to set beside the original",
        names,
        default=None if key in st.session_state else names[-1:],
        max_selections=_MOST,
        key=key,
        persist_state="session",
    )
    return chosen or names[-1:]


def columns_of(state: Studio, names: list[str]) -> "dict[str, ModelHandle]":
    """Name -> model of every column, with the ruler of the first variant above."""
    columns = systems(state, names)
    resident = state.resident
    if resident is not None and names:
        span = state.variants[names[0]].transform.cut
        ruler(resident.handle.n_blocks, span.blocks, f"{names[0]}: {span.describe(resident.handle.n_blocks)}")
        merge_view.held_note(state)
    return columns


def generate(state: Studio, columns: "dict[str, ModelHandle]") -> None:
    """The prompt and what every column writes, streamed in turns."""
    with st.form("prompt_form", border=False):
        prompt = st.text_area("Prompt", value=state.generation.prompt if state.generation else default_prompt(state), height=80)
        length, temperature, seed = st.columns([2, 2, 1], vertical_alignment="bottom")
        settings = {
            "max_new_tokens": length.slider("Tokens to write", 8, 200, 40, key="gen_length", persist_state="session"),
            "temperature": temperature.slider(
                "Chance (temperature)", 0.0, 1.5, 0.0, 0.1, key="gen_temperature", persist_state="session", help=words.DRAW_SETTINGS_HELP
            ),
            "seed": seed.number_input("Seed", 0, 9999, 0, key="gen_seed", persist_state="session"),
        }
        asked = st.form_submit_button("Write", type="primary", icon=":material/edit:")
    slots = _slots(columns)
    if asked:
        state.generation = Generation(prompt, settings, dict.fromkeys(columns, ""))
        _write(state.generation, columns, slots)
    elif state.generation:
        for name, slot in slots.items():
            slot.text(state.generation.texts.get(name, "not written yet: press Write"))
    else:
        for slot in slots.values():
            slot.caption("Press Write to see what it says.")


def default_prompt(state: Studio) -> str:
    """The prompt of the address; else the opening words of a held-out calibration text: something this model can continue."""
    if state.prompt:
        return state.prompt
    if state.calibration is None:
        return _PROMPT
    text = state.calibration.previews[0]
    opening = text[: max(30, min(160, len(text) // 2))]
    return opening.rsplit(maxsplit=1)[0] if " " in opening.strip() else opening


def _slots(columns: "dict[str, ModelHandle]") -> dict[str, "st.delta_generator.DeltaGenerator"]:
    shades, slots = system_colours(list(columns), palette()), {}
    for column, name in zip(st.columns(len(columns), border=True), columns, strict=True):
        with column:
            st.html(f'<div style="border-left:5px solid {shades[name]};padding-left:8px;font-weight:600">{name}</div>')
            slots[name] = st.empty()
    return slots


def _write(generation: Generation, columns: "dict[str, ModelHandle]", slots: "dict[str, st.delta_generator.DeltaGenerator]") -> None:
    """One token per system in turn, so that all columns grow together."""
    from replaceme_core import compare

    streams = {name: compare.stream(handle, generation.prompt, **generation.settings) for name, handle in columns.items()}
    while streams:
        for name in list(streams):
            piece = next(streams[name], None)
            if piece is None:
                del streams[name]
                continue
            generation.texts[name] += piece
            slots[name].text(generation.texts[name])
    generation.finished = True


def differences(state: Studio, columns: "dict[str, ModelHandle]") -> None:
    """The original's text as the other systems read it: where their next-token probabilities part."""
    made = state.generation
    if made is None or not made.finished or ORIGINAL not in made.texts:
        return
    from replaceme_core import compare

    st.markdown("### Where do they part?")
    st.caption(
        "The prompt and what the original wrote, read by each system. Shade: KL at that token. Hover to see what each would have said."
    )
    text = made.prompt + made.texts[ORIGINAL]
    original, colours, rows = columns[ORIGINAL], palette(), []
    shades = system_colours(list(columns), colours)
    for name, handle in columns.items():
        if name == ORIGINAL:
            continue
        key = f"{handle.fingerprint}"
        if key not in made.differences:
            made.differences[key] = compare.token_differences(original, handle, text)
        found = made.differences[key]
        colour = shades[name]
        st.html(
            f'<div style="font-weight:600;color:{colour}">{name}: mean KL {sum(item.kl for item in found) / len(found):.3f} over {len(found)} tokens</div>'
            + token_strip(found, colour, colours)
        )
        rows += [{"position": at, "token": item.token, "system": name, "kl": item.kl} for at, item in enumerate(found)]
    if rows:
        show(kl_chart(pd.DataFrame(rows), list(columns)[1:], colours))


def quality(state: Studio, columns: "dict[str, ModelHandle]") -> None:
    """Perplexity, KL, agreement, speed and size of every column."""
    st.markdown("### What does held-out text say?")
    st.caption(words.HELDOUT_HELP)
    source, tokens, button = split("heldout", [3, 2, 2], "bottom")
    texts = source.selectbox(
        "Held-out text",
        ["calibration", "demo"],
        format_func=_TEXTS.get,
        key="held_source",
        persist_state="session",
        index=0 if _foreign(state) else 1,
    )
    n_tokens = tokens.select_slider("Tokens", [512, 1024, 2048, 4096, 8192], value=2048, key="held_tokens", persist_state="session")
    wanted = {f"{handle.fingerprint} {texts} {n_tokens}" for handle in columns.values()}
    done = wanted <= state.divergences.keys()
    if button.button(
        "Measure on held-out text",
        type="primary" if state.generation and not done else "secondary",
        disabled=has_active_job(state) or done,
        width="stretch",
    ):
        measure_quality(state, columns, texts, n_tokens)
        st.rerun()
    if has_active_job(state):
        show_job(state, large=True)
    found = {name: state.divergences.get(f"{handle.fingerprint} {texts} {n_tokens}") for name, handle in columns.items()}
    shown = {name: row for name, row in found.items() if row is not None}
    if shown:
        _figures(state, columns, shown)


_TEXTS = {"calibration": "held-out part of the calibration set", "demo": "the demo's held-out documents"}


def _foreign(state: Studio) -> bool:
    resident = state.resident
    return resident is None or resident.section.path != "demo"


def _figures(state: Studio, columns: "dict[str, ModelHandle]", shown: dict) -> None:
    colours, names = palette(), list(columns)
    left, right = split("figures", [1, 1])
    rows = [
        {"system": name, "value": row.perplexity, "low": row.perplexity_low, "high": row.perplexity_high} for name, row in shown.items()
    ]
    show(interval_chart(pd.DataFrame(rows), names, "perplexity (lower is better)", colours), left)
    rows = [{"system": name, "value": row.kl, "low": row.kl_low, "high": row.kl_high} for name, row in shown.items() if name != ORIGINAL]
    if rows:
        show(interval_chart(pd.DataFrame(rows), names, "KL to the original (nats per token)", colours), right)
    table = []
    for name, row in shown.items():
        handle, speed = columns[name], state.speeds.get(columns[name].fingerprint)
        table.append(
            {
                "system": name,
                "perplexity": f"{row.perplexity:.2f} ({row.perplexity_low:.2f}–{row.perplexity_high:.2f})",
                "KL": f"{row.kl:.3f}",
                "agreement": f"{row.agreement:.1%}",
                "tokens/s": f"{speed.decode_tokens_per_s:.0f}" if speed else "–",
                "prompt of 128, ms": f"{speed.prefill_ms:.1f}" if speed else "–",
                "parameters": amount(handle.n_parameters),
                "memory": gib(handle.n_bytes),
            }
        )
    st.dataframe(table, hide_index=True)
    first = next(iter(shown.values()))
    st.caption(
        f"{first.n_tokens:,} tokens in {first.n_sequences} sequences that the fit did not see. Speed: median of 5 on this machine, one text at a time."
    )
