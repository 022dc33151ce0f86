"""How linear is each block? The scores of "Your Transformer is Secretly Linear" on the Blocks page, as bars and as a table."""

import altair as alt
import pandas as pd
import streamlit as st

from ui.blocks.state import Linearity, MeasuredState
from ui.look.chart_style import styled
from ui.look.palette import Palette, palette
from ui.parts.chart import show
from ui.parts.job_panel import has_active_job, show_job
from ui.session.jobs import Job, runner
from ui.session.state import Studio
from ui.session.work import submit

TITLE = "Measure how linear the blocks are"
HELP = (
    "A block is linear if one matrix, the same for every token, can stand in for it. The score is the share of the residual stream behind the block "
    "that the best matrix explains: 1 is exactly linear (arXiv 2405.12250)."
)
CAPTION = (
    "Blue: the whole residual stream behind the block. Most of it only passes by, so the bars are high wherever a block does little. "
    "Green diamond: what the block itself adds. A low diamond under a high bar is a block that works in a way no matrix can, but adds little."
)
_WHOLE, _OWN = "the stream behind it", "its own part"


def measure_linearity(state: Studio) -> Job:
    """One more pass over the calibration set, as a job."""
    resident, calibration, measurement = state.resident, state.calibration, state.measurement

    def work(job: Job) -> None:
        from replaceme_core.baselines import secretly_linear

        if resident is None or calibration is None or measurement is None:
            raise RuntimeError("linearity needs a measured model")
        fits = secretly_linear.fits(resident.handle, calibration, job)
        found = Linearity(
            [fit.heldout_score for fit in fits], [fit.heldout_own_score for fit in fits], fits[0].n_tokens, fits[0].n_heldout_tokens
        )
        if state.measurement is measurement:
            state.slot(MeasuredState).linearity = found

    return submit(state, TITLE, work, measurement.calibration_fingerprint if measurement else "")


def linearity(state: Studio) -> None:
    """The button; then the picture and its table twin."""
    if state.measurement is None or state.resident is None:
        return
    st.markdown("### How linear is each block?")
    st.caption(HELP)
    found = state.slot(MeasuredState).linearity
    if found is None:
        if st.button(TITLE, icon=":material/straighten:", disabled=has_active_job(state)):
            measure_linearity(state)
            st.rerun()
        job = runner().latest(state.owner, "long")
        if job is not None and job.active and job.title == TITLE:
            show_job(state, large=True)
        return
    removed = state.removed or []
    rows = linearity_rows(found, removed)
    picture, table = st.tabs(["Chart", "Table"])
    with picture:
        best = rows.loc[rows[_WHOLE].idxmax()]
        show(
            linearity_chart(rows, palette()),
            alt=f"Linearity of every block; the highest is block {best['block']} with {best[_WHOLE]:.3f}. The table holds the same figures.",
        )
    with table:
        figures = {name: st.column_config.NumberColumn(format="%.4f") for name in (_WHOLE, _OWN)}
        st.dataframe(rows[["block", _WHOLE, _OWN, "removed"]], hide_index=True, column_config=figures)
    said = "Outlined: the blocks that the present cut removes. " if removed else ""
    st.caption(f"{CAPTION} {said}Matrices fitted on {found.n_tokens:,} tokens, scores on {found.n_heldout_tokens:,} held-out tokens.")


def linearity_rows(found: Linearity, removed: list[int]) -> pd.DataFrame:
    """One row per block. A block that adds nothing but a constant is linear in its own part too."""
    blocks = list(range(len(found.whole)))
    return pd.DataFrame({"block": blocks, _WHOLE: found.whole, _OWN: found.own, "removed": [block in removed for block in blocks]})


def linearity_chart(rows: pd.DataFrame, colours: Palette) -> alt.LayerChart:
    """Bars for the stream, diamonds for the block's own part; a score below 0 (worse than the mean) is drawn at 0."""
    drawn = rows.assign(bar=rows[_WHOLE].clip(lower=0), dot=rows[_OWN].clip(lower=0), text=rows[_WHOLE].map("{:.2f}".format))
    drawn["said"] = [f"block {b}: {w:.3f} of the stream, {o:.3f} of its own part" for b, w, o in rows[["block", _WHOLE, _OWN]].to_numpy()]
    x = alt.X("block:O", title="block", axis=alt.Axis(labelAngle=0, grid=False))
    scale = alt.Scale(domain=[0, 1.12], nice=False)
    y = alt.Y(
        "bar:Q", title="linearity (1 = a matrix does it all)", scale=scale, axis=alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f")
    )
    tips = [alt.Tooltip("block:O"), alt.Tooltip(f"{_WHOLE}:Q", format=".4f"), alt.Tooltip(f"{_OWN}:Q", format=".4f")]
    quiet = {"tooltip": None, "aria": False}
    base = alt.Chart(drawn)
    layers = [
        base.mark_bar(color=colours.pruned, opacity=0.75, cornerRadiusEnd=2).encode(
            x=x, y=y, tooltip=tips, description=alt.Description("said:N")
        ),
        alt.Chart(drawn[drawn["removed"]]).mark_bar(filled=False, stroke=colours.cut, strokeWidth=3, **quiet).encode(x=x, y=y),
        base.mark_text(dy=-12, color=colours.ink, fontSize=12, **quiet).encode(x=x, y=y, text=alt.Text("text:N")),
        base.mark_point(
            shape="diamond", filled=True, size=110, opacity=1, color=colours.carrier, stroke=colours.background, **quiet
        ).encode(x=x, y=alt.Y("dot:Q", scale=scale, title="")),
    ]
    return styled(alt.layer(*layers), colours, height=280)
