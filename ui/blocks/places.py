"""Which place for a span of this length: the criterion, its suggestion, the profile of every place, and its table twin."""

import pandas as pd
import streamlit as st

from ui.blocks import words
from ui.blocks.clicks import places_key
from ui.blocks.profile import least, profile_chart, profile_rows, profile_words
from ui.blocks.ranking import criterion_title, present_criterion, ranking, undecided
from ui.blocks.state import BlocksState, PinnedState
from ui.look.figures import blocks_count, blocks_text
from ui.look.palette import palette
from ui.look.vega import Rows
from ui.parts.chart import show
from ui.session import costs, live
from ui.session.state import Studio

_FEWEST = 5
"""sequences below which their spread says nothing: with 4, two standard errors would have to be three"""


def ask_criterion(state: Studio) -> None:
    """What the places of one length are ranked by."""
    from replaceme_core.selection.criteria import every

    if state.span is None:
        return
    known = every()
    names, own = list(known), state.slot(BlocksState)
    chosen = st.selectbox(
        "Rank the places by",
        names,
        index=names.index(own.criterion),
        format_func=lambda name: known[name].title,
        key=f"criterion_{state.model}",
        help=words.CRITERION_HELP,
    )
    st.caption(known[chosen].one_line)
    if chosen != own.criterion:
        own.criterion = chosen
        state.span_moves += 1
        st.rerun()
    note = ranking(state, len(state.span))[1]
    if note:
        st.info(note, icon=":material/info:")


def best_of_length(state: Studio) -> None:
    """Two buttons: the first span by the criterion with as many blocks as now; and pin the present choice."""
    from replaceme_core.selection import spans

    if state.span is None:
        return
    length, pinned = len(state.span), state.slot(PinnedState)
    measured = costs.choice(state, length) if present_criterion(state) == "measured_kl" else None
    best = measured.best.span if measured is not None else spans.best(ranking(state, length)[0], length)
    label = f"Best {length} blocks: {blocks_text(best.start, best.end)}" if length > 1 else f"Best single block: {best.start}"
    said = f"The first span of this length by '{criterion_title(state)}'. The paper chooses by the distance."
    with st.container(horizontal=True):
        if st.button(label, disabled=best == state.span, icon=":material/target:", help=said):
            state.choose(best)
            st.rerun()
        if st.button("Pin this choice", disabled=state.cut == pinned.cut, icon=":material/push_pin:", help=words.PIN_HELP):
            pinned.cut = state.cut
            st.rerun()


def profile(state: Studio) -> None:
    """What the criterion says of every place for the present length."""
    from replaceme_core.selection import spans

    if state.span is None:
        return
    points = spans.profile(ranking(state, len(state.span))[0], len(state.span))
    st.markdown(f"#### Every place for {blocks_count(len(state.span))}")
    title = criterion_title(state)
    picture, figures = st.tabs(["Chart", "Table"], key="profile_as", on_change="rerun")
    with picture:
        unsure = undecided(state)
        show(profile_chart(points, state.span, palette(), title, unsure), alt=profile_words(points, title, unsure))
        st.caption(words.PROFILE_MARKS)
    if figures.open:
        with figures:
            table(state)


def verdict(state: Studio) -> None:
    """Whether the least of the profile stands out, in words that speak of the text and never of what a removal costs."""
    from replaceme_core.selection import spans

    if state.span is None:
        return
    matrix, _ = ranking(state, len(state.span))
    st.markdown("#### Can this text tell the places apart?")
    is_measured = present_criterion(state) == "measured_kl"
    st.markdown(_verdict(profile_rows(spans.profile(matrix, len(state.span)), undecided(state)), matrix.n_sequences, is_measured))
    st.caption(words.PROFILE_HELP_MEASURED if is_measured else words.PROFILE_HELP)


def _verdict(rows: Rows, n_sequences: int, is_measured: bool = False) -> str:
    """How many other places lie within two standard errors of the difference to the least."""
    best = least(rows)["removes"]
    n_close = sum(row["close"] for row in rows)
    if len(rows) == 1:
        return "There is only one place for a span this long."
    if n_sequences < _FEWEST:
        return f"**Not known yet:** {best} come first, but {n_sequences} sequences are too few to know how far such figures scatter."
    if any(row["error"] is None for row in rows):
        return f"**Not known:** {best} come first, but the pass keeps no spread of this figure. *Find the best places* measures it."
    if not n_close:
        doubt = "" if is_measured else " Whether the model survives without them, this does not say."
        return f"**Yes:** {best} come first, by more than the spread of {n_sequences:,} sequences.{doubt}"
    others = "another place is" if n_close == 1 else f"{n_close} other places are"
    return f"**No:** {best} come first, and {others} within the spread of {n_sequences:,} sequences."


def table(state: Studio) -> None:
    """The table twin of the profile; choosing a row chooses its span."""
    from replaceme_core.selection import spans

    if state.span is None:
        return
    matrix, title = ranking(state, len(state.span))[0], criterion_title(state)
    ranked = spans.top(matrix, len(state.span), 10_000)
    errors = {point.span: point.standard_error for point in spans.profile(matrix, len(state.span))}
    rows = pd.DataFrame(
        {
            "": ["●" if span == state.span else "" for span, _ in ranked],
            "removes": [blocks_text(span.start, span.end) for span, _ in ranked],
            title: [value for _, value in ranked],
            "± s.e.": [errors[span] for span, _ in ranked],
        }
    ).dropna(axis="columns")  # no column of unknown errors
    key = f"table_{places_key(state)}_{state.span}"
    event = st.dataframe(
        rows,
        hide_index=True,
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        height=min(38 + 35 * len(rows), 330),
        column_config={
            "": st.column_config.TextColumn(width=30),
            title: st.column_config.NumberColumn(format="%.4f"),
            "± s.e.": st.column_config.NumberColumn(format="%.4f"),
        },
    )
    picked = event["selection"]["rows"]
    if picked and ranked[picked[0]][0] != state.span:
        state.choose(ranked[picked[0]][0])
        st.rerun()


def sinks_at_risk(state: Studio) -> None:
    """A warning for every chosen span that makes or ends an attention sink."""
    from replaceme_core.selection import sinks

    if state.cut is None:
        return
    for change in sinks.changes(live.shown(state).lengths, state.cut.spans):
        st.warning(change.sentence, icon=":material/anchor:")
