"""The prediction of a class: the teacher's page with the code and the live tally, the student's page with the choice, and what was measured."""

from collections.abc import Mapping

import altair as alt
import pandas as pd
import streamlit as st

from replaceme_core.span import Span
from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words
from ui.lesson.data import DROP, Removal, Traces
from ui.look.chart_style import styled
from ui.look.figures import span_text
from ui.look.layout import split
from ui.look.page_style import CHART_MARK
from ui.look.palette import Palette, palette
from ui.look.ruler import ruler
from ui.parts import share
from ui.parts.chart import show
from ui.session.hub import hub
from ui.session.link import show as address
from ui.session.polls import LONGEST_NAME, Poll, polls
from ui.session.reach import page_address
from ui.session.state import SESSION, Studio

_PERIOD = 1.0
CARD = 5
"""the card that asks for the prediction"""


def teacher(state: Studio, model: str, length: int, traces: Traces) -> None:
    """Under the game: the button that begins a poll of this round; then its code, its tally and the answer."""
    poll = polls().of(state.owner)
    with st.container(border=True, key="stage_poll"):
        if poll is None or (poll.model, poll.length) != (model, length):
            st.markdown(f"**With a class:** {words.POLL_INTRO}")
            if st.button("Start a poll of this round", icon=":material/how_to_vote:", key="poll_start"):
                polls().start(state.owner, model, length)
                state.asked = True
                hub().remember(state)
                st.rerun()
            return
        _running(poll, traces)


def _running(poll: Poll, traces: Traces) -> None:
    way_in, picture = split("poll", [2, 3])
    with way_in:
        st.markdown(f"#### Poll {poll.code}")
        share.address(f"{page_address()}?card={CARD}&poll={poll.code}", pixels=260)
        with st.container(horizontal=True):
            if not poll.revealed and st.button("Reveal", type="primary", icon=":material/visibility:", key="poll_reveal"):
                poll.revealed = True
                st.rerun()
            if st.button("End the poll", icon=":material/close:", key="poll_end"):
                polls().end(poll)
                st.rerun()
    with picture:
        if poll.revealed:
            _answer(poll, traces, poll.tally())
        else:
            st.fragment(_tally, run_every=_PERIOD)(poll, traces)


def _tally(poll: Poll, traces: Traces) -> None:
    """The votes so far; drawn anew every second."""
    votes = poll.tally()
    st.markdown(f"**{votes.total()}** prediction{'' if votes.total() == 1 else 's'} so far")
    spans = [row.span for row in traces.of_length(poll.length, DROP)]
    said = "; ".join(f"{span_text(span)} {votes[span]}" for span in spans if votes[span]) or "none yet"
    show(tally_chart(spans, votes, palette()), alt=f"Predictions by place: {said}.")
    for span, _ in votes.most_common(3):
        names = poll.names(span)
        if names:
            st.text(f"{span_text(span)}: {', '.join(names)}")


def tally_chart(spans: list[Span], votes: Mapping[Span, int], colours: Palette) -> alt.LayerChart:
    """A lying bar for every place, in their order; the longest has the most votes."""
    rows = pd.DataFrame([{"place": span_text(span), "votes": votes.get(span, 0), "said": str(votes.get(span, 0) or "")} for span in spans])
    most = max(4, int(rows["votes"].max()))
    y = alt.Y("place:N", sort=None, title=None, axis=alt.Axis(labelLimit=200, labelOverlap=False, domain=False, ticks=False))
    x = alt.X("votes:Q", title="predictions", scale=alt.Scale(domain=[0, most * 1.1]), axis=alt.Axis(grid=False, tickMinStep=1, format="d"))
    base = alt.Chart(rows)
    bars_ = base.mark_bar(color=colours.pruned, cornerRadiusEnd=4).encode(x=x, y=y)
    figures = base.mark_text(align="left", dx=7, fontSize=CHART_MARK, fontWeight="bold", color=colours.ink).encode(
        x=x, y=y, text=alt.Text("said:N")
    )
    return styled(alt.layer(bars_, figures), colours, height=(30 if len(spans) <= 14 else 20) * len(spans) + 40)


def student(state: Studio, poll: Poll, traces: Traces) -> None:
    """The choice of one browser: it can be changed until the answer is shown."""
    st.fragment(_student, run_every=None if poll.revealed else 2 * _PERIOD)(state, poll, traces)


def _student(state: Studio, poll: Poll, traces: Traces) -> None:
    own = poll.of(state.owner)
    if poll.revealed:
        _answer(poll, traces, poll.tally(), own.span if own else None)
        return
    names = {span_text(row.span): row.span for row in traces.of_length(poll.length, DROP)}
    chosen = st.pills("Your prediction", list(names), wrap=True, key=f"poll_pick_{poll.code}", default=span_text(own.span) if own else None)
    name = st.text_input("Name (if you like)", value=own.name if own else "", max_chars=LONGEST_NAME, key=f"poll_name_{poll.code}")
    span = names.get(chosen or "")
    ruler(traces.stream.n_blocks, span.blocks if span else None, "Nothing chosen yet" if span is None else f"{span_text(span)} out")
    if st.button("Send my prediction", type="primary", icon=":material/send:", disabled=span is None, key="poll_send") and span is not None:
        state.voted = True  # the id in the address: a reload is the same voter
        hub().remember(state)
        address(**{SESSION: state.owner})
        own = poll.of(state.owner) if poll.vote(state.owner, span, name) else own
    if own is not None:
        st.success(f"Sent: {span_text(own.span)}. You can change it until the answer is shown.", icon=":material/check:")


def _answer(poll: Poll, traces: Traces, votes: Mapping[Span, int], mine: Span | None = None) -> None:
    """What every place costs, as it was measured, with the votes beside it."""
    best = traces.best(poll.length).span

    def line(row: Removal) -> Bar:
        span = row.span
        count = votes.get(span, 0)
        notes = [
            "★ least damage" if span == best else "",
            f"{count} vote{'' if count == 1 else 's'}" if count else "",
            "◀ yours" if span == mine else "",
        ]
        tone = "carrier" if span == best else "cut" if span == mine else "original"
        return Bar.of(row, tone, note="   ".join(filter(None, notes)))

    lines = [line(row) for row in traces.of_length(poll.length, DROP)]
    right = votes.get(best, 0)
    total = sum(votes.values())
    st.markdown(f"**{right} of {total}** predicted {span_text(best)}, the place that costs least.")
    show(bars(lines, palette()), alt=bars_words(lines))
    st.caption(f"KL of the blocks removed, no transform; 95 % intervals over sequences: {traces.heldout()}.")
