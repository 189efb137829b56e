"""Paths as users write them, with `~` and variables of the environment."""

from __future__ import annotations

import os
import re

from decant.pipeline.errors import PipelineError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(path: str, subject: str, error: type[PipelineError]) -> str:
    """The path with `~` and `$NAME` or `${NAME}` replaced; a path that exists as it is written stays so. Raises
    `error`, beginning with `subject`, where a variable is not set, and where nothing is left, as of `--set key=$NAME`.

    >>> os.environ["SCRATCH_OF_MINE"] = "/scratch"
    >>> expanded("$SCRATCH_OF_MINE/photos", "data.root", PipelineError)
    '/scratch/photos'
    """
    if not path:
        raise error(
            f"{subject}: is empty, as a variable that is not set leaves it; give a path, or leave it out"
        )
    if (not path.startswith("~") and "$" not in path) or os.path.lexists(path):
        return path

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise error(f"{subject}: {path}: the variable {name} is not set")
        return os.environ[name]

    whole = os.path.expanduser(_VARIABLE.sub(value, path))
    if whole.startswith("~") and "/" in path:
        raise error(f"{subject}: {path}: there is no such user")
    if not whole:
        raise error(f"{subject}: {path}: the variable is empty; give a path, or leave it out")
    return whole
