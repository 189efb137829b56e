"""The group `decant` with every command, and how an error is shown."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import threading
import traceback
import warnings
from typing import NoReturn, TextIO

import click

from decant.pipeline.cli.cache import cache
from decant.pipeline.cli.deploy import export, predict
from decant.pipeline.cli.error_words import DEBUG, of_error, of_usage
from decant.pipeline.cli.groups import InOrder
from decant.pipeline.cli.init import init
from decant.pipeline.cli.options import as_json, leave_to_rank_0, print_json, print_table, say
from decant.pipeline.cli.phases import cache_logits, evaluate, student, teacher
from decant.pipeline.cli.report import report
from decant.pipeline.cli.signals import end_on_signals, received
from decant.pipeline.cli.status import status
from decant.pipeline.cli.sweep import sweep
from decant.pipeline.ranks.launch import is_first, launched
from decant.pipeline.support import modules, trust
from decant.pipeline.support.terminal import guard, one_line

_WRITE = ("click.", "rich.", guard.__module__)
"""Modules that write the output."""


def main() -> None:
    """Runs the command line. An error is one message and exit code 1; its traceback is shown with `--debug`, anywhere
    among the words, or with DECANT_DEBUG=1.
    """
    guard()
    # One rank of a job prints; what goes wrong is said on stderr, by the rank that it happens to.
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    trust.announce()
    modules.search(os.getcwd())  # where a recipe's package.module:function may be
    # A process that this one starts imports nothing from there either.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    end_on_signals()
    warnings.showwarning = _show_warning
    words = [word for word in sys.argv[1:] if word != DEBUG]
    debug = len(words) < len(sys.argv[1:]) or os.environ.get("DECANT_DEBUG", "0") not in ("", "0")
    if not debug:
        threading.excepthook = _show_thread_error
    try:
        code = decant.main(words, prog_name="decant", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _interrupted()
    except click.ClickException as error:
        said = one_line(of_usage(error))  # which may repeat a word, such as a file's name
        error.format_message = lambda: said  # type: ignore[method-assign]
        _leave_to_others(error)
        _record(said)
        error.show()
        _exit(error.exit_code)
    except SystemExit as error:
        if _is_of_commands(error):
            raise
        _fail(error, debug)
    except BaseException as error:  # a user's code may raise anything
        _fail(error, debug)
    if received() not in (None, signal.SIGINT):  # which --watch ends with
        _interrupted()
    _end_output()
    _exit(code if isinstance(code, int) else 0)


def _fail(error: BaseException, debug: bool) -> NoReturn:
    """Ends with exit code 1 and one message, after the traceback if there is to be one."""
    if debug:
        _print_traceback(error)
    # What a signal cuts short may end in any error, as that of a worker which it ended too.
    if received() is not None:
        _interrupted()
    if isinstance(error, OSError) and _raised_in(error).startswith(_WRITE):
        error.filename = error.filename or "the output"
    _leave_to_others(error)
    if not _is_of_closed_pipe(error):
        first, *more = f"{_rank()}{of_error(error)}".split("\n")
        _record(first)
        say(f"decant: {first}", err=True)
        for line in more:  # as the fields that differ; whatever names they hold, none begins a line
            say(f"  {line.removeprefix('  ')}", err=True)
    _end_output()
    _exit(1)


def _leave_to_others(error: BaseException) -> None:
    """Ends a rank without a word where another rank of its job says why the job ends."""
    if launched() is None:
        return
    from decant.pipeline.ranks import ending, leaving

    try:
        if ending.is_first_to_end("failed", error):
            return
        ending.linger()
    except KeyboardInterrupt:
        leaving.leave(0)
    leaving.leave(1)


def _record(message: str) -> None:
    """Has torchrun show the message of a rank in its own page."""
    if launched() is not None:
        from decant.pipeline.ranks import leaving

        leaving.record(message)


def _rank() -> str:
    launch = launched()
    return "" if launch is None else f"rank {launch.rank} of {launch.size} on {socket.gethostname()}: "


def _exit(code: int) -> NoReturn:
    if launched() is None:
        sys.exit(code)
    from decant.pipeline.ranks import leaving

    leaving.leave(code)


def _is_of_closed_pipe(error: BaseException) -> bool:
    """Whether the program that reads the output, as `head`, has ended: that is no error of this one."""
    if isinstance(error, SystemExit):  # how rich ends
        error = error.__context__ or error
    return isinstance(error, BrokenPipeError) and error.filename in (None, "the output")


def _end_output() -> None:
    """Writes what is still buffered. If that fails, ends with exit code 1, and says why unless a pipe is closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would try again
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                say(f"decant: the output cannot be written: {error.strerror}", err=True)
            sys.exit(1)


def _print_traceback(error: BaseException) -> None:
    """Prints what led to an error on stderr, as Python does; every line of text that is not ours begins with spaces."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        _print_traceback(before)
        say("", err=True)
    say("Traceback (most recent call last):", err=True)
    for frame in traceback.extract_tb(error.__traceback__):
        say(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', err=True)
        say(f"    {frame.line}", err=True)
    first, *more = str(error).splitlines() or [""]
    say(f"{type(error).__module__}.{type(error).__qualname__}: {first}".removeprefix("builtins."), err=True)
    for line in (*more, *getattr(error, "__notes__", ())):
        say(f"    {line}", err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning of ours as one line for users, any other as Python does, its further lines indented."""
    if category.__module__.startswith("decant."):
        text = f"warning: {one_line(message)}\n"
    else:
        text = warnings.formatwarning(message, category, one_line(filename), lineno, line)
        text = text.rstrip("\n").replace("\n", "\n  ") + "\n"
    if launched() is not None:
        from decant.pipeline.ranks.said import is_first_to_say

        if not is_first_to_say(text):
            return
    (file or sys.stderr).write(text)


def _show_thread_error(failed: threading.ExceptHookArgs) -> None:
    """Prints an error of a library's thread as one line; the command itself says what comes of it."""
    name, said = failed.exc_type.__name__, one_line(str(failed.exc_value))
    sys.stderr.write(f"warning: a thread failed ({name}: {said})\n")


def _is_of_commands(error: SystemExit) -> bool:
    """Whether a command ended the program; a user's module may try to as well, and with any exit code."""
    return _raised_in(error).startswith(("decant.pipeline.cli", "click."))


def _raised_in(error: BaseException) -> str:
    """The module that raised an error."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))


def _interrupted() -> NoReturn:
    """Ends with exit code 1 after Ctrl-C, and with 128 + its number after another signal, as shells count."""
    number, command = received(), shlex.join(["decant", *sys.argv[1:]])
    _interrupt_rank()
    if launched() is not None:
        command = f"the command that started its ranks, of {command}"
    by_keyboard = number in (None, signal.SIGINT)
    said = "interrupted" if number is None or by_keyboard else f"ended by {number.name}"
    with contextlib.suppress(OSError):  # the terminal may be closed
        say("", err=True)
        say(f"decant: {said}; everything made so far is kept. Go on with: {command}", err=True)
    _end_output()
    from decant.pipeline.ranks import leaving

    # At once: a thread may wait for a server that never answers, and Python would wait for that thread.
    leaving.leave(1 if number is None or by_keyboard else 128 + number)


def _interrupt_rank() -> None:
    """Of the ranks that a launcher ends, one says so; none where one has failed and has said why."""
    if launched() is None:
        return
    from decant.pipeline.ranks import ending, leaving

    if ending.has_failed():
        leaving.leave(0)
    if not ending.is_first_to_end("ended"):
        number = received()
        leaving.leave(1 if number in (None, signal.SIGINT) else 128 + number)


_DIVIDED = frozenset({"teacher", "cache-logits", "student", "sweep", "evaluate"})
"""Commands that the ranks of a job carry out together."""


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with init, or in an empty folder with teacher: each command prints the next one.",
)
@click.version_option(package_name="decant-kd")
@click.option(
    DEBUG,
    is_flag=True,
    expose_value=False,
    help="Show the traceback of an error; may stand anywhere. DECANT_DEBUG=1 does the same.",
)
@click.pass_context
def decant(context: click.Context) -> None:
    """Distil a network without running the teacher twice.

    The teacher's logits are cached once, in a file that can be shared; students train from the file.
    """
    if context.invoked_subcommand not in _DIVIDED:
        leave_to_rank_0(str(context.invoked_subcommand))


decant.add_command(init)
decant.add_command(teacher)
decant.add_command(cache_logits)
decant.add_command(student)
decant.add_command(sweep)
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
