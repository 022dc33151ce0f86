"""Cards about the repair: one matrix in the carrier, the texts side by side, and refits."""

import streamlit as st

from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words, change, mended
from ui.lesson.data import AROUND, DROP, FITTED, REFIT, SEQUENTIAL, Traces
from ui.lesson.parts import agreement, ask_span, kl_words, last_line, lead, quote
from ui.look.figures import span_text
from ui.look.layout import split
from ui.look.palette import palette
from ui.look.ruler import ruler
from ui.look.systems import CUT
from ui.parts.chart import show
from ui.session.state import Studio


def one_matrix(_state: Studio, traces: Traces) -> None:
    said, picture = split("card", [2, 3])
    with said:
        lead(7)
        st.latex(r"M\,T + Y \approx H")
        st.caption(
            "M: what the carrier's output projection adds. Y: the rest of the residual stream. H: the residual stream behind the gap, in the whole model."
        )
        length = st.segmented_control(
            "How many blocks go?",
            traces.lengths(),
            format_func=words.number,
            default=traces.length,
            required=True,
            wrap=True,
            key=f"lesson_length_{traces.made['model']}",
            persist_state="session",
        )
        cut, fitted = traces.of_length(length or traces.length, DROP), traces.of_length(length or traces.length, FITTED)
        better = sum(after.kl < before.kl for before, after in zip(cut, fitted, strict=True))
        gains = [(1 - after.kl / before.kl, after) for before, after in zip(cut, fitted, strict=True)]
        share, most = max(gains, key=lambda gain: gain[0])
        st.markdown(
            f"The matrix lowers the damage at **{better} of {len(cut)}** places; most at {span_text(most.span)}, "
            f"by **{share:.0%}**. What is small already, it cannot lower much."
        )
        harm = [after for before, after in zip(cut, fitted, strict=True) if after.kl >= before.kl]
        if harm:
            st.markdown(words.HARM.format(places=", ".join(span_text(row.span) for row in harm)))
    with picture:
        colours = palette()
        st.html(
            f'<span style="font-weight:700"><span style="color:{colours.cut}">◯ {CUT}</span> → '
            f'<span style="color:{colours.pruned}">⬤ with the matrix</span></span>'
        )
        show(
            mended(cut, fitted, colours),
            alt="KL before and after: "
            + "; ".join(f"{span_text(a.span)} {a.kl:.3f} to {b.kl:.3f}" for a, b in zip(cut, fitted, strict=True)),
        )
        st.caption(
            f"T: weighted least squares on {traces.fitted_on()}, a tenth of it held out of the fit. KL: {traces.heldout()}. {kl_words(traces)}"
        )


def compare_texts(_state: Studio, traces: Traces) -> None:
    lead(8)
    where, what = split("ask", [1, 1], "bottom")
    with where:
        span = ask_span("texts", traces)
    with what:
        prompt = st.selectbox(
            "Prompt", traces.prompts(), format_func=last_line, key=f"lesson_prompt_{traces.made['model']}", persist_state="session"
        )
    quote("Prompt", prompt, "muted")
    original = traces.written(prompt, None, "original")
    systems = (
        ("Original", None, "original", "original"),
        (CUT.capitalize(), span, DROP, "cut"),
        ("With the matrix", span, FITTED, "pruned"),
    )
    for column, (name, removed, method, tone) in zip(split("texts", [1, 1, 1]), systems, strict=True):
        with column, st.container(border=True, height="stretch"):
            text = traces.written(prompt, removed, method)
            quote(name, text, tone, original)
            if removed is None:
                st.caption(f"all {traces.stream.n_blocks} blocks")
                continue
            row, (same, n) = traces.removals[removed, method], agreement(text, original)
            st.caption(f"{same} of the original's {n} words are here, in their order.")
            st.caption(f"On all test text: KL **{row.kl:.3f}**, top-1 agreement **{row.agreement:.0%}**.")
    st.caption(
        f"One text is an anecdote: a model can stumble over one prompt and still be close. All test text: {traces.heldout()}. "
        "The most likely token each time (temperature 0), so that chance plays no part."
    )


def refits(_state: Studio, traces: Traces) -> None:
    said, picture = split("card", [2, 3])
    with said:
        lead(10)
        span = ask_span("refit", traces)
        ruler(traces.stream.n_blocks, span.blocks, f"{span_text(span)} out")
        st.caption(words.REFIT_NOTE)
    with picture:
        names = {
            DROP: (CUT, "cut"),
            FITTED: ("one matrix", "pruned"),
            REFIT: ("refit of the carrier", "pruned"),
            AROUND: ("refit around the cut", "pruned"),
            SEQUENTIAL: ("refit of all blocks after it", "pruned"),
        }
        cut = traces.removals[span, DROP].kl
        rows = []
        for method, (label, tone) in names.items():
            row = traces.removals[span, method]
            note = "" if method == DROP else f"({change(cut, row.kl)}) "
            rows.append(Bar.of(row, tone, label, f"{note}top-1 {row.agreement:.0%}"))
        show(bars(rows, palette(), row_height=60, letter=0.03), alt=bars_words(rows))
        st.caption(f"Fitted on {traces.fitted_on()}. KL: {traces.heldout()}; 95 % intervals over sequences.")
