"""Paths on the command line: every option and argument that is one, or may be one, has a type of here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from decant.pipeline.errors import PipelineError
from decant.pipeline.support.paths import expanded


class GivenPath(click.Path):
    """A path as users write it, with `~` and variables replaced. An empty one, as a variable that is not set leaves it,
    is refused: it would be the current folder.
    """

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Raises PipelineError, which names the option, where a variable is not set or nothing is left."""
        if isinstance(value, str) and param is not None:
            value = expanded(value, _name_of(param), PipelineError)
        return super().convert(value, param, ctx)


PATH = GivenPath(path_type=Path)
FILE = GivenPath(path_type=Path, dir_okay=False)
FOLDER = GivenPath(path_type=Path, file_okay=False)
PLACE = GivenPath(path_type=str, readable=False)
"""As text: a path, or what may stand in place of one, as the name of a recipe or a cache, or an address."""


def _name_of(parameter: click.Parameter) -> str:
    """`--output`; of an argument its word in the usage, as RUN of `[RUN]...`."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name.split()[0].strip("[].")
