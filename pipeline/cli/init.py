"""`decant init`: a small project to begin with."""

from __future__ import annotations

import os
import shlex
from importlib import resources
from pathlib import Path

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PATH
from decant.pipeline.cli.options import say

FILES = ("recipe.toml", "my_data.py", "my_network.py")


@click.command()
@click.argument("folder", type=PATH, default=".", shell_complete=completion.folders)
def init(folder: Path) -> None:
    """Write a small project to begin with.

    FOLDER gets a recipe, a dataset and a network of your own, which run at once.
    """
    made = write_project(folder)
    say(f"made {', '.join(map(str, made))}")
    there = "" if made[0].parent == Path() else f"cd {shlex.quote(str(made[0].parent))} && "
    steps = " && ".join(f"decant {phase} -r recipe.toml" for phase in ("teacher", "cache-logits", "student"))
    say(f"next: {there}{steps}")


def write_project(folder: Path) -> list[Path]:
    """Writes the files of the project and returns their paths. Raises PipelineError, and writes nothing, where one of
    them is there, or a file where the folder would be.
    """
    from decant.cache.io.opening import create_new
    from decant.pipeline.errors import PipelineError

    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder}: is a file; name a folder: decant init FOLDER")
    found = [name for name in FILES if os.path.lexists(folder / name)]
    if found:
        raise PipelineError(
            f"{folder}: has {', '.join(found)} already, and nothing is overwritten; name another folder: "
            "decant init FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    template = resources.files("decant.pipeline.cli.project")
    for name in FILES:
        with os.fdopen(create_new(folder / name), "wb") as file:
            file.write(template.joinpath(name).read_bytes())
    return [folder / name for name in FILES]
