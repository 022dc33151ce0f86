"""Subcommands named after the stages. They parse, call and print; with --json one object on standard output, logs on standard error.

replaceme distances --model demo --calibration demo:mixture --json
replaceme plan-spans --model demo --shares 0.25,0.5
replaceme fit --model demo --calibration demo:stories --span 6:9 --out exports/first
replaceme evaluate --model exports/first --tasks demo --limit 50
replaceme run --plan plan.yaml --out runs/first
replaceme sweep --sweep assets/presets/sweep.yaml --out sweeps/demo
"""

import signal
import sys
from typing import Any

import click

from replaceme_core import memory
from replaceme_core.bar import Bar
from replaceme_core.cli_distances import distances
from replaceme_core.cli_evaluate import evaluate
from replaceme_core.cli_families import families
from replaceme_core.cli_fit import fit
from replaceme_core.cli_planner import plan_spans
from replaceme_core.cli_run import run
from replaceme_core.cli_sweep import sweep
from replaceme_core.errors import ReplaceMeError


class _Sentences(click.Group):
    """Turns the library's errors into one sentence on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with memory.told("for this command", memory.HOLD_LESS):
                return super().invoke(ctx)
        except ReplaceMeError as error:
            raise click.ClickException(str(error)) from error
        finally:
            Bar.close_all()


@click.group(cls=_Sentences, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    import logging

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave through the context managers
    for noisy in ("transformers", "lm_eval", "datasets", "bitsandbytes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


COMMANDS = (distances, plan_spans, fit, run, sweep, evaluate, families)
"""in the order of the stages"""
for _command in COMMANDS:
    main.add_command(_command)
