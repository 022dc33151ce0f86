"""Healing on the Fit page, which is training: its settings, the job, and the loss curve of what was healed."""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from ui.fit import words
from ui.fit.charts import part_marks
from ui.look.figures import duration, number
from ui.look.glossary import TERMS
from ui.look.layout import split
from ui.look.palette import Palette, palette
from ui.look.vega import AMOUNT, NOMINAL, Rows, Spec, layered, mark
from ui.parts.chart import show
from ui.parts.job_panel import has_active_job, show_job
from ui.session import live
from ui.session.calibration_choice import is_same
from ui.session.jobs import Job, runner
from ui.session.state import Studio
from ui.session.variants import free_name, put
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Variant
    from replaceme_core.healing_report import HealingPoint, HealingReport
    from replaceme_core.plans.plan import HealingSection

_TITLE = "Healing (training)"
_KINDS = {
    "lora": ("All blocks, by LoRA", "Every linear layer of every block gets a small update. Comes closest to the original."),
    "transform": ("The matrix T alone", "Only the carrier changes, as in the fit; everything else stays as it is."),
}
_PASSES = 4.0
"""cost of a training step in forward passes: the original's, the pruned model's, and back through it"""


def section(state: Studio) -> None:
    """The whole part of the page, where there is something to heal."""
    resident = state.resident
    if resident is None or resident.merges_on_disk or state.reads_images or not state.variants:
        return
    st.markdown("### Heal a saved variant (training)")
    st.caption(words.HEAL_HELP)
    _form(state)
    for variant in state.variants.values():
        if variant.healing is not None:
            _result(variant, variant.healing)


def _form(state: Studio) -> None:
    names = [name for name, variant in state.variants.items() if _can_be_healed(variant)]
    if not names:
        return
    with st.container(border=True):
        left, right = split("heal", [3, 2])
        name = left.selectbox("Variant to heal", names, index=len(names) - 1, key="heal_variant")
        kind = left.radio(
            "What is trained",
            list(_KINDS),
            format_func=lambda kind: _KINDS[kind][0],
            captions=[said for _, said in _KINDS.values()],
            key="heal_kind",
            persist_state="session",
        )
        chosen = _settings(state, kind, right)
        variant = state.variants[name]
        mismatch = _other_text(state, variant)
        if mismatch:
            st.info(words.HEAL_OTHER_TEXT, icon=":material/info:")
        busy = has_active_job(state)
        if st.button(
            "Heal it (training)",
            icon=":material/healing:",
            disabled=busy or mismatch,
            help="The kept variant stays; the result is a new one.",
        ):
            start(state, variant, chosen)
            st.rerun()
        job = runner().latest(state.owner, "long")
        if job is not None and job.active and job.title.startswith(_TITLE):
            show_job(state, large=True)
            st.fragment(_live, run_every=2.0)(_folder(state, variant, chosen))


def _can_be_healed(variant: "Variant") -> bool:
    return not variant.transform.settings.get("separate") and (variant.healing is None or not variant.healing.lowered)


def _settings(state: Studio, kind: str, place: "st.delta_generator.DeltaGenerator") -> "HealingSection":
    """Steps, their tokens and the rate, and what they come to in tokens and time."""
    from replaceme_core import healing
    from replaceme_core.plans.plan import HealingSection

    steps = place.number_input("Steps", 1, 100_000, 200, 50, key="heal_steps", persist_state="session", help=words.HEAL_STEPS_HELP)
    at_once = place.number_input(
        "Tokens of a step", 64, 65_536, 2048, 256, key="heal_tokens", persist_state="session", help=words.HEAL_TOKENS_HELP
    )
    rate = place.number_input(
        "Rate",
        min_value=0.0,
        value=None,
        step=1e-4,
        format="%g",
        placeholder=number(healing.default_rate(kind, live.width(state))),
        key="heal_rate",
        persist_state="session",
        help=words.HEAL_RATE_HELP,
    )
    chosen = HealingSection.parse({"kind": kind, "steps": int(steps), "batch_tokens": int(at_once), "rate": rate or None}, "the healing")
    if state.calibration is not None and state.measurement is not None:
        train = state.calibration.n_tokens - state.calibration.n_heldout_tokens
        seen = chosen.steps * min(chosen.batch_tokens, train)
        seconds = _PASSES * seen * state.measurement.seconds / max(1, state.measurement.n_tokens)
        place.caption(
            f"Trains on the {train:,} train tokens of the calibration set, about {seen / train:.0f} times over; checked on its "
            f"{state.calibration.n_heldout_tokens:,} held-out tokens. Roughly {duration(seconds)} here."
        )
    return chosen


def start(state: Studio, variant: "Variant", chosen: "HealingSection") -> Job:
    """The job. A cancelled one goes on from its last checkpoint when it is started again with the same settings."""
    resident, calibration, folder = state.resident, state.calibration, _folder(state, variant, chosen)
    if resident is None or calibration is None:
        raise RuntimeError("asked to heal without a model and its calibration set")
    key = (state.owner, variant.name)
    given = resident.texts.get(key)

    def work(job: Job) -> None:
        from replaceme_core import healing

        healed = healing.heal(resident.handle, variant, calibration, chosen, job, folder)
        if healed.healing is not None and healed.healing.lowered:
            name = free_name(state, healed.name)
            healed = replace(healed, name=name, handle=replace(healed.handle, name=name))
        if given is not None:
            resident.texts[(state.owner, healed.name)] = given
        put(state, resident, healed, like=variant.name)

    return submit(state, f"{_TITLE} of '{variant.name}'", work, chosen.model_dump_json())


@st.cache_resource
def _root() -> "tempfile.TemporaryDirectory[str]":
    """Where checkpoints lie while the server runs."""
    return tempfile.TemporaryDirectory(prefix="replaceme-healing-")


def _folder(state: Studio, variant: "Variant", chosen: "HealingSection") -> Path:
    text = state.calibration.fingerprint if state.calibration else ""
    said = f"{state.owner} {variant.handle.fingerprint} {text} {chosen.model_dump_json()}"
    return Path(_root().name) / hashlib.sha256(said.encode()).hexdigest()[:16]


def _other_text(state: Studio, variant: "Variant") -> bool:
    """Whether the set that is measured now is not the one that the variant was fitted on: one recipe could not say both."""
    section, resident = state.calibration_section, state.resident
    if section is None or resident is None or type(section).model_validate(variant.recipe.get("calibration", {})) != section:
        return True
    return not is_same(resident.texts.get((state.owner, variant.name)), state.calibration_text)


def _live(folder: Path) -> None:
    from replaceme_core.healing import checkpoints

    points = checkpoints.points(folder)
    if len(points) > 1:
        best = min(points, key=lambda point: point.heldout)
        said = f"Held-out KL so far: {points[0].heldout:.4f} at the start, least {best.heldout:.4f} at step {best.step}."
        show(curve(points, best.step, palette()), alt=said)


def _result(variant: "Variant", report: "HealingReport") -> None:
    """The curve of a healed variant, or why it was left as it was."""
    for note in report.notes:
        st.warning(f"{variant.name}: {note}", icon=":material/warning:")
    shelf = hashlib.sha256(variant.name.encode()).hexdigest()[:8]
    with st.container(key=f"stage_loss_{shelf}"), st.expander(f"Loss curve: {variant.name}", expanded=report.lowered):
        before, after, time = st.columns(3)
        before.metric("Held-out KL before", f"{report.before:.4f}", help=TERMS["KL"])
        after.metric("Held-out KL after", f"{report.after:.4f}", delta=f"{report.after - report.before:+.4f}", delta_color="inverse")
        time.metric(
            "Trained in", duration(report.seconds), help=f"{report.steps} steps, {report.points[-1].n_tokens:,} tokens, repeats counted."
        )
        said = f"Held-out KL from {report.before:.4f} to {report.after:.4f}, kept at step {report.best}; the table holds all steps."
        show(curve(report.points, report.best, palette()), alt=said)
        st.caption(
            f"{words.HEAL_CURVE_HELP} {report.n_trained:,} numbers were trained on {report.n_tokens:,} tokens; "
            f"{report.n_heldout_tokens:,} tokens were held out."
        )
        table = [
            {
                "step": point.step,
                "tokens": f"{point.n_tokens:,}",
                "train KL": "" if point.train is None else f"{point.train:.4f}",
                "held-out KL": f"{point.heldout:.4f}",
            }
            for point in report.points
        ]
        st.dataframe(table, hide_index=True, height=220)


def curve(points: "tuple[HealingPoint, ...] | list[HealingPoint]", best: int, colours: Palette) -> Spec:
    """Train and held-out KL against steps; a vertical rule at the step that was kept."""
    rows = Rows(
        {"step": point.step, "tokens": point.n_tokens, "kl": value, "part": part}
        for point in points
        for part, value in (("held-out", point.heldout), ("train", point.train))
        if value is not None
    )
    x = {**AMOUNT, "field": "step", "title": "step", "axis": {"grid": False, "tickMinStep": 1, "format": ",d"}}
    y = {**AMOUNT, "field": "kl", "title": "KL to the original (nats per token)", "scale": {"domainMin": 0}}
    tips = [
        {**NOMINAL, "field": "part"},
        {**AMOUNT, "field": "step"},
        {**AMOUNT, "field": "tokens", "format": ","},
        {**AMOUNT, "field": "kl", "title": "KL", "format": ".4f"},
    ]
    lines = mark("line", "losses", {"x": x, "y": y, **part_marks(colours), "tooltip": tips}, point={"size": 28})
    kept = mark("rule", "kept", {"x": x}, color=colours.carrier, strokeWidth=2)
    return layered([lines, kept], {"losses": rows, "kept": Rows([{"step": best}])}, colours, height=240)
