"""The gallery of wrong choices: each with its picture, its figures, and why it goes wrong."""

from collections.abc import Callable

import streamlit as st

from ui.lesson import words
from ui.lesson.charts import Bar, bars, bars_words, starved
from ui.lesson.data import DROP, FITTED, Removal, Traces
from ui.lesson.parts import lead
from ui.look.figures import span_text
from ui.look.palette import Palette, palette
from ui.look.ruler import ruler
from ui.parts.chart import show
from ui.session.state import Studio

_KL = "KL (nats per token)"


def gallery(state: Studio, traces: Traces) -> None:
    """All tiles at once; before a room one at a time, larger."""
    lead(9)
    if state.present:
        names = list(words.GALLERY)
        chosen = st.segmented_control(
            "Which mistake?",
            names,
            format_func=lambda name: words.GALLERY[name][0],
            default=names[0],
            required=True,
            wrap=True,
            key="lesson_mistake",
            label_visibility="collapsed",
            persist_state="session",
        )
        _tile(chosen or names[0], traces)
    else:
        names = list(words.GALLERY)
        for at in range(0, len(names), 2):
            with st.container(key=f"split_gallery_{at}"):
                for column, name in zip(st.columns(2, gap="medium"), names[at : at + 2], strict=True):
                    with column:
                        _tile(name, traces)
    st.caption(f"{traces.made['model']}; fits on {traces.fitted_on()} unless said. KL: {traces.heldout()}; lines: 95 %.")


def _tile(name: str, traces: Traces) -> None:
    title, why = words.GALLERY[name]
    with st.container(border=True, height="stretch", key=f"lesson_tile_{name}"):
        st.markdown(f"#### {title}")
        st.markdown(why.format(**_figures(traces)))
        _PICTURES[name](traces, palette())


def _figures(traces: Traces) -> dict[str, object]:
    """What the texts of the tiles are filled in with."""
    most = max(traces.lengths())
    worst = max(traces.sources, key=lambda name: traces.sources[name].kl)
    return {
        "unknowns": traces.unknowns,
        "grown": traces.best(most, FITTED).kl / traces.best(traces.length, FITTED).kl,
        "many": words.number(most),
        "few": words.number(traces.length),
        "times": words.number(most // traces.length),
        "worst": worst,
        "worst_kl": traces.sources[worst].kl,
        "bare": traces.removals[traces.closest, DROP].kl,
    }


def _place(traces: Traces, where: tuple[Removal, str], colours: Palette) -> None:
    """A place beside the one of least distance, cut and fitted."""
    row, label = where
    ruler(traces.stream.n_blocks, row.span.blocks, f"{span_text(row.span)} out", compact=True)
    rows = []
    for span, name in ((row.span, label), (traces.closest, "least distance")):
        for method, tone, said in ((DROP, "cut", "no matrix"), (FITTED, "pruned", "matrix")):
            rows.append(Bar.of(traces.removals[span, method], tone, f"{name}, {said}"))
    show(bars(rows, colours, _KL, row_height=30, letter=0.031), alt=bars_words(rows))


def _first(traces: Traces, colours: Palette) -> None:
    _place(traces, (traces.removals[traces.first, DROP], "first blocks"), colours)


def _last(traces: Traces, colours: Palette) -> None:
    _place(traces, (traces.removals[traces.last, DROP], "last blocks"), colours)


def _many(traces: Traces, colours: Palette) -> None:
    """The best place of every length, each chosen with hindsight."""
    rows = []
    for length in traces.lengths():
        row = traces.best(length, FITTED)
        rows.append(Bar.of(row, "pruned", f"{length} of {traces.stream.n_blocks} blocks", span_text(row.span)))
    show(bars(rows, colours, f"{_KL}, the best place, with the matrix", row_height=30, letter=0.031), alt=bars_words(rows))


def _tiny(traces: Traces, colours: Palette) -> None:
    bad = [row for row in traces.starved if row.no_ridge]
    said = "; ".join(f"{row.tokens} tokens: {row.train:.0%} on its own, {row.unseen:.0%} on unseen text" for row in bad)
    show(starved(bad, colours), alt=f"Relative error. {said}")
    few = {row.no_ridge: row for row in traces.starved if row.tokens == min(each.tokens for each in traces.starved)}
    bare, cut = few[True], traces.removals[traces.closest, DROP]
    st.markdown(
        f"{bare.tokens} tokens, no ridge: KL **{bare.kl:.2f}**, with the app's ridge **{few[False].kl:.2f}**; removing the blocks without any matrix "
        f"{cut.kl:.2f}. Blocks {traces.closest.start}–{traces.closest.end - 1}; errors without ridge."
    )


def _text(traces: Traces, colours: Palette) -> None:
    own = next(iter(traces.sources))
    rows = [Bar.of(row, "pruned" if name == own else "original", name) for name, row in traces.sources.items()]
    rows.append(Bar.of(traces.removals[traces.closest, DROP], "cut", "no matrix"))
    show(bars(rows, colours, f"{_KL}, fitted on this text", row_height=30, letter=0.031), alt=bars_words(rows))


def _distance(traces: Traces, colours: Palette) -> None:
    """The four nearest places, by distance, of the length at which the distance misleads most."""
    values = traces.stream.values
    rows = sorted(traces.of_length(_misleading(traces), DROP), key=lambda row: values[row.span.start, row.span.end])[:4]
    least = min(rows, key=lambda row: row.kl)
    shown = [
        Bar.of(row, "carrier" if row is least else "original", note=f"dist. {values[row.span.start, row.span.end]:.3f}") for row in rows
    ]
    show(bars(shown, colours, f"{_KL}, removed, no transform; nearest first", row_height=30, letter=0.031), alt=bars_words(shown))


def _misleading(traces: Traces) -> int:
    """The length at which the place of least distance costs most, beside the best place."""

    def times(length: int) -> float:
        rows = traces.of_length(length, DROP)
        return min(rows, key=lambda row: traces.stream.values[row.span.start, row.span.end]).kl / traces.best(length).kl

    return max(traces.lengths(), key=times)


_PICTURES: dict[str, Callable[[Traces, Palette], None]] = {
    "first": _first,
    "last": _last,
    "many": _many,
    "tiny": _tiny,
    "text": _text,
    "distance": _distance,
}
