"""The twelve cards of the lesson: a few words on the left, the figure they are about on the right, and below it how it was made."""

import math
from collections.abc import Callable

import streamlit as st

from replaceme_core.span import Span
from ui.lesson import block as lesson_block
from ui.lesson import gallery as lesson_gallery
from ui.lesson import game as lesson_game
from ui.lesson import poll as lesson_poll
from ui.lesson import quality as lesson_quality
from ui.lesson import repair as lesson_repair
from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words, block_bars, matrix, river
from ui.lesson.data import AROUND, DROP, FITTED, Stream, Traces, stream_of
from ui.lesson.data import traces as traces_of
from ui.lesson.parts import ask_span, kl_words, last_line, lead, quote
from ui.lesson.state import LessonState
from ui.look.figures import span_text
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.ruler import ruler
from ui.look.site import PAGES
from ui.parts.chart import show
from ui.parts.heatmap import clicked_cell
from ui.parts.links import go
from ui.parts.start import start_button
from ui.session.link import LinkState
from ui.session.polls import polls
from ui.session.state import Studio


def redundant(state: Studio, traces: Traces) -> None:
    stream = stream_of(state)
    least = int(stream.single[1:].argmin()) + 1
    said, picture = split("card", [2, 3])
    with said:
        lead(1)
        st.metric(
            "Turns the residual stream least",
            f"block {least}",
            f"distance {stream.single[least]:.3f}",
            delta_color="off",
            delta_arrow="off",
        )
        if not stream.live:
            row = traces.removals[Span(least, least + 1), DROP]
            st.markdown(
                f"Take block {least} out, and the most likely next token stays the same at **{row.agreement:.0%}** of the positions (KL {row.kl:.3f})."
            )
            st.caption(f"Next tokens: {traces.heldout()}.")
    with picture:
        show(
            block_bars(stream, palette()),
            alt="How far each block turns the stream: " + "; ".join(f"block {b} {v:.3f}" for b, v in enumerate(stream.single)),
        )
        st.caption(f"1 − cosine between what enters a block and what leaves it. Blue: the smaller half. {stream.said()}.")
        _live_toggle(state)


def residual(state: Studio, _traces: Traces) -> None:
    stream = stream_of(state)
    middle = range(stream.n_blocks // 4, 3 * stream.n_blocks // 4)
    turn = float(stream.single[list(middle)].mean())
    said, picture = split("card", [2, 3])
    with said:
        lead(2)
        st.info(words.RIVER, icon=":material/add:")
        st.markdown(
            f"After block 0 the stream is **{stream.norms[1]:,.0f}** long, at the end **{stream.norms[-1]:,.0f}**. A block in the middle "
            f"({middle[0]}–{middle[-1]}) turns it by a distance of only **{turn:.3f}**, about {_degrees(turn):.0f}°."
        )
    with picture:
        show(
            river(stream, palette()),
            alt="Length of the residual stream: " + "; ".join(f"boundary {b} {n:,.0f}" for b, n in enumerate(stream.norms)),
        )
        st.caption(f"Width: mean length of the vector at each boundary. {stream.said()}.")
        _live_toggle(state)


def read_matrix(state: Studio, _traces: Traces) -> None:
    stream = stream_of(state)
    span = _cell_to_read(stream)
    distance = float(stream.values[span.start, span.end])
    said, picture = split("card", [2, 3])
    with said:
        lead(4)
        st.markdown(
            f"**The outlined cell**: row {span.start}, column {span.end - 1}, that is {span_text(span)}. Its distance is "
            f"**{distance:.3f}**: across these {len(span)} block{'s' * (len(span) > 1)} the stream turns by about {_degrees(distance):.0f}°."
        )
        st.markdown("Thin frames mark all spans of this length. Towards the corner spans grow longer and colours plainer.")
        ruler(stream.n_blocks, span.blocks, f"{span_text(span)} out")
    with picture:
        show(matrix(stream, span, palette()), key=_matrix_key(stream), on_select="rerun", alt="Distance of every span of blocks.")
        st.caption(f"Click any cell. Distance: 1 − cosine, mean over tokens. {stream.said()}.")
        _live_toggle(state)


def _matrix_key(stream: Stream) -> str:
    return f"lesson_matrix_{stream.n_blocks}_{stream.live}"


def _cell_to_read(stream: Stream) -> Span:
    """The clicked cell, else the least distant span of a quarter of the blocks."""
    cell = clicked_cell(st.session_state.get(_matrix_key(stream)))
    if cell and 1 <= cell[0] < cell[1] <= stream.n_blocks:
        return Span(*cell)
    length = max(1, round(stream.n_blocks / 4))
    return min((Span(s, s + length) for s in range(1, stream.n_blocks - length + 1)), key=lambda x: stream.values[x.start, x.end])


def predict(state: Studio, traces: Traces) -> None:
    own, link = state.slot(LessonState), state.slot(LinkState)
    poll = polls().get(link.poll)
    if poll is not None and poll.owner != state.owner:
        lead(5, length=lesson_game.neighbours(poll.length))
        lesson_poll.student(state, poll, traces_of(poll.model))
        return
    if link.poll is not None and poll is None:
        st.info(words.POLL_GONE, icon=":material/how_to_vote:")
    lead(5, length=lesson_game.length_words(own.game, traces))
    lesson_game.play(own.game, traces)
    lesson_poll.teacher(state, own.model, traces.rounds[own.game.round], traces)


def bare_cut(_state: Studio, traces: Traces) -> None:
    said, picture = split("card", [2, 3])
    with said:
        lead(6)
        span = ask_span("cut", traces)
        row = traces.removals[span, DROP]
        ruler(traces.stream.n_blocks, span.blocks, f"{span_text(span)} out")
    with picture:
        rows = traces.of_length(traces.length, DROP)
        lines = [Bar.of(r, "cut" if r.span == span else "original", note="◀ this one" if r.span == span else "") for r in rows]
        show(bars(lines, palette()), alt=bars_words(lines))
        st.caption(
            f"{words.number(traces.length).capitalize()} blocks removed at every place, no transform. At {span_text(span)} the most likely next token stays the same at "
            f"{row.agreement:.0%} of the positions. {traces.heldout()}; 95 % intervals over sequences. {kl_words(traces)}"
        )
    prompt = traces.prompts()[0]
    original = traces.written(prompt, None, "original")
    whole = "" if prompt == last_line(prompt) else " (card 8 has the prompt in full)"
    st.markdown(f"After *“{last_line(prompt)}”*{whole} they go on:")
    before, after = split("cut_texts", [1, 1])
    with before:
        quote("Original", original, "original")
    with after:
        quote(f"Without {span_text(span)}", traces.written(prompt, span, DROP), "cut", original)


def remember(state: Studio, traces: Traces) -> None:
    single, fitted = traces.best(1), traces.of_length(traces.length, FITTED)
    better = sum(row.kl < traces.removals[row.span, DROP].kl for row in fitted)
    most = max(fitted, key=lambda row: traces.removals[row.span, DROP].kl - row.kl)
    figures: dict[str, object] = {
        "least": span_text(single.span),
        "single": single.kl,
        "n_places": len(fitted),
        "n_better": better,
        "blocks": words.number(traces.length),
        "saved_at": span_text(most.span),
        "saved_cut": traces.removals[most.span, DROP].kl,
        "saved_fit": most.kl,
        "closest": span_text(traces.closest),
        "closest_fit": traces.removals[traces.closest, FITTED].kl,
        "closest_refit": traces.removals[traces.closest, AROUND].kl,
    }
    said, beside = split("card", [3, 2])
    with said, st.container(key="lesson_lead_12"):
        st.markdown("\n".join(f"{at}. {line.format(**figures)}" for at, line in enumerate(words.REMEMBER, start=1)))
    with said:
        st.caption(f"All figures: {traces.made['model']}, fitted on {traces.fitted_on()}; KL in nats per token on {traces.heldout()}.")
    with beside, st.container(border=True):
        played = state.slot(LessonState).game.revealed
        if played:
            st.metric("Your predictions", f"{lesson_game.total(traces, played)} of {100 * len(played)} points", help=words.POINTS)
        else:
            st.markdown("Card 5 is still open: predict, then look.")
        ruler(traces.stream.n_blocks, traces.closest.blocks, "The same on a model of your choice:")
        if state.measurement is not None:
            if st.button("Go on with Blocks", type="primary", icon=":material/arrow_forward:", key="lesson_blocks"):
                go(PAGES["blocks"].file)
        else:
            start_button(state, key="lesson_start")


def _live_toggle(state: Studio) -> None:
    """Bundled figures or those of the loaded model, where one is measured."""
    resident = state.resident
    if resident is not None and state.measurement is not None and state.measurement.n_blocks >= 4:
        st.session_state["lesson_live"] = state.slot(LessonState).live
        st.toggle(
            f"Show the loaded model ({resident.handle.name})",
            key="lesson_live",
            on_change=_switch_live,
            args=(state,),
            help=words.LIVE_HELP,
        )


def _switch_live(state: Studio) -> None:
    state.slot(LessonState).live = bool(st.session_state["lesson_live"])


def _degrees(distance: float) -> float:
    return math.degrees(math.acos(max(-1.0, 1 - distance)))


CARDS: tuple[Callable[[Studio, Traces], None], ...] = (
    redundant,
    residual,
    lesson_block.inside,
    read_matrix,
    predict,
    bare_cut,
    lesson_repair.one_matrix,
    lesson_repair.compare_texts,
    lesson_gallery.gallery,
    lesson_repair.refits,
    lesson_quality.quality,
    remember,
)
