"""Predict, then look: several rounds, each a number of neighbouring blocks; the score compares the measured damage."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from replaceme_core.span import Span
from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words, matrix
from ui.lesson.data import DROP, FITTED, Removal, Traces
from ui.lesson.parts import kl_words
from ui.lesson.state import Game
from ui.look.figures import span_text
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.ruler import ruler
from ui.parts.chart import show
from ui.parts.heatmap import clicked_cell


def points(traces: Traces, guess: Span) -> int:
    """100 times the least KL of this length over that of the guess, both without a transform."""
    return round(100 * traces.best(len(guess)).kl / traces.removals[guess, DROP].kl)


def total(traces: Traces, revealed: Mapping[int, Span]) -> int:
    return sum(points(traces, guess) for guess in revealed.values())


def length_words(lesson: Game, traces: Traces) -> str:
    return neighbours(traces.rounds[lesson.round])


def neighbours(length: int) -> str:
    return "one block" if length == 1 else f"{words.number(length)} neighbouring blocks"


def play(lesson: Game, traces: Traces) -> None:
    """The present round: the matrix and the choice, or what was measured; and the way to the next one."""
    length = traces.rounds[lesson.round]
    _take_cell(lesson, length, traces)
    _score_line(lesson, traces)
    if length in lesson.revealed:
        _reveal(lesson, traces, length)
    else:
        _ask(lesson, traces, length)


def _score_line(lesson: Game, traces: Traces) -> None:
    said = f"Round **{lesson.round + 1}** of {len(traces.rounds)}"
    if lesson.revealed:
        said += f" · score **{total(traces, lesson.revealed)}** of {100 * len(lesson.revealed)}"
    st.markdown(said)


def _take_cell(lesson: Game, length: int, traces: Traces) -> None:
    """A click on the matrix picks the place, if its span has the asked length; one of another length only says so."""
    key = _chart_key(traces, length)
    cell = clicked_cell(st.session_state.get(key))
    if cell is None or (key, cell) == lesson.seen_cell or length in lesson.revealed:
        return
    lesson.seen_cell = (key, cell)
    start, end = cell
    if end - start == length and start >= 1:
        lesson.picked[length] = Span(start, end)
    else:
        st.toast(f"That cell is not {neighbours(length)}: the framed ones are.", icon=":material/info:")


def _chart_key(traces: Traces, length: int) -> str:
    return f"lesson_guess_{traces.stream.n_blocks}_{length}"


def _ask(lesson: Game, traces: Traces, length: int) -> None:
    places = [row.span for row in traces.of_length(length, DROP)]
    picked = lesson.picked.get(length)
    picture, choice = split("guess", [3, 2])
    with choice:
        names = {span_text(span): span for span in places}
        key = f"lesson_pick_{length}"
        st.session_state[key] = span_text(picked) if picked else None
        st.pills("Your choice", list(names), key=key, on_change=_picked, args=(lesson, length, names), wrap=True)
        ruler(traces.stream.n_blocks, picked.blocks if picked else None, "Nothing chosen yet" if picked is None else "Your choice")
        st.button(
            "Reveal the damage",
            type="primary",
            icon=":material/visibility:",
            disabled=picked is None,
            on_click=_commit,
            args=(lesson, length),
            key="lesson_reveal",
        )
        st.caption(words.POINTS)
    with picture:
        chart = matrix(traces.stream, picked or places[0], palette(), outlined=picked is not None)
        show(
            chart,
            key=_chart_key(traces, length),
            on_select="rerun",
            alt="Distance of every span; the buttons beside it choose the same places.",
        )


def _picked(lesson: Game, length: int, names: Mapping[str, Span]) -> None:
    chosen = st.session_state[f"lesson_pick_{length}"]
    if chosen is None:
        lesson.picked.pop(length, None)
    else:
        lesson.picked[length] = names[chosen]


def _commit(lesson: Game, length: int) -> None:
    lesson.revealed[length] = lesson.picked[length]


def _reveal(lesson: Game, traces: Traces, length: int) -> None:
    guess, best = lesson.revealed[length], traces.best(length)
    rows = traces.of_length(length, DROP)
    closest = min((row.span for row in rows), key=lambda span: traces.stream.values[span.start, span.end])
    picture, verdict = split("reveal", [3, 2])
    with verdict:
        won, mine = points(traces, guess), traces.removals[guess, DROP]
        rank = sorted(rows, key=lambda row: row.kl).index(mine) + 1
        st.metric("Points", f"{won} of 100", help=words.POINTS)
        st.markdown(f"{_capital(span_text(guess))}: place **{rank}** of {len(rows)}, KL {mine.kl:.3f}.")
        if guess != best.span and mine.low <= best.high:
            st.markdown(words.OVERLAP)
        st.markdown(_about_distance(traces, closest, best.span))
        fitted = traces.removals[guess, FITTED].kl
        st.markdown(f"With a fitted matrix in the gap your choice would cost KL **{fitted:.3f}** (two cards on).")
        _next_round(lesson, traces)
    with picture:
        lines = [_bar(row, guess, best.span, closest) for row in rows]
        show(bars(lines, palette()), alt=bars_words(lines))
        _twin(rows, traces)
    st.caption(f"KL of the blocks removed, no transform; 95 % intervals over sequences: {traces.heldout()}. {kl_words(traces)}")


def _bar(row: Removal, guess: Span, best: Span, closest: Span) -> Bar:
    marks = [("★ least damage", best), ("◆ least distance", closest), ("◀ your choice", guess)]
    note = "   ".join(name for name, span in marks if span == row.span)
    tone = "cut" if row.span == guess else "carrier" if row.span == best else "original"
    return Bar.of(row, tone, note=note)


def _about_distance(traces: Traces, closest: Span, best: Span) -> str:
    said = words.DISTANCE_WAS_RIGHT if closest == best else words.DISTANCE_IS_NOT_DAMAGE
    return said.format(
        closest=span_text(closest),
        best=span_text(best),
        distance=float(traces.stream.values[closest.start, closest.end]),
        kl=traces.removals[best, DROP].kl,
    )


def _next_round(lesson: Game, traces: Traces) -> None:
    if len(lesson.revealed) == len(traces.rounds):
        st.success(
            f"All rounds played: **{total(traces, lesson.revealed)}** of {100 * len(traces.rounds)} points.", icon=":material/emoji_events:"
        )
        st.button("Play again", icon=":material/replay:", on_click=_again, args=(lesson,), key="lesson_again")
        return
    left = next(at for at, length in enumerate(traces.rounds) if length not in lesson.revealed)
    st.button(
        f"Next round: {neighbours(traces.rounds[left])}",
        type="primary",
        icon=":material/arrow_forward:",
        on_click=_go,
        args=(lesson, left),
        key="lesson_next_round",
    )


def _go(lesson: Game, at: int) -> None:
    lesson.round = at


def _again(lesson: Game) -> None:
    lesson.round = 0
    lesson.picked.clear()
    lesson.revealed.clear()


def _twin(rows: list[Removal], traces: Traces) -> None:
    """The same figures as a table, for those who read or listen."""
    with st.expander("As a table"):
        table = [
            {
                "removed": span_text(row.span),
                "distance": f"{traces.stream.values[row.span.start, row.span.end]:.3f}",
                "KL": f"{row.kl:.3f}",
                "95 %": f"{row.low:.3f}–{row.high:.3f}",
                "top-1 agreement": f"{row.agreement:.1%}",
            }
            for row in rows
        ]
        st.dataframe(pd.DataFrame(table), hide_index=True)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
