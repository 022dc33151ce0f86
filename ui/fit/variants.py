"""The kept variants: listed with their proofs, renamed, duplicated, deleted."""

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from ui.fit.view import free_name
from ui.look import fit_words
from ui.look.layout import split
from ui.parts.heatmap import blocks_text
from ui.session.hub import Resident
from ui.session.state import Studio

if TYPE_CHECKING:
    from replaceme_core.artifacts import Variant


def _healed(variant: "Variant") -> str:
    """The held-out KL before and after a healing; the error beside it is that of the fit before."""
    report = variant.healing
    return f"training: KL {report.before:.3f} → {report.after:.3f}" if report is not None and report.lowered else ""


def kept(state: Studio) -> None:
    """The variants so far, with their proofs, and what can be done with one."""
    if not state.variants:
        return
    resident = state.resident
    st.markdown("### Kept variants")
    healed = any(map(_healed, state.variants.values()))
    rows = [
        {
            "name": variant.name,
            "removes": ", ".join(blocks_text(span.start, span.end) for span in variant.transform.cut.spans),
            "method": variant.transform.method.replace("_", " "),
            "held-out error": f"{variant.transform.report.heldout_error:.1%}",
            **({"healed": _healed(variant)} if healed else {}),
            "parameters": f"{variant.handle.n_parameters:,}",
            "proofs": " · ".join(f"{'✓' if proof.passed else '✗'} {proof.name} ({proof.error:.0e})" for proof in variant.proofs),
        }
        for variant in state.variants.values()
    ]
    wide = {name: st.column_config.TextColumn(width=width) for name, width in (("name", 300), ("healed", 190))} if healed else {}
    st.dataframe(rows, hide_index=True, column_config=wide)
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
        if st.button("Rename", icon=":material/edit:", disabled=not new or new in names):
            rename(state, resident, chosen, new)
            st.rerun()
        if st.button("Duplicate", icon=":material/content_copy:", disabled=on_disk, help=fit_words.MANAGE_HELP):
            duplicate(state, resident, chosen)
            st.rerun()
        with st.popover("Delete", icon=":material/delete:"):
            st.markdown(f"Delete **{chosen}**? Its scores go with it. A folder that was written stays.")
            if st.button("Delete it", type="primary"):
                delete(state, resident, chosen)
                st.rerun()
    if new != chosen and new in names:
        st.caption("This name is taken; choose another one.")


def rename(state: Studio, resident: Resident, old: str, new: str) -> None:
    """Under the new name everywhere: the list, the columns of Compare, the recipe's folder and text."""
    before, after = (state.owner, old), (state.owner, new)
    resident.variants[after] = _named(resident.variants.pop(before), new)
    for table in (resident.folders, resident.texts):
        if before in table:
            table[after] = table.pop(before)  # type: ignore[index, assignment]


def duplicate(state: Studio, resident: Resident, name: str) -> str:
    """A second variant with the same weights; they are shared, not copied. Returns its name."""
    copy = free_name(state, name)
    resident.variants[state.owner, copy] = _named(resident.variants[state.owner, name], copy)
    if (state.owner, name) in resident.texts:
        resident.texts[state.owner, copy] = resident.texts[state.owner, name]
    return copy


def delete(state: Studio, resident: Resident, name: str) -> None:
    """Forget a variant; its memory is given back with its last copy."""
    for table in (resident.variants, resident.folders, resident.texts):
        table.pop((state.owner, name), None)


def _named(variant: "Variant", name: str) -> "Variant":
    return replace(variant, name=name, handle=replace(variant.handle, name=name))
