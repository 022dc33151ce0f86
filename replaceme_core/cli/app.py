"""`app`: starts the Streamlit app of the checkout."""

import subprocess
import sys
from pathlib import Path

import click

from replaceme_core.errors import InputError

_APP = Path(__file__).resolve().parent.parent.parent / "app.py"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def app(options: tuple[str, ...]) -> None:
    """Opens the app; OPTIONS go to streamlit, for example --server.port 8502.

    It serves this machine only (127.0.0.1), and works in the folder of the checkout: its runs/ and exports/ are there.
    """
    if not _APP.is_file():
        raise InputError(
            "The app is part of the checkout, and this is an installation of the library alone. "
            "Clone the repository and `pip install -e .` there."
        )
    process = subprocess.Popen([sys.executable, "-m", "streamlit", "run", _APP.name, *options], cwd=_APP.parent)
    try:
        sys.exit(process.wait())
    finally:
        process.terminate()
