"""A finished run, opened from its folder: its result and its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from decant.cache.io.opening import require_file
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.config.tasks import SIGMOID, Task
from decant.pipeline.errors import DamagedError, NotMadeError
from decant.pipeline.runs.result import RESULT, Result, load_result
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.support import trust


@dataclass(frozen=True)
class FinishedRun:
    """A finished network and the recipe that it was trained with."""

    result: Result
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.result.folder

    @property
    def sigmoids(self) -> Task | None:
        """The task, where each output has a sigmoid of its own: binary or multi-label. Else None."""
        task = self.recipe.settings.data.task
        return task if task in SIGMOID else None

    @property
    def is_regression(self) -> bool:
        """Whether it predicts numbers, not classes."""
        return "mse" in self.result.any_metrics


def open_run(path: Path) -> FinishedRun:
    """Opens the run in a folder, which may be given by the `result.json` in it.

    Raises NotMadeError if there is no finished network, with those in folders below it, and DamagedError if the
    recipe is missing.
    """
    folder = path.parent if path.name == RESULT else path
    result = load_result(folder)
    if result is None:
        raise NotMadeError(f"{path}: {_why_not_a_run(folder)}")
    if not (folder / RECIPE).is_file():
        raise DamagedError(f"{folder}: {RECIPE} is missing, which says how its data are read")
    require_file(folder / RECIPE, follow=False)
    return FinishedRun(result, _recipe_of(result, str(folder / RECIPE)))


def load_given_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a user gives: a script of the user's, unless it lies in the folder of a finished run, which is
    data. Raises RecipeError, DamagedError.
    """
    is_file = name_or_file.endswith(".toml") or Path(name_or_file).name != name_or_file
    result = load_result(Path(name_or_file).parent) if is_file else None
    if result is None:
        return load_recipe(name_or_file, overrides)
    return _recipe_of(result, name_or_file, overrides)


def _recipe_of(result: Result, path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that lies in a run folder, of whose functions only those run that the run recorded."""
    recipe = load_recipe(path, is_script=False)
    trust.named_by_run(result.folder, recipe.settings.functions, result.recorded_code)
    if not overrides:
        return recipe
    changed = load_recipe(path, overrides, is_script=False)
    trust.named_by_recipe(set(changed.settings.functions) - set(recipe.settings.functions))
    return changed


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """A name for each of `count` classes: the data's own, or else the labels as text.

    >>> class_names((), 3)
    ('0', '1', '2')
    """
    return tuple(classes) or tuple(map(str, range(count)))


def other_classes(result: Result, named: Sequence[str]) -> str | None:
    """The end of a message that names the first class of a network that the data do not have in its place; None where
    they have the same classes, or where they are not known.
    """
    if not result.classes or not named:
        return None
    for place, (own, other) in enumerate(zip_longest(result.classes, named)):
        if own != other:
            return f"its class {place:,} is {own!r}, and that of the data is {other!r}"
    return None


def _why_not_a_run(folder: Path) -> str:
    """The end of a message: why a folder is not a finished run, and what to give instead."""
    if not folder.is_dir():
        return f"no such run; a run is a folder with a {RESULT}, as runs/digits/student-…/seed-0 is"
    below = sorted(str(path.parent) for path in folder.glob(f"**/{RESULT}"))
    if below:
        more = f", and {len(below) - 3:,} more" if len(below) > 3 else ""
        return f"not one run but a folder of several; give one of them: {', '.join(below[:3])}{more}"
    if (folder / RECIPE).is_file():
        return "this run is not finished; run the command that began it again"
    return f"no finished network here; a run is a folder with a {RESULT}"
