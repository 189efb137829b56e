"""A recipe: a TOML file, read, overridden with `--set`, validated, and worded about when it is wrong."""

from __future__ import annotations

import datetime
import json
import shlex
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from decant.pipeline.config.settings import Settings
from decant.pipeline.errors import RecipeError, nearest

DEFAULT = "digits"


@dataclass(frozen=True)
class Recipe:
    """A name, which the run folder takes, and the settings."""

    name: str
    settings: Settings
    options: tuple[str, ...] = ()
    """What was written on the command line to get it; messages repeat that in the commands that they name."""

    @property
    def by_teacher(self) -> tuple[Recipe, ...]:
        """A recipe for each teacher: this one, and where it has a second the same with the two exchanged."""
        first, second = self.settings.teacher, self.settings.knowledge
        if second is None:
            return (self,)
        exchanged = self.settings.model_copy(update={"teacher": second, "knowledge": first})
        return self, replace(self, settings=exchanged)

    def to_toml(self) -> str:
        """The resolved form: every setting with its value; reads back as the same recipe."""
        content = self.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        return tomli_w.dumps(content)

    def command(self, phase: str, without: str | None = None) -> str:
        """The command that runs a phase of this recipe, for a message; `without` leaves out one --set."""
        words = list(self.options)
        for place in range(len(words) - 2, -1, -1):
            if words[place] == "--set" and words[place + 1].partition("=")[0].strip() == without:
                del words[place : place + 2]
        return shlex.join(["decant", phase, *words])


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("decant.pipeline.config.recipes")
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load(name_or_file: str = DEFAULT, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a shipped recipe by name or any TOML file by path; `overrides` are `section.key=value`.

    Raises RecipeError, naming the path in the file, what is allowed there and what was found.
    """
    name, text = _read(name_or_file)
    text = text.removeprefix("\ufeff")  # which Windows' editors begin a file with
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name_or_file}: not TOML: {error}") from None
    for override in overrides:
        _override(content, override)
    options = [] if name_or_file == DEFAULT else ["--recipe", name_or_file]
    options += [word for override in overrides for word in ("--set", override)]
    return Recipe(name, _validate(content, name_or_file), tuple(options))


def _read(name_or_file: str) -> tuple[str, str]:
    path = Path(name_or_file)
    if path.suffix != ".toml" and path.name == name_or_file:
        if name_or_file not in shipped():
            raise RecipeError(
                f"unknown recipe {name_or_file!r}; {nearest(name_or_file, shipped())} (or a .toml file)"
            )
        return name_or_file, resources.files("decant.pipeline.config.recipes").joinpath(
            f"{name_or_file}.toml"
        ).read_text("utf-8")
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
    dates = list(_dates(content))
    if dates:
        raise RecipeError(f"{source}: {', '.join(dates)}: dates and times have no place in a recipe")
    try:
        # Through JSON, in which a list may stand for a tuple while every other type stays exact.
        return Settings.model_validate_json(json.dumps(content))
    except ValidationError as error:
        problems = dict.fromkeys(_word(problem) for problem in error.errors(include_url=False))
        raise RecipeError(f"{source}: " + "; ".join(problems)) from None


def _dates(value: Any, path: str = "") -> Iterator[str]:
    """Paths of the values that TOML has and JSON has not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _dates(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _dates(inner, f"{path}[{place}]")
    elif isinstance(value, (datetime.date, datetime.time)):
        yield path


def _word(problem: Any) -> str:
    """One of pydantic's errors, for a person: the path in the file, what is allowed there, what was found."""
    if not problem["loc"]:  # what sections say of each other names its own place
        return str(problem["ctx"]["error"])
    *parents, last = problem["loc"]
    path, schema = _place(problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            known = _place(parents, table=True)[1]["properties"]
            return f"{path}: unknown {'key' if parents else 'section'}; {nearest(str(last), known)}"
        case "missing":
            return f"{path}: missing"
        case "value_error":
            return f"{path}.{problem['ctx']['error']}"
        case "union_tag_not_found":
            choice = schema["discriminator"]
            return f"{path}.{choice['propertyName']}: missing; known: {', '.join(choice['mapping'])}"
        case "union_tag_invalid":
            choice = schema["discriminator"]
            what = {"name": "objective", "op": "operation"}[choice["propertyName"]]
            tag, own = problem["ctx"]["tag"], " (or package.module:function)" if what == "objective" else ""
            return (
                f"{path}.{choice['propertyName']}: unknown {what} {tag!r}; "
                f"{nearest(tag, choice['mapping'])}{own}"
            )
        case _:
            found = json.dumps(problem["input"], ensure_ascii=False)
            return f"{path}: expected {_expected(schema)}, found {textwrap.shorten(found, 80)}"


def _place(loc: Sequence[str | int], table: bool = False) -> tuple[str, dict[str, Any]]:
    """The path as a person writes it, and the JSON Schema of what may stand there: of several, the first, or the first
    table where it is one that is meant.

    pydantic puts the name of an objective or operation into the path of what is wrong inside it.
    """
    whole = Settings.model_json_schema()
    path, schema = "", whole
    for place, part in enumerate(loc):
        if "anyOf" in schema:
            break  # what follows is pydantic's name for one of the choices
        if "discriminator" in schema:
            schema = {"$ref": schema["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            path, schema = f"{path}[{part}]", schema["items"]
        else:
            path, schema = f"{path}.{part}" if path else part, schema.get("properties", {}).get(part, {})
        choices = [_definition(choice, whole) for choice in schema.get("anyOf", [schema])]
        choices = [choice for choice in choices if choice.get("type") != "null"]
        tables = [choice for choice in choices if "properties" in choice or "discriminator" in choice]
        if len(choices) > 1 and not tables:
            schema = {"anyOf": choices}
        else:
            schema = (tables if tables and (table or place + 1 < len(loc)) else choices)[0]
    return path, schema


def _definition(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to; any other schema as it is."""
    return whole["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def _expected(schema: dict[str, Any]) -> str:
    """What a schema allows, in words: the type with its range, or the choices."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "discriminator" in schema:
        return f"a table with `{schema['discriminator']['propertyName']}`"
    if schema.get("title") == "Network":
        return "a name, or a table with `name`"
    if "anyOf" in schema:
        return " or ".join(_expected(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    bounds = [f"{word} {schema[bound]:,}" for bound, word in _BOUNDS.items() if bound in schema]
    return " ".join([_TYPES[schema["type"]], " and ".join(bounds)]).strip()
