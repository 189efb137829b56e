"""The group `decant` with every command, and how an error is shown."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import warnings
from typing import TextIO

import click

from decant.pipeline.cli.cache import cache
from decant.pipeline.cli.deploy import export, predict
from decant.pipeline.cli.options import as_json, print_json, print_table
from decant.pipeline.cli.phases import cache_logits, evaluate, student, teacher
from decant.pipeline.cli.report import report
from decant.pipeline.cli.status import status


def main() -> None:
    """Runs the command line. An error that a user can cause is one message and exit code 1, without a traceback."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a recipe's package.module:function may be
    warnings.showwarning = _show_warning
    try:
        code = decant.main(prog_name="decant", standalone_mode=False)
    except click.exceptions.Abort:
        _interrupted()
    except KeyboardInterrupt:
        _interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if not _expected(error):
            raise
        click.echo(f"decant: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _expected(error: Exception) -> bool:
    """Whether an error is of a kind whose message is written for users."""
    from decant.cache import CacheError
    from decant.pipeline.errors import PipelineError

    return isinstance(error, (PipelineError, CacheError, OSError))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning of ours as one line for users, any other as Python does."""
    text = f"warning: {message}\n" if category.__module__.startswith("decant.") else None
    (file or sys.stderr).write(text or warnings.formatwarning(message, category, filename, lineno, line))


def _interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = shlex.join(["decant", *sys.argv[1:]])
    click.echo(f"\ndecant: interrupted; everything made so far is kept. Go on with: {command}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decant-kd")
def decant() -> None:
    """Distil a network without running the teacher twice.

    The teacher's logits are cached once, in a file that can be shared; students train from the file.
    """


decant.add_command(teacher)
decant.add_command(cache_logits)
decant.add_command(student)
decant.add_command(evaluate)
decant.add_command(report)
decant.add_command(status)
decant.add_command(cache)
decant.add_command(export)
decant.add_command(predict)


@decant.command()
@as_json
def objectives(as_json: bool) -> None:
    """List the objectives of students, with formulas and defaults."""
    from decant.pipeline.config.catalogue import Entry, catalogue

    if as_json:
        print_json([entry._asdict() for entry in catalogue()])
    else:
        print_table(Entry._fields, [entry.cells for entry in catalogue()])
