"""`python -m replaceme_core`."""

from replaceme_core.cli.main import main

main()
