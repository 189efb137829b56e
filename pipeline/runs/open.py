"""A finished run, opened again from its folder: what it made, and the recipe that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.errors import DamagedError, NotMadeError
from decant.pipeline.runs.result import RESULT, Result, load_result
from decant.pipeline.runs.saved_recipe import RECIPE


@dataclass(frozen=True)
class FinishedRun:
    """A network with its recipe."""

    result: Result
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.result.folder

    @property
    def is_regression(self) -> bool:
        """Whether its outputs are numbers, and not classes."""
        return "mse" in self.result.metrics


def open_run(path: Path) -> FinishedRun:
    """The run of a folder, or of the `result.json` in it.

    Raises NotMadeError where no network is finished there, naming those that are below it, and DamagedError
    where the run has lost its recipe.
    """
    folder = path.parent if path.name == RESULT else path
    result = load_result(folder)
    if result is None:
        raise NotMadeError(f"{path}: {_instead(folder)}")
    if not (folder / RECIPE).is_file():
        raise DamagedError(f"{folder}: {RECIPE} is missing, which says how its data are read")
    return FinishedRun(result, load_recipe(str(folder / RECIPE)))


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """A name for each of `count` classes: the data's own, or else the numbers."""
    return tuple(classes) or tuple(map(str, range(count)))


def _instead(folder: Path) -> str:
    """Why a folder is no finished run, and what to give in its place."""
    if not folder.is_dir():
        return f"no such run; a run is a folder with a {RESULT}, as runs/digits/student-…/seed-0 is"
    below = sorted(str(found.parent) for found in folder.glob(f"**/{RESULT}"))
    if below:
        more = f", and {len(below) - 3:,} more" if len(below) > 3 else ""
        return f"not one run but a folder of several; give one of them: {', '.join(below[:3])}{more}"
    if (folder / RECIPE).is_file():
        return "this run is not finished; run the command that began it again"
    return f"no finished network here; a run is a folder with a {RESULT}"
