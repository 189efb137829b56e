"""An error in words for users: what went wrong, with which file or option, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import click

DEBUG = "--debug"


def of_error(error: BaseException) -> str:
    """An error in words: its own where they are written for users, else with how to see where it comes from.

    >>> print(of_error(FileNotFoundError(2, "No such file or directory", "teacher.pth")))
    teacher.pth: No such file or directory
    """
    from decant.cache import CacheError
    from decant.pipeline.errors import PipelineError, is_out_of_memory

    if _is_out_of_threads(error):
        return _of_threads(error)
    if isinstance(error, OSError):
        return _of_a_file(error)
    if isinstance(error, (PipelineError, CacheError)):
        return str(error)
    said = str(error).strip().partition("\n")[0]
    named = f"{type(error).__name__}: {said}".removesuffix(": ")
    if is_out_of_memory(error):
        return f"out of memory ({named}); what is finished is kept"
    return f"unexpected error ({named}): this should not happen; see where with {DEBUG}, and please report it"


def of_usage(error: click.ClickException) -> str:
    """What is wrong with the words of a command; of a setting or recipe that was given in another way, how it is given.

    >>> command = click.Command("student", params=[click.Option(["--set"])])
    >>> print(of_usage(click.NoSuchOption("--alpha", ctx=click.Context(command))))
    No such option '--alpha'; it is a setting: --set student.objective.alpha=…
    """
    context = error.ctx if isinstance(error, click.UsageError) else None
    options = set() if context is None else {option for one in context.command.params for option in one.opts}
    if isinstance(error, click.NoSuchOption):
        from decant.pipeline.config.absent import sections_with

        key = error.option_name.lstrip("-").replace("-", "_")
        if "--set" in options and (sections := sections_with(key)):
            settings = " or ".join(f"--set {section}.{key}=…" for section in sections)
            return f"No such option {error.option_name!r}; it is a setting: {settings}"
    said = error.format_message()
    if not said.startswith("Got unexpected extra argument"):
        return said
    words = said.partition("(")[2].removesuffix(")").split()
    recipe = next((word for word in words if word.endswith(".toml")), None)
    setting = next((word for word in words if re.match(r"[a-z_]+\.[a-z_.]+=", word)), None)
    if "--recipe" in options and recipe is not None:
        return f"{said}; a recipe is given as --recipe {recipe}"
    if "--set" in options and setting is not None:
        return f"{said}; a setting is given as --set {setting}"
    return said


def _is_out_of_threads(error: BaseException) -> bool:
    """Whether the system starts no more threads or processes."""
    if isinstance(error, RuntimeError):
        return "start new thread" in str(error)
    return isinstance(error, OSError) and error.errno == errno.EAGAIN and error.filename is None


def _of_threads(error: BaseException) -> str:
    """What limits threads here, as far as that is known, and what to do."""
    limits = ["the container's, pids.max"]
    if sys.platform != "win32":
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        known = "" if most == resource.RLIM_INFINITY else f", now {most:,} for all processes of this user"
        limits.insert(0, f"that of ulimit -u{known}")
    return (
        f"no more threads or processes can be started ({error}): a limit is reached, {' or '.join(limits)}; end other "
        "programs or raise it, and run the same command again: what is finished is kept"
    )


def _of_a_file(error: OSError) -> str:
    """An error of the system with the file first, as other messages have it."""
    from decant.cache.io.files import remedy

    path = None if error.filename is None else Path(os.fsdecode(error.filename))
    said = str(error) if path is None or error.strerror is None else f"{path}: {error.strerror}"
    return "; ".join(filter(None, [said, remedy(error, path)]))
