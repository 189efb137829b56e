"""The resolved recipe that every run folder keeps, and the settings in which it differs from another."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from decant.cache import Difference, StorageError, differences
from decant.cache.io.files import write_atomically
from decant.cache.io.redaction import without_secrets
from decant.pipeline.config.recipe import Recipe, expand_paths, read_toml
from decant.pipeline.config.server_settings import DECISIVE
from decant.pipeline.config.settings import DataSettings, Training
from decant.pipeline.support.nested import by_path

RECIPE = "recipe.toml"
LOGGING_ONLY = frozenset({"evaluate_every", "log_every", "compile"})
"""Settings of training that do not change the weights that come of it."""
NOT_DECISIVE = LOGGING_ONLY | {"seeds", "seed", "baseline"}
"""Settings of `[student]` that are no part of a folder's digest: those, and those that say which seeds are trained."""


def logging_only(settings: Training) -> frozenset[str]:
    """The settings of a training that do not change the weights that come of it. Which epochs are measured does, where
    the best of them is kept or the training ends by them.
    """
    return LOGGING_ONLY - {"evaluate_every"} if settings.chooses else LOGGING_ONLY


def without_address(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a teacher without those that say where and how a server is asked for its answers.

    >>> without_address({"epochs": 0, "server": {"url": "http://localhost:8000", "model": "m"}})
    {'epochs': 0, 'server': {'model': 'm'}}
    """
    server = teacher.get("server")
    if not isinstance(server, dict):
        return dict(teacher)
    return {**teacher, "server": {name: value for name, value in server.items() if name in DECISIVE}}


_NOT_DECISIVE_IN = {
    "teacher": LOGGING_ONLY,
    "knowledge": LOGGING_ONLY,
    "cache": {"batch_size", "table", "tokens_per_batch"},
    "student": NOT_DECISIVE,
}


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Writes the resolved recipe into a run folder."""
    write_atomically(folder / RECIPE, recipe.to_toml().encode())


def read_saved_recipe(folder: Path) -> dict[str, Any] | None:
    """The sections of the recipe in a run folder, to compare with those of a recipe without secrets; None if the file
    is missing or not readable.
    """
    try:
        content = read_toml(folder / RECIPE, follow=False)
    except (OSError, ValueError):
        return None
    if not all(isinstance(section, dict) for section in content.values()):
        return None
    expand_paths(content, str(folder / RECIPE), lenient=True)  # with a variable where that holds a secret
    return dict(without_secrets(content))


def saved_data(folder: Path) -> dict[str, Any] | None:
    """The settings of data of the recipe in a run folder, without a task that labels tell by themselves; None if the
    folder has no readable recipe.
    """
    saved = (read_saved_recipe(folder) or {}).get("data")
    return _without_plain_task(saved) if isinstance(saved, dict) else None


def has_data(folder: Path, data: DataSettings) -> bool:
    """Whether the recipe in a run folder has these settings of data."""
    given = without_secrets(data.model_dump(mode="json", exclude_none=True))
    return saved_data(folder) == _without_plain_task(given)


def keep_data_settings(folder: Path, recipe: Recipe) -> None:
    """Has the recipe in the folder of a finished run name the data as the recipe does by which they were found now, so
    that reports find it by these settings: as where the files were moved, or another test part was measured on.
    """
    if read_saved_recipe(folder) is not None and not has_data(folder, recipe.settings.data):
        with contextlib.suppress(OSError, StorageError):  # another person's run
            content = {**read_toml(folder / RECIPE, follow=False), "data": recipe.shared()["data"]}
            write_atomically(folder / RECIPE, tomli_w.dumps(content).encode())


def what_differs(folders: Sequence[Path]) -> list[str]:
    """Of each of some run folders, those decisive settings that are not the same in all, as words; "" where there are
    none, or where a folder has no readable recipe.
    """
    saved = [read_saved_recipe(folder) for folder in folders]
    if any(recipe is None for recipe in saved):
        return ["" for _ in folders]
    settings = [by_path(_decisive(recipe)) for recipe in saved if recipe is not None]
    paths = dict.fromkeys(path for one in settings for path in one)
    differing = [path for path in paths if any(one.get(path) != settings[0].get(path) for one in settings)]
    words = {path: path.removesuffix(".kind").rpartition(".")[2] for path in differing}
    often = Counter(words.values())
    names = {path: path if often[words[path]] > 1 else words[path] for path in differing}
    return [", ".join(f"{names[path]} {one[path]}" for path in differing if path in one) for one in settings]


def changed_settings(recipe: Recipe, folder: Path, sections: Sequence[str]) -> list[Difference] | None:
    """The decisive settings of `sections` in which the recipe (expected) differs from the one in a run folder (found).

    None if the folder has no readable recipe.
    """
    saved = read_saved_recipe(folder)
    if saved is None:
        return None
    given = without_secrets(recipe.settings.model_dump(mode="json", by_alias=True, exclude_none=True))
    return differences(_decisive(given), _decisive(saved), sections)


def _decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's sections without the settings that do not change what is made."""
    return {
        section: {
            name: value
            for name, value in (without_address(values) if section == "teacher" else values).items()
            if name not in _NOT_DECISIVE_IN.get(section, ())
        }
        for section, values in content.items()
    }


def _without_plain_task(data: dict[str, Any]) -> dict[str, Any]:
    """The settings without a task that labels tell by themselves."""
    plain = data.get("task") in ("classification", "regression")
    return {name: value for name, value in data.items() if name != "task" or not plain}
