"""What the pages share. Pages import only this package and streamlit; heavy library modules are imported inside functions."""
