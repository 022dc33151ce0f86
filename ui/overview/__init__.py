"""The Overview page (app.py): where you are, this machine, recent runs. One file: view."""
