"""Code that is named in a recipe, `package.module:name`, and libraries that are installed as an extra."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from decant.pipeline.errors import PipelineError, nearest
from decant.pipeline.support import trust
from decant.pipeline.support.modules import RAISED, is_installed, specs_of
from decant.pipeline.support.signatures import signature

_MOST_NAMES = 20  # that a message lists where none is near


@dataclass(frozen=True)
class Plugin:
    """A function or class that a recipe or a run names, and how messages speak of it.

    >>> from decant.pipeline.errors import RecipeError
    >>> Plugin("os:system", "student.objective 'os:system'", RecipeError).load()
    Traceback (most recent call last):
    decant.pipeline.errors.RecipeError: student.objective 'os:system': os is a library, and libraries can load and run \
further code; name a function of a module of your own; --trust runs it all the same
    """

    name: str
    """`package.module:name`."""
    subject: str
    """What every message begins with; empty where the caller adds that."""
    error: type[PipelineError]
    """What is raised."""

    def load(self) -> Callable[..., Any]:
        """Imports the module and returns the function or class. Raises `error` where there is none, or where it must
        not run: see `trust`.
        """
        module_name, _, name = self.name.partition(":")
        try:
            value = trust.load(self.name)
        except trust.RefusedError as error:
            raise self.refusal(str(error)) from None
        except trust.MissingError as error:
            module = error.module
            raise self.refusal(f"module {module_name} has no {name!r}{_suggestion(name, module)}") from None
        except RAISED as error:  # importing runs the module, which may raise anything
            raise self.refusal(f"cannot be imported ({in_words(error)})") from error
        if not callable(value):
            raise self.refusal(f"{name} is not callable, it is of type {type(value).__name__}")
        return value

    def check_arguments(self, function: Callable[..., Any], *positional: str, **keywords: Any) -> None:
        """Raises `error` where `function` cannot be called with so many positional arguments, which the message calls
        by these names, and with these keywords.
        """
        try:
            signature(function).bind(*positional, **keywords)
        except (TypeError, ValueError) as error:
            raise self.wrong_arguments(error, *positional, **keywords) from error

    def wrong_arguments(self, error: BaseException, *positional: str, **keywords: Any) -> PipelineError:
        """What to raise where a call with these arguments ended in `error`."""
        given = ", ".join([*positional, *(f"{name} = {value!r}" for name, value in keywords.items())])
        return self.refusal(f"does not take {given or 'no arguments'} ({in_words(error)})")

    def refusal(self, reason: str) -> PipelineError:
        """What to raise for any other reason."""
        return self.error(f"{self.subject}: {reason}" if self.subject else reason)


def shipped(name: str) -> Callable[..., Any]:
    """A function of this package, `package.module:name`, which a class of settings names.

    >>> shipped("decant.pipeline.support.plugins:shipped") is shipped
    True
    """
    module, _, inner = name.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), inner)
    return function


def source_sha256(name: str) -> str | None:
    """SHA-256 of the file that defines `package.module:name`, so that a changed function is noticed; None where there
    is no such file. Nothing is imported.
    """
    specs = specs_of(name.partition(":")[0])
    try:
        return hashlib.sha256(Path(str(specs[-1].origin)).read_bytes()).hexdigest() if specs else None
    except OSError:
        return None


def optional(module: str, extra: str, error: type[PipelineError]) -> Any:
    """A library that not every recipe needs. Raises `error`, with the command that installs it, where it is missing;
    with what its import said where that fails, such as Altair's under `python -OO`.
    """
    try:
        return importlib.import_module(module)
    except Exception as failed:
        library = module.partition(".")[0]
        if isinstance(failed, ModuleNotFoundError) and failed.name == library:
            raise error(f"{library} is not installed; run: pip install 'decant-kd[{extra}]'") from None
        raise error(f"{library} is installed but cannot be imported ({in_words(failed)})") from failed


def _suggestion(name: str, module: ModuleType) -> str:
    """The end of a "has no NAME" message: the nearest names, or all where they are few."""
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    hint = nearest(name, names)
    return f"; {hint}" if names and (hint.startswith("did") or len(names) <= _MOST_NAMES) else ""


def in_words(error: BaseException) -> str:
    """An error of a user's code in one line: its type, the first line of its message, and the line of the user's file
    that it came from, if it came from one.

    >>> in_words(ValueError("too wide\\nmore"))
    'ValueError: too wide'
    """
    if isinstance(error, SystemExit):
        said = "SystemExit: it ended the program, which a module that is imported must not"
    else:
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")
    place = _place(error)
    return f"{said} [{place}]" if place else said


def _place(error: BaseException) -> str:
    """FILE:LINE of the last line of a user's file that an error went through; empty where there is none."""
    place, frame = "", error.__traceback__
    while frame is not None:
        path = Path(frame.tb_frame.f_code.co_filename)
        if path.suffix == ".py" and not is_installed(path.resolve()):
            place = f"{path.name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return place
