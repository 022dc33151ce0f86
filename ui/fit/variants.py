"""The kept variants: listed with their checks, renamed, duplicated, deleted."""

from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.plans.methods import in_words
from ui.fit import words
from ui.look.figures import cut_text, number
from ui.look.layout import split
from ui.session.hub import Resident
from ui.session.kept import not_kept
from ui.session.state import Studio
from ui.session.variants import delete, duplicate, is_taken, rename

if TYPE_CHECKING:
    from replaceme_core.artifacts import Variant


def _healed(variant: "Variant") -> str:
    """The held-out KL before and after a healing; the error beside it is that of the fit before."""
    report = variant.healing
    return f"training: KL {report.before:.3f} → {report.after:.3f}" if report is not None and report.lowered else ""


def kept(state: Studio) -> None:
    """The variants so far, with their checks, and what can be done with one."""
    if not state.variants:
        return
    resident = state.resident
    st.markdown("### Saved variants")
    healed = any(map(_healed, state.variants.values()))
    rows = [
        {
            "name": variant.name,
            "removes": cut_text(variant.transform.cut),
            "method": in_words(variant.transform.method),
            "held-out error": f"{variant.transform.report.heldout_error:.1%}",
            **({"healed": _healed(variant)} if healed else {}),
            "parameters": f"{variant.handle.n_parameters:,}",
            "checks": " · ".join(f"{'✓' if proof.passed else '✗'} {proof.name} ({number(proof.error)})" for proof in variant.proofs),
        }
        for variant in state.variants.values()
    ]
    wide = {name: st.column_config.TextColumn(width=width) for name, width in (("name", 300), ("healed", 190))} if healed else {}
    st.dataframe(rows, hide_index=True, column_config=wide)
    for said in not_kept(state):
        st.caption(f":material/schedule: {said}")
    if resident is not None:
        _manage(state, resident)


def _manage(state: Studio, resident: Resident) -> None:
    """Rename, duplicate or delete one of them."""
    names = list(state.variants)
    chosen_box, name_box, actions = split("manage", [3, 3, 3], "bottom")
    chosen = chosen_box.selectbox("Variant", names, index=len(names) - 1, key=f"manage_{len(names)}")
    new = name_box.text_input("New name", value=chosen, key=f"rename_{chosen}").strip()
    on_disk = (state.owner, chosen) in resident.folders
    with actions.container(horizontal=True):
        if st.button("Rename", icon=":material/edit:", disabled=not new or is_taken(state, new)):
            rename(state, resident, chosen, new)
            st.rerun()
        if st.button("Duplicate", icon=":material/content_copy:", disabled=on_disk, help=words.MANAGE_HELP):
            duplicate(state, resident, chosen)
            st.rerun()
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown(f"Delete **{chosen}**? Its scores go with it. A folder that was written stays.")
            if st.button("Delete it", type="primary"):
                delete(state, resident, chosen)
                st.rerun()
    if new != chosen and is_taken(state, new):
        st.caption("This name is taken; choose another one.")
