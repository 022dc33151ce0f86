"""An address to pass on: as others reach it, to be copied and as a QR code; or why nobody else can open it."""

import streamlit as st

from ui.look.palette import palette
from ui.look.qr import qr_html
from ui.session.reach import reach

ALONE = (
    "Only this machine can open it: the server listens to nobody else. To let a class in, start it with `--server.address 0.0.0.0`, and with "
    "`REPLACEME_MODELS=demo` (or the models that the class may load) in its environment, so that it counts as shared: visitors then load "
    "these models only, and none of this machine's files (In front of a class, in the documentation)."
)


def address(address_: str, pixels: int = 220) -> None:
    """The address, its code, and whether it leads others here."""
    found = reach(address_)
    st.code(found.address, language=None, wrap_lines=True)
    if found.by_others:
        st.html(qr_html(found.address, palette(), pixels))
    else:
        st.caption(f":material/link_off: {ALONE}")
