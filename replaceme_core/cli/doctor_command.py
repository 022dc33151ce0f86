"""`doctor`: what this machine can do, and what to install."""

from dataclasses import asdict

import click

from replaceme_core.cli.options import JSON, show
from replaceme_core.errors import ReplaceMeError


@click.command()
@JSON
def doctor(as_json: bool) -> None:
    """What this machine can do, each point tried, and what to install for the rest. Exit code 1 if something needed is missing.

    \b
    Examples:
      replaceme doctor
      replaceme doctor --json
    """
    from replaceme_core.cli.doctor import findings

    found = findings()
    width = max(len(each.name) for each in found)
    lines = [
        f"{each.state:8} {each.name:{width}}  {each.found}" + (f"\n{'':{width + 10}} -> {each.advice}" if each.advice else "")
        for each in found
    ]
    show([asdict(each) for each in found], as_json, lambda: "\n".join(lines))
    missing = [each.name for each in found if each.state == "missing"]
    if missing:
        raise ReplaceMeError(f"missing: {', '.join(missing)}; the advice stands above.")
