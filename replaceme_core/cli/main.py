"""`replaceme`, or `python -m replaceme_core`: subcommands named after the stages. They parse, call and print.

Every one has --help with examples, and --json: one JSON object on standard output, while logs and progress go to standard error.

\b
Exit codes:
  0  done
  1  it could not be done; one sentence on standard error says what, why and what to change
  2  wrong usage: an option is missing or not known
  3  (run) the model is written, but a measurement of it failed; the sentences are on standard error and in the report
"""

import click

from replaceme_core import __version__
from replaceme_core.cli.app import app
from replaceme_core.cli.compare import compare
from replaceme_core.cli.distances import distances
from replaceme_core.cli.doctor import doctor
from replaceme_core.cli.evaluate import evaluate
from replaceme_core.cli.export import export
from replaceme_core.cli.families import families
from replaceme_core.cli.fit import fit
from replaceme_core.cli.inspect import inspect, load
from replaceme_core.cli.leaderboard import leaderboard
from replaceme_core.cli.plan import plan
from replaceme_core.cli.plan_spans import plan_spans
from replaceme_core.cli.push import push
from replaceme_core.cli.run import run
from replaceme_core.cli.runs import runs
from replaceme_core.cli.sentences import SentencesGroup
from replaceme_core.cli.sweep import sweep
from replaceme_core.cli.write_text import write_text


class _InOrder(SentencesGroup):
    """Lists its subcommands as they were added, which is the order of the stages."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="replaceme")
def main() -> None:
    pass


COMMANDS = (
    inspect, load, write_text, distances, plan_spans, fit, plan, run, sweep, compare, evaluate, leaderboard, export, push, runs, families, app, doctor,
)  # fmt: skip
"""in the order of the stages"""
for _command in COMMANDS:
    main.add_command(_command)
