"""Shell completion of recipes, settings, caches and runs. Never imports torch, so that a shell answers at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from click import Context, Parameter
from click.shell_completion import CompletionItem

_RUNS = Path("runs")
_RUN_BY_SHELLS = frozenset("$`;&|<>()\"'\\!")


def recipes(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Shipped recipes, and the .toml files in the folder that the word names."""
    from decant.pipeline.config.recipe import shipped

    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    beside = [str(path) for path in sorted(folder.glob("*.toml"))]
    return _beginning([*shipped(), *beside], incomplete)


def settings(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """`section.key=` of every setting; where only one fits, also its choices, or else the recipe's value."""
    from decant.pipeline.config.settings import Settings

    schema = Settings.model_json_schema()
    choices: dict[str, dict[str, None]] = {}
    for path, allowed in _settings(schema, schema["$defs"]):
        choices.setdefault(path, {}).update(dict.fromkeys(allowed))
    key, equals, _ = incomplete.partition("=")
    fitting = [path for path in choices if (path == key if equals else path.startswith(key))]
    words = [f"{path}=" for path in fitting]
    if len(fitting) == 1:
        values = choices[fitting[0]] or _value(context.params.get("recipe"), fitting[0])
        words += [f"{fitting[0]}={value}" for value in values]
    return [CompletionItem(word) for word in words if word.startswith(incomplete) and _is_harmless(word)]


def caches(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the caches in the store."""
    from decant.cache import Store

    names = (path.name for path in Store(context.params.get("store")).paths())
    return _beginning(names, incomplete)


def runs(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders of finished runs in `runs/`."""
    folders = sorted(str(path.parent) for path in _RUNS.glob("**/result.json"))
    return _beginning(folders, incomplete, otherwise="dir")


def files(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, completed by the shell itself."""
    return [CompletionItem(incomplete, type="file")]


def folders(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders, completed by the shell itself."""
    return [CompletionItem(incomplete, type="dir")]


def _beginning(words: Iterable[str], incomplete: str, otherwise: str = "file") -> list[CompletionItem]:
    """The words that begin with `incomplete` and are harmless; where there is none, files or folders, completed by the
    shell, which quotes them.
    """
    items = [CompletionItem(word) for word in words if word.startswith(incomplete) and _is_harmless(word)]
    return items or [CompletionItem(incomplete, type=otherwise)]


def _is_harmless(word: str) -> bool:
    """Whether a word can be seen, and has nothing that a shell would run once it stands on the command line."""
    return word.isprintable() and not set(word) & _RUN_BY_SHELLS


def _settings(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Yields (path, choices) for each setting of a JSON Schema; no choices where they cannot be listed."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        for alternative in alternatives:
            yield from _settings(alternative, definitions, path)
    elif "properties" in schema:
        if schema["title"] == "Network":  # a name stands for the table
            yield path, []
        for name, inner in schema["properties"].items():
            yield from _settings(inner, definitions, f"{path}.{name}" if path else name)
    elif schema["type"] == "boolean":
        yield path, ["false", "true"]
    elif schema["type"] != "null":
        yield path, [schema["const"]] if "const" in schema else schema.get("enum", [])


def _value(recipe: str | None, path: str) -> list[str]:
    """The value of a setting in a recipe, as a list of one; empty where it is a table, a list or absent."""
    from decant.pipeline.config.recipe import DEFAULT, load_recipe
    from decant.pipeline.errors import PipelineError

    try:
        value: Any = load_recipe(recipe or DEFAULT).settings.model_dump(mode="json", by_alias=True)
    except PipelineError:
        return []
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return [str(value)] if isinstance(value, int | float | str) else []
