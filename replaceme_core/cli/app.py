"""`app`: starts the Streamlit app, of the checkout or of the installed wheel."""

import subprocess
import sys

import click

from replaceme_core import extras
from replaceme_core.errors import InputError
from replaceme_core.storage.shipped import ROOT


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def app(options: tuple[str, ...]) -> None:
    """Opens the app; OPTIONS go to streamlit, for example --server.port 8502.

    It serves this machine only (127.0.0.1). From a checkout it works in the checkout's folder, installed in the present one: its runs/
    and exports/ are there.
    """
    script = ROOT / "app.py"
    if not script.is_file():
        raise InputError(
            f"The app is not beside the library ('{script}'); install the wheel, or clone the repository and `pip install -e .` there."
        )
    extras.require("app")
    installed = ROOT.name == "replaceme_studio"
    process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", str(script), *options], cwd=None if installed else ROOT)
    try:
        sys.exit(process.wait())
    finally:
        process.terminate()
