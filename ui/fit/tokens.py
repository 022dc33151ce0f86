"""Which held-out tokens a fit rebuilds badly: one text as a strip, the worst tokens in their context, and the words they are."""

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from ui.fit import words
from ui.fit.token_strip import shown_token, strip_html
from ui.look.palette import palette
from ui.look.systems import CUT
from ui.parts.job_panel import has_active_job, show_job
from ui.parts.rows import chosen_row
from ui.session import live
from ui.session.jobs import Job
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import LinearTransform
    from replaceme_core.measurement.token_errors import TokenErrors

_WORST = 60
_LEFT, _RIGHT = 8, 3
"""tokens of context on either side"""
_OFTEN = 3
"""times that a token must occur to have a mean"""


def section(state: Studio, fitted: "LinearTransform") -> None:
    """The whole part of the page; not for images, whose positions have no words."""
    if state.reads_images or state.calibration is None:
        return
    st.markdown("### Which tokens are badly rebuilt?")
    errors = _errors(state, fitted)
    if errors is None:
        return
    rows = live.remembered(state, ("token rows", *_key(fitted)), lambda: token_rows(state, errors))
    st.markdown(_summary(rows))
    st.caption(f"{words.TOKEN_HELP} n = {len(rows):,} held-out tokens in {rows['text'].nunique()} texts, at boundary {errors.boundary}.")
    worst, words_ = st.tabs(["In their texts", "By word"], key="fit_tokens_as", on_change="rerun")
    with worst:
        _in_context(state, rows)
    if words_.open:
        _by_word(words_, rows)


def _by_word(place: Any, rows: pd.DataFrame) -> None:
    with place:
        st.dataframe(by_word(rows), hide_index=True, height=300, column_config=_figures(), alt="mean error of the tokens that occur often")
        st.caption(f"Tokens that occur at least {_OFTEN} times in the held-out text, the worst first.")


def _key(fitted: "LinearTransform") -> tuple[Any, ...]:
    return fitted.cut, tuple(sorted(map(str, fitted.settings.items())))


def _errors(state: Studio, fitted: "LinearTransform") -> "TokenErrors | None":
    """At once for one transform; a refit or several spans run the model on some held-out texts, when asked."""
    from replaceme_core.measurement import token_errors

    key = ("tokens", *_key(fitted))
    if not token_errors.needs_the_model(fitted):
        return live.remembered(state, key, lambda: token_errors.stored(live.measured(state), fitted))
    if live.is_remembered(state, key):
        return live.remembered(state, key, lambda: None)
    if has_active_job(state):
        show_job(state, large=True)
    elif st.button("Look at single tokens", icon=":material/troubleshoot:", help=words.TOKEN_JOB_HELP):
        _start(state, fitted, key)
        st.rerun()
    return None


def _start(state: Studio, fitted: "LinearTransform", key: tuple[Any, ...]) -> None:
    resident, calibration, measurement = state.resident, state.calibration, state.measurement

    def work(job: Job) -> None:
        from replaceme_core.measurement import token_errors

        if resident is None or calibration is None:
            raise RuntimeError("asked for tokens without a model and its calibration set")
        found = token_errors.measured(resident.handle, calibration, fitted, progress=job)
        if state.measurement is measurement:
            live.remembered(state, key, lambda: found)

    submit(state, "Error of every token", work, str(key))


def token_rows(state: Studio, errors: "TokenErrors") -> pd.DataFrame:
    """One row per token, the worst first: its text, its place there, the token, its context, both errors."""
    figures = (column.tolist() for column in (errors.sequence, errors.position, errors.fitted, errors.removed))
    rows, read = [], {text: tokens_of(state, text) for text in set(errors.sequence.tolist())}
    for text, place, fitted, removed in zip(*figures, strict=True):
        tokens = read[text]
        rows.append((text, place, tokens[place], _context(tokens, place), fitted, removed))
    frame = pd.DataFrame(rows, columns=["text", "place", "token", "context", "fitted", "removed"])
    return frame.sort_values("fitted", ascending=False, ignore_index=True)


def tokens_of(state: Studio, text: int) -> list[str]:
    """A sequence of the calibration set, token by token; read once."""
    resident, calibration = state.resident, state.calibration
    if resident is None or calibration is None:
        raise RuntimeError("asked for tokens without a model and its calibration set")
    read: dict[int, list[str]] = live.remembered(state, ("token texts",), dict)
    if text not in read:
        read[text] = [resident.handle.tokenizer.decode([token]) for token in calibration.sequences[text].tolist()]
    return read[text]


def _context(tokens: list[str], place: int) -> str:
    before, after = "".join(tokens[max(0, place - _LEFT) : place]), "".join(tokens[place + 1 : place + 1 + _RIGHT])
    left, right = "… " if place > _LEFT else "", " …" if place + 1 + _RIGHT < len(tokens) else ""
    return shown_token(f"{left}{before}⟦{tokens[place]}⟧{after}{right}")


def by_word(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean errors of every token that occurs often enough, the worst first."""
    grouped = rows.groupby("token").agg(n=("fitted", "size"), fitted=("fitted", "mean"), removed=("removed", "mean")).reset_index()
    often = grouped[grouped["n"] >= _OFTEN].sort_values("fitted", ascending=False, ignore_index=True)
    often["token"] = often["token"].map(shown_token)
    return often


def _summary(rows: pd.DataFrame) -> str:
    """How unevenly the error lies."""
    ordered = rows["fitted"].to_numpy()
    tenth = max(1, len(ordered) // 10)
    share = ordered[:tenth].sum() / max(ordered.sum(), 1e-300)
    better = float((rows["fitted"] < rows["removed"]).mean())
    return (
        f"Half of the tokens have a relative error below **{rows['fitted'].median():.1%}** ({CUT}: {rows['removed'].median():.1%}); "
        f"the worst tenth make up **{share:.0%}** of all error. The fit is nearer than *{CUT}* at {better:.0%} of the tokens."
    )


def _in_context(state: Studio, rows: pd.DataFrame) -> None:
    """The text of the chosen token as a strip, and the ranked tokens below it."""
    shown = rows.head(_WORST)
    place = st.container()
    table = shown[["token", "context", "fitted", "removed", "text", "place"]].assign(token=shown["token"].map(shown_token))
    columns = {**_figures(), "context": st.column_config.TextColumn(width=330)}
    picked = chosen_row(table, f"tokens_{state.model}", columns, "the worst held-out tokens with their context and errors", 300) or 0
    text = int(shown["text"].iloc[picked])
    own = rows[rows["text"] == text]
    known = {int(at): (fitted, removed) for at, fitted, removed in zip(own["place"], own["fitted"], own["removed"], strict=True)}
    limit = float(rows["fitted"].iloc[max(0, len(rows) // 10 - 1)])
    with place:
        st.html(strip_html(tokens_of(state, text), known, limit, int(shown["place"].iloc[picked]), palette()))
        st.caption(f"Held-out text {text}: {words.TOKEN_STRIP_HELP} Choose a row to read its text.")


def _figures() -> dict[str, Any]:
    return {
        "fitted": st.column_config.NumberColumn("error, fit", format="percent"),
        "removed": st.column_config.NumberColumn(f"error, {CUT}", format="percent"),
    }
