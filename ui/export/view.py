"""The parts of the Export page: checks, saving, the run config and the command that repeats the run."""

from typing import TYPE_CHECKING

import streamlit as st

from ui.export import words
from ui.export.checks import checklist
from ui.export.jobs import MOST_ZIPPED, ExportState, Zipped, complete_folder, export_variant, zip_variant
from ui.look import ruler
from ui.look.figures import gib
from ui.look.glossary import TERMS
from ui.look.layout import split
from ui.parts.folder import BYTES, ask_folder, folder_name
from ui.parts.job_panel import has_active_job, show_job
from ui.session.access import access
from ui.session.calibration_choice import MOST_BYTES
from ui.session.results import Results
from ui.session.state import Studio

if TYPE_CHECKING:
    from pathlib import Path

    from replaceme_core.artifacts import Variant
    from ui.session.calibration_choice import GivenText

_WAYS = {"folder": "Folder", "zip": "Zip download"}


def ask_variant(state: Studio) -> "Variant":
    """The variant to export, with its ruler."""
    names = list(state.variants)
    name = names[-1] if len(names) == 1 else st.selectbox("Variant", names, index=len(names) - 1)
    variant = state.variants[name]
    if state.resident is not None:
        ruler.of_variant(state.resident.handle.n_blocks, name, variant.transform)
    return variant


def save(state: Studio, variant: "Variant") -> None:
    """A folder or a zip, the precision, and the primary button."""
    merged = merged_folder(state, variant)
    if merged is not None:
        _complete(state, variant, merged)
    elif variant.transform.settings.get("separate"):
        st.markdown("### Take it with you")
        st.info(words.SEPARATE_STAYS, icon=":material/info:")
    else:
        st.markdown("### Take it with you")
        _ask(state, variant)
    if has_active_job(state):
        show_job(state, large=True)


def _ask(state: Studio, variant: "Variant") -> None:
    from replaceme_core.plans.plan import ExportSection

    way_box, place_box, precision_box, button = split("folder", [3, 4, 2, 2], "bottom")
    way = way_box.segmented_control(
        "As", list(_WAYS), format_func=_WAYS.get, default="zip" if access().shared else "folder", required=True, key="export_way",
        persist_state="session",
    )  # fmt: skip
    if way == "zip":
        name = place_box.text_input("Name", value=folder_name(variant.name), key=f"zip_name_{variant.handle.fingerprint}").strip()
    else:
        name = ask_folder(place_box, variant.name, f"export_folder_{variant.handle.fingerprint}")
    own = variant.handle.dtype
    precisions = [own, *(other for other in ("float32", "bfloat16", "float16") if other != own)]
    precision = precision_box.selectbox("Precision", precisions, key="export_dtype")
    given = _ask_text(state, variant)
    section = ExportSection(dtype=None if precision == own else precision)
    size = variant.handle.n_parameters * BYTES[precision]
    too_large = way == "zip" and size > MOST_ZIPPED
    asked = button.button(
        "Pack the zip" if way == "zip" else "Export",
        type="primary",
        disabled=not name or too_large or has_active_job(state, "short"),
        icon=":material/folder_zip:" if way == "zip" else ":material/save:",
        width="stretch",
    )
    if asked:
        (zip_variant if way == "zip" else export_variant)(state, variant, name, section, given)
        st.rerun()
    if too_large:
        st.info(words.ZIP_TOO_LARGE.format(size=gib(size), most=gib(MOST_ZIPPED)), icon=":material/info:")
    st.caption(f"About **{gib(size)}** of weights. {words.ZIP_HELP if way == 'zip' else words.EXPORT_HELP}")
    if way == "zip":
        _fetch(state, variant, precision)


def _fetch(state: Studio, variant: "Variant", precision: str) -> None:
    """The zip that is ready, if it is of this variant in this precision."""
    zipped = _zip_of(state, variant)
    if zipped is None or zipped.precision != precision or not zipped.path.is_file():
        return
    st.download_button(
        f"Download {zipped.path.name} ({gib(zipped.n_bytes)})",
        lambda: zipped.path.open("rb"),
        file_name=zipped.path.name,
        mime="application/zip",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
    )


def merged_folder(state: Studio, variant: "Variant") -> "Path | None":
    """Where the variant is already, if it was merged on disk."""
    return state.resident.folders.get((state.owner, variant.name)) if state.resident else None


def _complete(state: Studio, variant: "Variant", folder: "Path") -> None:
    """Such a variant was written when it was kept; what can be added is what was measured since, and its text."""
    from replaceme_core.plans.plan import ExportSection

    st.markdown("### It is saved")
    st.caption(f"{words.MERGED_SAVED} Folder: `{folder}`.")
    given = _ask_text(state, variant)
    scored = any(fingerprint == variant.handle.fingerprint for fingerprint, _ in state.slot(Results).scores)
    if st.button(
        "Complete the folder",
        type="primary",
        disabled=not (scored or given) or has_active_job(state, "short"),
        icon=":material/save:",
        help="Writes the benchmark scores into its model card, and the calibration text beside its run config.",
    ):
        complete_folder(state, variant, folder, given)
        st.rerun()
    if variant.handle.n_bytes <= MOST_ZIPPED and st.button(
        "Pack the zip", icon=":material/folder_zip:", disabled=has_active_job(state, "short"), help=words.ZIP_HELP
    ):
        zip_variant(state, variant, folder.name, ExportSection(), given)
        st.rerun()
    _fetch(state, variant, variant.handle.dtype)


def _given(state: Studio, variant: "Variant") -> "GivenText | None":
    """The upload or pasted text that the variant was fitted on."""
    return state.resident.texts.get((state.owner, variant.name)) if state.resident else None


def _ask_text(state: Studio, variant: "Variant") -> "GivenText | None":
    """Whether an uploaded or pasted text goes beside the recipe, without which it cannot be repeated; said in any case."""
    given = _given(state, variant)
    if given is None:
        return None
    if not given.fits:
        st.warning(f"{given.name} ({gib(len(given.data))}) is larger than {gib(MOST_BYTES)} and is not exported. {words.TEXT_LEFT}")
        return None
    with_text = st.toggle(
        f"Put the calibration text beside the run config ({given.name}, {gib(len(given.data))})",
        value=True,
        key=f"export_text_{variant.handle.fingerprint}",
        persist_state="session",
        help=f"It is written as {given.source}. Whoever has the folder can read it.",
    )
    if not with_text:
        st.caption(f":material/info: {words.TEXT_LEFT}")
    return given if with_text else None


def _folder(state: Studio, variant: "Variant") -> str:
    """The folder of the newest export of this variant, or the one in its zip."""
    written, zipped = state.slot(Results).exports_of(variant.handle.fingerprint), _zip_of(state, variant)
    if not written and zipped is not None:
        return zipped.path.stem
    return str(written[-1].folder) if written else "FOLDER"


def _zip_of(state: Studio, variant: "Variant") -> Zipped | None:
    """The zip that waits, if it holds these weights."""
    zipped = state.slot(ExportState).zipped
    return zipped if zipped is not None and zipped.fingerprint == variant.handle.fingerprint else None


def proofs(state: Studio, variant: "Variant") -> None:
    """The variant's checks, and the one of its newest export or zip if there is one."""
    found, zipped = [export.proofs for export in state.slot(Results).exports_of(variant.handle.fingerprint)], _zip_of(state, variant)
    if zipped is not None:
        found.append(zipped.proofs)
    mine = max([variant.proofs, *found], key=len)
    checklist(mine, reloads=merged_folder(state, variant) is None and not variant.transform.settings.get("separate"))


def done(state: Studio) -> None:
    """What was written in this session."""
    for _, export in reversed(state.slot(Results).exports):
        st.success(
            f"Exported to **{export.folder}**: {gib(export.n_bytes)} in {len(export.files)} files. "
            + (words.RELOADED if any(proof.name == "reload = memory" for proof in export.proofs) else words.MERGED_ON_DISK),
            icon=":material/check_circle:",
        )


def recipe(state: Studio, variant: "Variant") -> None:
    """The plan and the two ways to use it: repeat the run, load the result."""
    from replaceme_core.plans.plan import PruningPlan

    text = PruningPlan.parse(variant.recipe, "recipe").to_yaml()
    st.markdown("### Repeat it")
    left, right = split("recipe", [2, 3])
    with left:
        st.caption(TERMS["run config"])
        st.code(text, language="yaml")
        st.download_button(
            "Download the run config (recipe.yaml)", text, file_name="recipe.yaml", mime="application/yaml", icon=":material/download:"
        )
    with right:
        st.caption("From the command line:")
        folder = _folder(state, variant)
        st.code(f"python -m replaceme_core run --plan {folder}/recipe.yaml --out runs/again", language="bash", wrap_lines=True)
        if state.reads_images:
            st.caption("Its model card says with which class of transformers it loads.")
        else:
            st.caption("In any program that uses transformers:")
            st.code(
                f'from transformers import AutoModelForCausalLM\n\nfolder = "{folder}"\nmodel = AutoModelForCausalLM.from_pretrained(folder)',
                language="python",
                wrap_lines=True,
            )
        given = _given(state, variant)
        if given is not None:
            st.caption(f"The run config reads `{given.source}` beside itself, or from where you run the command.")
