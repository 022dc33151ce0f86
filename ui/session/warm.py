"""The heavy libraries, imported in the background while the first page is being read."""

import threading
import time
from contextlib import suppress
from importlib import import_module

import streamlit as st

from replaceme_core.errors import ReplaceMeError

_WARMED = (
    "replaceme_core.pipeline", "replaceme_core.solvers", "replaceme_core.calibration.calibration",
    "replaceme_core.measurement.measure", "replaceme_core.models.loading", "altair", "ui.blocks.view",
    "ui.fit.view",
)  # fmt: skip
"""what the first pages need, by name: this file imports no page"""
_AFTER = 1.5
"""seconds that the first page has to itself: the browser fetches what draws it from this process, which imports hold up"""


@st.cache_resource(show_spinner=False)
def warm() -> threading.Thread:
    """The thread that imports them; started by the first call."""

    def imports() -> None:
        time.sleep(_AFTER)
        for name in _WARMED:
            import_module(name)
        from replaceme_core.measurement.preflight import preflight
        from replaceme_core.plans.plan import ModelSection

        with suppress(ReplaceMeError):  # transformers imports a family's code only when one is built
            preflight(ModelSection(path="demo"))

    thread = threading.Thread(target=imports, name="warm", daemon=True)
    thread.start()
    return thread
