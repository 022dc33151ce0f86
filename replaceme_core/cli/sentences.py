"""Commands whose errors are one sentence on standard error: exit code 1 for what the library raises on purpose, 2 for wrong usage."""

import errno
import logging
import os
import signal
import sys
from typing import Any

import click

from replaceme_core import memory
from replaceme_core.cli.bar import Bar
from replaceme_core.errors import ReplaceMeError
from replaceme_core.guard import TRACEBACK, unforeseen
from replaceme_core.storage.folders import said_by_system


class Sentences(click.Command):
    """A command by itself."""

    def invoke(self, ctx: click.Context) -> Any:
        return told(lambda: super(Sentences, self).invoke(ctx))


class SentencesGroup(click.Group):
    """A command with subcommands."""

    def invoke(self, ctx: click.Context) -> Any:
        return told(lambda: super(SentencesGroup, self).invoke(ctx))


def told(work: Any) -> Any:
    """The result of `work`; an error of the library as click's, after every bar is closed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave through the context managers
    for noisy in ("transformers", "lm_eval", "datasets", "bitsandbytes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with memory.told("for this command", memory.HOLD_LESS):
            return work()
    except ReplaceMeError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read our output has gone; click ends quietly
            raise
        raise click.ClickException(said_by_system(error)) from error
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise click.ClickException(str(unforeseen(error))) from error
    finally:
        Bar.close_all()
