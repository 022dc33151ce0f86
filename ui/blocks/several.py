"""Several spans at once: put the present span aside, choose another one; the ruler shows them all."""

import streamlit as st

from ui.blocks import words
from ui.look.figures import span_text
from ui.session import live
from ui.session.state import Studio


def several(state: Studio) -> None:
    """The spans put aside, and the buttons that add to them, take one back, or choose all of them by distance."""
    resident = state.resident
    if state.span is None or resident is None or resident.merges_on_disk:
        return
    st.markdown(f"### {words.SEVERAL}")
    st.caption(words.SEVERAL_HELP)
    with st.container(width=620):
        for number, span in enumerate(state.more):
            said, button = st.columns([3, 2], vertical_alignment="center")
            said.markdown(f"also removes {span_text(span)}; carrier: block {span.carrier}")
            if button.button("Take it back", key=f"back_{number}_{span}", width="stretch"):
                state.more.remove(span)
                st.rerun()
        _add(state)
        _choose_all(state)


def spread(state: Studio) -> None:
    """From a third of the depth on two places cost less than one on the models that were measured: they are one press away."""
    resident, cut = state.resident, state.cut
    if cut is None or resident is None or resident.merges_on_disk or resident.handle.family.merge != "exact":
        return
    if len(cut.spans) == 1 and 3 * len(cut) >= resident.handle.n_blocks:
        st.caption(words.SPREAD)
        if st.button(f"Spread {len(cut)} blocks over two places", icon=":material/call_split:", help=words.SPREAD_HELP):
            _choose(state, 2)


def _add(state: Studio) -> None:
    """Put the present span aside and go on with the least distant one of this length beside it."""
    from replaceme_core.selection import sinks, spans

    if state.span is None:
        return
    taken = [*state.more, state.span]
    free = [span for span, _ in spans.top(sinks.kept(live.shown(state)), len(state.span), 999) if state.apart(span, taken)]
    if st.button("Keep this span and add another", disabled=not free, width="stretch", icon=":material/add:"):
        state.more = taken
        state.choose(free[0])
        st.rerun()
    if not free:
        st.caption("There is no room for another span of this length: a block must stay before each of them.")


def _choose_all(state: Studio) -> None:
    """As many spans as asked for with the same number of blocks in all, by the least sum of distances."""
    cut = state.cut
    if cut is None:
        return
    count_box, button = st.columns([3, 2], vertical_alignment="bottom")
    key = f"count_{len(cut)}_{len(cut.spans)}"
    count = count_box.number_input(f"Spread {len(cut)} blocks over", 1, max(1, len(cut)), len(cut.spans), key=key, persist_state="session")
    if button.button("Choose", width="stretch", icon=":material/target:", help=words.CHOOSE_SPANS_HELP):
        _choose(state, int(count))


def _choose(state: Studio, count: int) -> None:
    from replaceme_core.errors import SpanError
    from replaceme_core.selection import sinks, spans

    if state.cut is None:
        return
    try:
        found = spans.several(sinks.kept(live.shown(state)), len(state.cut), count)
    except SpanError as error:
        st.warning(str(error))
        return
    state.choose_cut(found)
    st.rerun()
