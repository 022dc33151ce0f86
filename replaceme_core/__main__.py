"""`python -m replaceme_core`."""

from replaceme_core.cli import main

main()
