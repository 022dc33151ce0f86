"""The pinned choice beside the present one: both on the ruler, and every figure of both."""

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.blocks import savings as savings_of
from ui.blocks.ranking import criterion_title, ranking
from ui.blocks.state import PinnedState
from ui.look.figures import minus
from ui.look.ruler import ruler
from ui.look.systems import CUT
from ui.parts.job_panel import has_active_job
from ui.session import live
from ui.session.methods import closed_form
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Cut

_UNKNOWN = "–"


def compare(state: Studio) -> None:
    """The whole section, where something is pinned."""
    pinned, present = state.slot(PinnedState).cut, state.cut
    if pinned is None or present is None:
        return
    n_blocks = live.shown(state).n_blocks
    st.markdown("### Pinned, and now")
    for name, cut in (("Pinned", pinned), ("Now", present)):
        label, strip = st.columns([1, 7], vertical_alignment="center")
        label.markdown(f"**{name}**")
        with strip:
            ruler(n_blocks, cut.blocks, f"{name}: {cut.describe(n_blocks)}", compact=True)
    if pinned == present:
        st.caption("This is the pinned choice itself. Choose another span: its figures will stand beside these.")
    st.table(rows(state, pinned, present), alt="figures of the pinned choice and of the present one")
    st.caption(_verdict(state, pinned, present))
    _buttons(state, pinned, present)


def rows(state: Studio, pinned: "Cut", present: "Cut") -> pd.DataFrame:
    """One row per figure; the last column is now minus pinned where that means something."""
    left, right = _figures(state, pinned), _figures(state, present)
    table = {
        name: {"pinned": said, "now": right[name][0], "difference": _difference(value, right[name][1], form)}
        for name, (said, value, form) in left.items()
    }
    return pd.DataFrame.from_dict(table, orient="index")


Figure = tuple[str, float | None, str]
"""what is shown, the number behind it, and how a difference of two such numbers is written"""


def _figures(state: Studio, cut: "Cut") -> dict[str, Figure]:
    measurement = live.shown(state)
    found: dict[str, Figure] = {"removes": (cut.describe(measurement.n_blocks).removeprefix("removes ").split(" of ")[0], None, "")}
    for name, positions in (("distance, all tokens", "all"), ("distance, last token", "last")):
        matrix = measurement.distances[positions]
        errors = [float(matrix.spread[span.start, span.end]) / max(1, matrix.n_sequences) ** 0.5 for span in cut.spans]
        said = " and ".join(f"{matrix.at(span):.4f} ± {error:.4f}" for span, error in zip(cut.spans, errors, strict=True))
        found[name] = (said, matrix.at(cut.spans[0]) if len(cut.spans) == 1 else None, "+.4f")
    found[f"place by {criterion_title(state)}"] = (_place(state, cut), None, "")
    found |= _errors(state, cut)
    saved, time = savings_of.cut(state, cut), savings_of.time_per_token(state, cut)
    if saved is not None:
        found["depth"] = (f"−{saved.depth:.0%}", -100 * saved.depth, "+.0f points")
        found["parameters"] = (f"−{saved.parameters}", -saved.n_parameters, "+,.0f")
        found["memory"] = (f"−{saved.memory}", -saved.n_bytes / 2**20, "+,.1f MiB")
    if not state.reads_images:
        found["ms per token, measured"] = (
            (minus(f"{time.after:.2f} ({time.share:+.0%} to the original)"), time.after, "+.2f")
            if time is not None
            else ("not timed", None, "")
        )
    return found


def _place(state: Studio, cut: "Cut") -> str:
    """'1st of 9' for each span, among those of its length."""
    from replaceme_core.selection import spans

    said = []
    for span in cut.spans:
        ranked = [other for other, _ in spans.top(ranking(state, len(span))[0], len(span), 10_000)]
        said.append(f"{ranked.index(span) + 1} of {len(ranked)}")
    return " and ".join(said)


def _errors(state: Studio, cut: "Cut") -> dict[str, Figure]:
    """Held-out error of the fit and of removal without a transform; several spans are fitted in sequence, on the Fit page."""
    fitted, removed = "error after the fit, held-out", f"the same, {CUT}"
    if len(cut.spans) > 1:
        return {fitted: ("see the Fit page", None, ""), removed: (_UNKNOWN, None, "")}
    span = cut.spans[0]
    if state.partial is not None:
        return {fitted: ("after the pass", None, ""), removed: (_UNKNOWN, None, "")}
    if not live.can_fit(state, span):
        return {fitted: ("not stored by the pass", None, ""), removed: (_UNKNOWN, None, "")}
    if live.expected_seconds(state, span, closed_form(state)) > live.LONG:
        return {fitted: ("see the Fit page", None, ""), removed: (_UNKNOWN, None, "")}
    try:
        report = live.transform(state, span, closed_form(state)).report
    except ReplaceMeError:
        return {fitted: (_UNKNOWN, None, ""), removed: (_UNKNOWN, None, "")}
    return {
        fitted: (f"{report.heldout_error:.1%}", 100 * report.heldout_error, "+.1f points"),
        removed: (f"{report.removal_error:.1%}", 100 * report.removal_error, "+.1f points"),
    }


def _difference(left: float | None, right: float | None, form: str) -> str:
    if left is None or right is None:
        return ""
    number, _, unit = form.partition(" ")
    return minus(f"{right - left:{number}} {unit}".strip()) if right != left else "0"


def _verdict(state: Studio, pinned: "Cut", present: "Cut") -> str:
    """What the figures say, with their n."""
    matrix = live.shown(state).distances["all"]
    said = (
        f"± is one standard error over {matrix.n_sequences:,} sequences ({matrix.n_tokens:,} tokens); errors of fits are on "
        f"{live.shown(state).n_heldout_tokens:,} held-out tokens, of least squares."
    )
    if len(pinned.spans) > 1 or len(present.spans) > 1 or pinned == present:
        return said
    one, other = pinned.spans[0], present.spans[0]
    gap = matrix.at(other) - matrix.at(one)
    error = float((matrix.spread[one.start, one.end] ** 2 + matrix.spread[other.start, other.end] ** 2) ** 0.5) / matrix.n_sequences**0.5
    apart, moved = abs(gap) > 2 * error, minus(f"{gap:+.4f}")
    return f"**The distances {'differ' if apart else 'cannot be told apart'}** ({moved}, standard error {error:.4f}). {said}"


def _buttons(state: Studio, pinned: "Cut", present: "Cut") -> None:
    resident = state.resident
    with st.container(horizontal=True):
        if st.button("Go back to the pinned one", icon=":material/swap_horiz:", disabled=pinned == present):
            state.slot(PinnedState).cut = present
            state.choose_cut(pinned)
            st.rerun()
        timed = resident is not None and not resident.merges_on_disk and not state.reads_images
        if timed and st.button("Time both", icon=":material/timer:", disabled=has_active_job(state)):
            savings_of.time_cuts(state, list(dict.fromkeys((pinned, present))))
            st.rerun()
        if st.button("Unpin", icon=":material/keep_off:"):
            state.slot(PinnedState).cut = None
            st.rerun()
