"""A recipe: a TOML file, read, overridden with `--set`, validated, and worded about when it is wrong."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from pipeline.errors import RecipeError, nearest
from pipeline.settings import (
    CacheSettings,
    DataSettings,
    Settings,
    StudentSettings,
    TeacherSettings,
    ViewsSettings,
)

DEFAULT = "digits"
_SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSettings,
    "views": ViewsSettings,
    "teacher": TeacherSettings,
    "cache": CacheSettings,
    "student": StudentSettings,
}


@dataclass(frozen=True)
class Recipe:
    """A name, which the run folder takes, and the settings."""

    name: str
    settings: Settings
    source: str
    """What was written after --recipe; messages repeat it in the commands that they name."""

    def to_toml(self) -> str:
        """The resolved form: every setting with its value; reads back as the same recipe."""
        content = self.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        return tomli_w.dumps(content)

    def command(self, phase: str) -> str:
        """The command that runs a phase of this recipe, for a message."""
        return f"decant {phase}" if self.source == DEFAULT else f"decant {phase} --recipe {self.source}"


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("pipeline.recipes")
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load(name_or_file: str = DEFAULT, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a shipped recipe by name or any TOML file by path; `overrides` are `section.key=value`.

    Raises RecipeError, naming the path in the file, what is allowed there and what was found.
    """
    name, text = _read(name_or_file)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name_or_file}: not TOML: {error}") from None
    for override in overrides:
        _override(content, override)
    return Recipe(name, _validate(content, name_or_file), name_or_file)


def _read(name_or_file: str) -> tuple[str, str]:
    path = Path(name_or_file)
    if path.suffix != ".toml" and path.name == name_or_file:
        if name_or_file not in shipped():
            raise RecipeError(
                f"unknown recipe {name_or_file!r}; {nearest(name_or_file, shipped())} (or a .toml file)"
            )
        return name_or_file, resources.files("pipeline.recipes").joinpath(f"{name_or_file}.toml").read_text(
            "utf-8"
        )
    try:
        return path.stem, path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(f"{name_or_file}: cannot be read: {reason}") from None


def _override(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise RecipeError(f"--set {override}: expected section.key=value, as in student.epochs=5")
    table = content
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if isinstance(inner, str):  # network = "conv" is short for { name = "conv" }
            inner = table[key] = {"name": inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {key} is not a table")
        table = inner
    table[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(content: dict[str, Any], source: str) -> Settings:
    try:
        # Through JSON, in which a list may stand for a tuple while every other type stays exact.
        return Settings.model_validate_json(json.dumps(content))
    except ValidationError as error:
        problems = [_word(problem) for problem in error.errors(include_url=False)]
        raise RecipeError(f"{source}: " + "; ".join(problems)) from None
    except TypeError:
        raise RecipeError(f"{source}: dates and times have no place in a recipe") from None


def _word(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = _SECTIONS.get(str(problem["loc"][0]))
        nested = len(problem["loc"]) == 1 or section is None or len(problem["loc"]) > 2
        known = (
            _SECTIONS.keys()
            if len(problem["loc"]) == 1
            else ()
            if nested or section is None
            else _keys(section)
        )
        return f"{path}: unknown key" + (f"; {nearest(str(problem['loc'][-1]), known)}" if known else "")
    if problem["type"] == "missing":
        return f"{path}: missing"
    if problem["type"] == "value_error":
        return f"{path}.{problem['ctx']['error']}"
    found = problem["input"]
    return f"{path}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {found!r}"


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
