"""An exported folder to the hub: name, who may read it, what would go, and the button. The login is the server's, and is never asked for."""

import os
from pathlib import Path

import streamlit as st

from replaceme_core.errors import ReplaceMeError
from ui.export import words
from ui.look.layout import split
from ui.parts.job_panel import has_active_job
from ui.session.access import access
from ui.session.jobs import Job
from ui.session.results import Results
from ui.session.state import Studio
from ui.session.work import submit


def push_folder(state: Studio, folder: Path, name: str, private: bool) -> Job:
    """Sends the folder; where it is now is kept with the session's results."""

    def work(job: Job) -> None:
        from replaceme_core.export import push

        done = push.push(push.packed(folder, name, private), job)
        state.slot(Results).pushed.append((str(folder), done.url, private))

    return submit(state, f"Pushing '{name}'", work, f"{folder} {private}")


def offer(state: Studio) -> None:
    """Below what was exported; not on a shared server, whose login is not its visitors'."""
    folders = [export.folder for _, export in state.slot(Results).exports if export.folder.is_dir()]
    if not folders or access().shared:
        return
    st.markdown("### Put it on the hub")
    folder_box, name_box, public_box, button = split("push", [3, 3, 2, 2], "bottom")
    folder = folder_box.selectbox("Exported folder", folders[::-1], format_func=str, key="push_folder")
    name = name_box.text_input("Name on the hub", placeholder="me/my-model", key="push_name", help=words.PUSH_NAME_HELP).strip()
    public = public_box.toggle("Public", key="push_public", help="Off: only you, and whom you let in on its page of the hub.")
    asked = button.button(
        "Push", type="primary", icon=":material/cloud_upload:", disabled=not name or not _login() or has_active_job(state), width="stretch"
    )
    if not _login():
        st.info(words.PUSH_LOGIN, icon=":material/key:")
    if asked:
        push_folder(state, folder, name, not public)
        st.rerun()
    if name:
        _would_go(folder, name, not public)
    for pushed, url, private in reversed(state.slot(Results).pushed):
        st.success(f"`{pushed}` is at {url}, {'private' if private else 'public'}.", icon=":material/cloud_done:")


def _login() -> bool:
    """Whether this server has a login for the hub."""
    from huggingface_hub import get_token

    return bool(os.environ.get("HF_TOKEN") or get_token())


def _would_go(folder: Path, name: str, private: bool) -> None:
    """The files and the head of the card, looked up when they are asked for: the licence comes from the hub."""
    with st.expander("What would go"):
        if not st.toggle("Show it", key="push_show"):
            return
        try:
            from replaceme_core.export import push

            said = push.plain(push.packed(folder, name, private))
        except ReplaceMeError as error:
            st.error(str(error), icon=":material/error:")
            return
        for note in said["notes"]:
            st.warning(note)
        st.json({"files": said["files"], "card": said["card"]}, expanded=2)
