"""The Unload button of the Model page: what goes with the model is said, and asked about if it cannot be made again at once."""

import streamlit as st

from ui.look.figures import gib
from ui.parts.job_panel import has_active_job
from ui.session.access import access
from ui.session.hub import hub
from ui.session.kept import is_kept
from ui.session.results import Results
from ui.session.state import Studio


def button(state: Studio) -> None:
    """Give the model's memory back. Not where several people share the server and may be using the same model."""
    resident = state.resident
    if resident is None or access().shared:
        return
    busy = has_active_job(state)
    names = list(state.variants)
    if not names:
        if st.button(f"Unload ({gib(resident.n_bytes)})", icon=":material/eject:", disabled=busy, help=_HELP):
            unload(state)
            st.rerun()
        return
    with st.popover("Unload …", icon=":material/eject:", disabled=busy, help=_HELP):
        saved = {fingerprint for fingerprint, _ in state.slot(Results).exports}
        others = [name for name in names if state.variants[name].handle.fingerprint not in saved]
        lost = [name for name in others if not is_kept(state, resident, name)]
        if lost:
            st.warning(f"Not exported, and gone with the model: {', '.join(lost)}.")
        if back := [name for name in others if name not in lost]:
            st.info(f"Back when this model is loaded and its text measured again: {', '.join(back)}.")
        st.caption(f"Gives {gib(resident.n_bytes)} and the measurement's sums back. Exported folders stay.")
        if st.button("Unload now", type="primary", disabled=busy):
            unload(state)
            st.rerun()


_HELP = "Forgets the model, its measurement and its variants, and gives their memory back."


def unload(state: Studio) -> None:
    """Forget the model and everything of this session that was made with it."""
    fingerprint = state.model
    state.forget_model()
    if fingerprint is not None:
        hub().unload(fingerprint)
