"""A recipe: a TOML file, read, overridden with `--set` and validated."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from decant.cache.io.opening import open_read
from decant.cache.io.redaction import without_secrets
from decant.pipeline.config import language_settings
from decant.pipeline.config.absent import sections_with
from decant.pipeline.config.data_settings import share_or_part
from decant.pipeline.config.messages import problems_in_words
from decant.pipeline.config.settings import Settings, StudentSettings
from decant.pipeline.config.toml_values import instead
from decant.pipeline.errors import RecipeError, nearest
from decant.pipeline.support import trust
from decant.pipeline.support.checked_json import require_shallow
from decant.pipeline.support.paths import expanded

DEFAULT = "digits"
_MOST_BYTES = 1 << 20  # of a file
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""")
"""A dotted key of so many parts that reading it takes long: each part is looked up from the first on."""
_ESCAPE = re.compile("hex value|Unescaped|escape", re.IGNORECASE)
_OF_BACKSLASH = (
    "; in \"…\" a backslash begins an escape: write a path with / or between single quotes, as 'C:\\data'"
)
_PATHS = (
    ("data", "root"),
    ("data", "tokenizer"),
    ("data", "chat_template"),
    ("teacher", "weights"),
    ("knowledge", "weights"),
    ("student", "weights"),
    ("cache", "from"),
)
"""The settings that are paths, or may be."""


@dataclass(frozen=True)
class Recipe:
    """A name, which the run folder takes, and the settings."""

    name: str
    settings: Settings
    options: tuple[str, ...] = ()
    """What was written on the command line to get it; messages repeat that in the commands that they name."""
    variables: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Paths with variables of the environment as they were written, by `section.key`."""

    @property
    def by_teacher(self) -> tuple[Recipe, ...]:
        """A recipe for each teacher: this one, and where it has a second the same with the two exchanged."""
        first, second = self.settings.teacher, self.settings.knowledge
        if second is None:
            return (self,)
        exchanged = self.settings.model_copy(update={"teacher": second, "knowledge": first})
        return self, replace(self, settings=exchanged)

    def to_toml(self) -> str:
        """The resolved form: every setting with its value; reads back as the same recipe. Secrets are left out, as run
        folders keep it: a path with a variable that holds one is written with the variable.
        """
        return tomli_w.dumps(self.shared())

    def shared(self) -> dict[str, Any]:
        """The sections of the resolved form, without secrets."""
        content = self.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        kept = without_secrets(content)
        for path, written in self.variables.items():
            section, key = path.split(".")
            if kept[section].get(key) != content[section].get(key):
                kept[section][key] = without_secrets(written)
        return dict(kept)

    def command(self, phase: str, without: str | None = None) -> str:
        """The command that runs a phase of this recipe, for a message; `without` leaves out one --set."""
        return shlex.join(["decant", phase, *without_set(self.options, lambda path: path == without)])


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("decant.pipeline.config.recipes")
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(
    name_or_file: str = DEFAULT, overrides: Sequence[str] = (), *, is_script: bool = True
) -> Recipe:
    """Reads a shipped recipe by name or any TOML file by path; `overrides` are `section.key=value`.

    A recipe is a script of the user's, and may name functions of the user's modules; with `is_script` false it is the
    recipe of a run folder, which is data: see `support.trust`.

    Raises RecipeError, naming the path in the file, what is allowed there and what was found.
    """
    name, path = _find(name_or_file)
    try:
        content = read_toml(path)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{name_or_file}: cannot be read: not UTF-8 text{_which_text(error.object)}"
        ) from None
    except ValueError as error:
        hint = _OF_BACKSLASH if _ESCAPE.search(str(error)) else ""
        raise RecipeError(f"{name_or_file}: not TOML: {error}{hint}") from None
    except IsADirectoryError:
        raise RecipeError(f"{name_or_file}: is a folder; name the recipe in it, a .toml file") from None
    except OSError as error:
        raise RecipeError(f"{name_or_file}: cannot be read: {error.strerror}") from None
    for override in overrides:
        _override(content, override)
    variables = expand_paths(content, name_or_file, lenient=not is_script)
    options = [] if name_or_file == DEFAULT else ["--recipe", name_or_file]
    options += [word for override in overrides for word in ("--set", override)]
    recipe = Recipe(name, _validate(content, name_or_file), tuple(options), variables)
    if is_script:
        trust.named_by_recipe(recipe.settings.functions)
    return recipe


def overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The same recipe with other settings, `section.key=value` as --set takes them. Raises RecipeError, naming what is
    wrong.

    >>> overridden(load_recipe("digits"), ["student.lr=0.2"]).settings.student.lr
    0.2
    """
    content = _as_given(recipe.settings)
    for override in overrides:
        _override(content, override)
    given = {_path_of(override) for override in overrides}
    paths = {
        section: {
            key: content[section][key] for name, key in _PATHS if f"{name}.{key}" in given and name == section
        }
        for section in {path.partition(".")[0] for path in given} & content.keys()
    }
    variables = expand_paths(paths, recipe.name)
    for section, values in paths.items():
        content[section].update(values)
    settings = _validate(content, recipe.name)
    options = recipe.options
    for override in overrides:
        path = _path_of(override)
        kept = without_set(options, lambda other, path=path: f"{other}.".startswith(f"{path}."))  # type: ignore[misc]
        options = (*kept, "--set", override)
    trust.named_by_recipe(settings.functions)
    return replace(recipe, settings=settings, options=options, variables={**recipe.variables, **variables})


def without_set(options: Sequence[str], is_left_out: Callable[[str], bool]) -> tuple[str, ...]:
    """The options of a command line without the --set of some settings, told by their paths.

    >>> without_set(["--set", "student.lr=0.1", "--runs", "x"], lambda path: path == "student.lr")
    ('--runs', 'x')
    """
    words = list(options)
    for index in range(len(words) - 2, -1, -1):
        if words[index] == "--set" and is_left_out(_path_of(words[index + 1])):
            del words[index : index + 2]
    return tuple(words)


def read_toml(path: Path | Traversable, *, follow: bool = True) -> dict[str, Any]:
    """The tables of a TOML file. Raises ValueError where it is none, is no recipe by its size, or has numbers or texts
    that no system takes; OSError.
    """
    with open_read(path, follow=follow) if isinstance(path, Path) else path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    text = content.decode().removeprefix("\ufeff")  # which Windows' editors begin a file with
    if _DEEP_KEY.search(text):
        raise ValueError("it nests too deeply")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{error}{instead(text, error)}") from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    require_shallow(table)
    return table


def _which_text(content: bytes) -> str:
    """Which text a file that is no UTF-8 is, where that can be told."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ": it is UTF-16, as > of older PowerShells writes; save it as UTF-8"
    return ": a byte of it belongs to another encoding, as those of Windows; save it as UTF-8"


def _find(name_or_file: str) -> tuple[str, Path | Traversable]:
    """The name of a recipe, and its file."""
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.name != name_or_file:
        return path.stem, path
    if name_or_file not in shipped():
        if path.is_dir():
            raise RecipeError(
                f"{name_or_file}: is a folder; name the recipe in it, as {path / 'recipe.toml'}"
            )
        raise RecipeError(
            f"unknown recipe {name_or_file!r}; {nearest(name_or_file, shipped())} (or a .toml file)"
        )
    return name_or_file, resources.files("decant.pipeline.config.recipes").joinpath(f"{name_or_file}.toml")


def _path_of(override: str) -> str:
    """Of a `section.key=value`, the part before the sign."""
    return override.partition("=")[0].strip()


def _as_given(settings: Settings) -> dict[str, Any]:
    """The sections with what was given and without defaults, which depend on it: each objective has its own."""
    content = settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    for name in content:
        section = getattr(settings, name)
        for key, described in type(section).model_fields.items():
            if described.exclude and key in section.model_fields_set:  # no resolved recipe has it
                content[name][key] = getattr(section, key)
    return content


def _override(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        known = sections_with(path.strip()) if equals else []
        as_in = " or ".join(f"{section}.{override.strip()}" for section in known) or "student.epochs=5"
        raise RecipeError(f"--set {override}: expected section.key=value, as in {as_in}")
    table = content
    for depth, key in enumerate(keys[:-1], start=1):
        inner = table.setdefault(key, _implied(keys[:depth]))
        if not isinstance(inner, dict):  # network = "conv" is short for { name = "conv" }
            inner = table[key] = _written_out(keys[:depth], inner)
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override}: {key} is not a table")
        table = inner
    try:
        table[keys[-1]] = _value(text.strip())
    except ValueError as error:
        raise RecipeError(f"--set {path.strip()}: {error}") from None


def _implied(path: list[str]) -> dict[str, Any]:
    """What a table is that the recipe does not write, so that one key of it can be overridden: the objective has its
    default name.
    """
    objective = StudentSettings.model_fields["objective"].default
    return {"name": objective.name} if path == ["student", "objective"] else {}


def _written_out(path: list[str], value: Any) -> Any:
    """The table that a value is short for; the value itself where it is short for none."""
    if path == ["data", "validation"]:
        return share_or_part(value)
    key = "kind" if path == ["cache", "encoding"] else "name"
    return {key: value} if isinstance(value, str) else value


def _value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string. Raises ValueError for a list or a table that is not TOML."""
    line = f"value = {text}"
    try:
        return tomllib.loads(line)["value"]
    except RecursionError:
        return text
    except ValueError as error:
        if f"{text[:1]}{text[-1:]}" not in ("[]", "{}"):
            return text
        hint = instead(line, error)
        if '"' in hint:
            hint += """, and all of it between single quotes, as a shell takes " away"""
        raise ValueError(f"not TOML: {str(error).partition(' (at')[0]}{hint}") from None


def _validate(content: dict[str, Any], source: str) -> Settings:
    odd = next(_unreadable(content), None)
    if odd is not None:
        raise RecipeError(f"{source}: {odd}")
    dates = list(_dates(content))
    if dates:
        raise RecipeError(f"{source}: {', '.join(dates)}: dates and times have no place in a recipe")
    content = language_settings.with_defaults(content)
    try:
        # Through JSON, in which a list may stand for a tuple while every other type stays exact.
        return Settings.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise RecipeError(f"{source}: {problems_in_words(error)}") from None


def expand_paths(content: dict[str, Any], source: str, *, lenient: bool = False) -> dict[str, Any]:
    """Replaces `~` and variables in every path; returns those that had any, as they were written, by `section.key`.
    Raises RecipeError where a variable is not set, unless `lenient`, which leaves such a path as it is.
    """

    def expand(value: Any, key: str) -> Any:
        if isinstance(value, list):
            return [expand(inner, key) for inner in value]
        try:
            return expanded(value, f"{source}: {key}", RecipeError) if isinstance(value, str) else value
        except RecipeError:
            if lenient:
                return value
            raise

    written = {}
    for section, key in _PATHS:
        table = content.get(section)
        if isinstance(table, dict) and key in table:
            before, table[key] = table[key], expand(table[key], f"{section}.{key}")
            if table[key] != before:
                written[f"{section}.{key}"] = before
    return written


def _unreadable(value: Any, path: str = "") -> Iterator[str]:
    """What is wrong with values that TOML has and no setting: endless numbers, and texts with a zero byte."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inner:
            yield from _unreadable(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{path}: a number too large, of {value.bit_length():,} bits"
    elif isinstance(value, str) and "\0" in value:
        yield f"{path}: a text with a zero byte"


def _dates(value: Any, path: str = "") -> Iterator[str]:
    """Paths of the values that TOML has and JSON has not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _dates(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _dates(inner, f"{path}[{index}]")
    elif isinstance(value, (datetime.date, datetime.time)):
        yield path
