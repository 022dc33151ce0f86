"""The form that names a model, the memory check, and the card of the loaded model."""

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from replaceme_core.models.checkpoints import smollm2
from ui.look.figures import amount, gib
from ui.look.layout import split
from ui.look.ruler import ruler
from ui.look.words import MODEL_LEFT
from ui.model import words
from ui.parts.quantised import held
from ui.parts.start import about_real
from ui.session.access import Access, access
from ui.session.hub import hub
from ui.session.state import Studio
from ui.session.warm import warm

if TYPE_CHECKING:
    from replaceme_core.measurement.preflight import Preflight
    from replaceme_core.plans.plan import ModelSection

_SOURCES = {"hub": "Hugging Face id", "smollm2": "SmolLM2", "folder": "Local folder or GGUF file", "demo": "Demo model"}
_AS_STORED = "as stored"
_HELD = {"whole": "as they are", "nf4": "4 bits (NF4)", "int8": "8 bits (int8)"}
_FRESH = 30
"""seconds that a memory check holds"""


def ask(state: Studio) -> "ModelSection | None":
    """The model section that the form describes; None while a needed field is empty."""
    rules = access()
    sources = [name for name in _SOURCES if rules.allows_source(name)]
    usual = "demo" if state.resident is not None and state.resident.is_demo and "demo" in sources else sources[0]
    source = st.segmented_control(
        "Where is it?", sources, format_func=_SOURCES.get, default=usual, required=True, key="model_source", persist_state="session"
    )
    path, revision = _location(source or usual, rules)
    dtype, held, device = split("held", [1, 1, 1])
    precision = dtype.selectbox(
        "Precision",
        [_AS_STORED, "float32", "bfloat16", "float16"],
        key="model_dtype",
        persist_state="session",
        help=words.PRECISION_HELP,
    )
    quantisation = held.selectbox(
        "Weights in memory", list(_HELD), format_func=_HELD.get, key="model_quantisation", persist_state="session", help=words.HELD_HELP
    )
    where = device.selectbox(
        "Device",
        ["auto", "cpu", "cuda", "mps", "spread"],
        format_func=lambda name: "over all devices" if name == "spread" else name,
        key="model_device",
        persist_state="session",
        help="auto: a graphics card if there is one, else the processor. Over all devices: graphics cards first, then main memory, then disk.",
    )
    if quantisation != "whole" or where == "spread":
        st.info(words.CLOSES, icon=":material/info:")
    if not path:
        st.caption("Fill in the name of the model to go on.")
        return None
    from replaceme_core.plans.plan import ModelSection

    named = {} if precision == _AS_STORED else {"dtype": precision}
    return ModelSection(
        path=path, revision=revision or None, device=where, quantisation=None if quantisation == "whole" else quantisation, **named
    )


def _location(source: str, rules: Access) -> tuple[str, str]:
    if source == "demo":
        st.caption("A small model that was trained for this app. It is on this machine already and needs no network.")
        return "demo", ""
    if source == "smollm2":
        about_real()
        return smollm2.NAME, ""
    if source == "folder":
        path = st.text_input(
            "Folder or file", placeholder="/home/me/models/my-model", key="model_folder", persist_state="session", help=words.FOLDER_HELP
        )
        return path.strip(), ""
    name, revision = st.columns([3, 1])
    if rules.models:
        path = name.selectbox("Model", rules.models, key="model_listed", persist_state="session")
    else:
        path = name.text_input(
            "Id",
            placeholder="HuggingFaceTB/SmolLM2-135M",
            key="model_id",
            persist_state="session",
            help="Needs a network. Only safetensors weights are read, and no code from the hub is run.",
        )
    tag = revision.text_input(
        "Revision", placeholder="main", key="model_revision", persist_state="session", help="Branch, tag or commit; empty: the newest."
    )
    return (path or "").strip(), tag.strip()


def must_ask(section: "ModelSection") -> bool:
    """Whether the memory check waits for its button: a hub id whose configuration was not fetched yet."""
    return not _is_here(section.path) and (section.path, section.revision) not in st.session_state.get("checked_ids", set())


def _is_here(path: str) -> bool:
    folder = Path(path).expanduser()
    if path == smollm2.NAME:
        return smollm2.packaged() is not None
    return path == "demo" or path.lower().endswith(".gguf") or folder.is_absolute() or folder.is_dir()


def show_preflight(section: "ModelSection", asked: bool) -> None:
    """What the configuration promises, before a byte of weights is read. It follows the form; a hub id is looked up when asked to."""
    if asked:
        st.session_state.setdefault("checked_ids", set()).add((section.path, section.revision))
    if must_ask(section):
        st.caption("Check memory first reads the configuration from the hub, a few kilobytes, and then follows your choices.")
        return
    with st.spinner("Reading the configuration …"):
        warm().join()
        try:
            found = _preflight(section.model_dump_json(exclude_unset=True))
        except ReplaceMeError as error:
            st.error(str(error), icon=":material/error:")
            st.session_state.get("checked_ids", set()).discard((section.path, section.revision))  # asked again only by the button
            return
    _promised(section, found)


@st.cache_resource(ttl=_FRESH, max_entries=16, show_spinner=False)
def _preflight(section: str) -> "Preflight":
    from replaceme_core.measurement.preflight import preflight
    from replaceme_core.plans.plan import ModelSection

    return preflight(ModelSection.model_validate_json(section))


def _promised(section: "ModelSection", found: "Preflight") -> None:
    with st.container(horizontal=True, gap="large"):
        figures = (
            ("Blocks", f"{found.n_blocks}", None),
            ("Width", f"{found.width}", None),
            ("Parameters", amount(found.n_parameters), None),
            ("Weights", gib(found.weights_bytes), f"Held as chosen: {_HELD[section.quantisation or 'whole']}, {found.dtype}."),
            ("Peak of the pass", gib(found.needed_bytes), "Weights, sums and the states of one batch, at the default budget of the pass."),
        )
        for label, figure, help_ in figures:
            st.metric(label, figure, help=help_, width="content")
    st.caption("Weights as they are: " + " · ".join(f"{dtype} {gib(size)}" for dtype, size in found.bytes_by_dtype.items()))
    (st.success if found.fits else st.warning)(f"{found.architecture} {found.verdict}.")
    if found.merge == "refused":
        st.warning(f"This model can be loaded but not pruned: {found.reason}.")
    elif found.merge == "unknown":
        st.info(f"Whether this model can be pruned shows when it is loaded: {found.reason}.")
    if found.left_out:
        st.warning(f"{found.left_out}.")
    leaving = hub().leaving(found.needed_bytes, section.device)
    if leaving:
        names = ", ".join(f"{resident.handle.name} ({len(resident.variants)} variants)" for resident in leaving)
        st.warning(f"To make room, this will be unloaded first: {names}. Export what you want to keep.")


def card(state: Studio) -> None:
    """The loaded model: picture, figures, and whether a transform merges into it."""
    resident = state.resident
    if resident is None:
        st.caption(
            MODEL_LEFT if state.model else "Nothing is loaded yet. The Overview starts with a real language model, or with a small demo."
        )
        return
    handle = resident.handle
    ruler(handle.n_blocks, state.removed, f"{handle.name}: {state.span_words(handle.n_blocks)}")
    if handle.origin:
        st.caption(f":material/inventory_2: From {handle.origin}.")
    family, width, parameters, size = st.columns(4)
    family.metric("Family", handle.family.name)
    width.metric("Width", handle.width, help="Numbers per token in the residual stream between blocks; the transform is width × width.")
    parameters.metric("Parameters", amount(handle.n_parameters), help=f"{resident.block_parameters[0]:,} in block 0")
    size.metric("In memory", gib(handle.n_bytes), help=f"{handle.dtype} on {handle.device}")
    if resident.merges_on_disk:
        st.info(f"{held(resident.section)[:1].upper()}{held(resident.section)[1:]}, for measuring: {words.MERGED_LATER}")
    if handle.family.merge == "exact":
        st.caption(
            f":material/check_circle: A transform merges exactly into the output projection `{handle.family.writer}`: {handle.family.reason}."
        )
    elif handle.family.merge == "diagonal":
        st.info(
            f"Only a diagonal transform merges into the output projection `{handle.family.writer}`: {handle.family.reason}. The Fit page offers that one."
        )
    else:
        st.warning(f"This model cannot be pruned here: {handle.family.reason}.")
