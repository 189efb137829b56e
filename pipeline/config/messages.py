"""What is wrong with a recipe, in words: the path in the file, what is allowed there, and what was found."""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from decant.cache.io.redaction import redacted
from decant.pipeline.config.absent import where_it_is
from decant.pipeline.config.settings import Settings
from decant.pipeline.config.toml_values import meant, written
from decant.pipeline.errors import nearest

_MOST_NAMED = 20
Schema = dict[str, Any]
"""A JSON Schema, or a part of one."""


def problems_in_words(error: ValidationError) -> str:
    """All that is wrong with a recipe, one line.

    >>> recipe = {"data": {"name": "digits"}, "teacher": {"network": "conv", "epochs": 1}, "studnet": {}}
    >>> try:
    ...     Settings.model_validate(recipe)
    ... except ValidationError as error:
    ...     problems_in_words(error)
    'student: missing; studnet: unknown section; did you mean student?'
    """
    problems = error.errors(include_url=False)
    words = dict[str, str]()  # by path: what fits none of several choices is a problem of each of them
    for problem in problems[:_MOST_NAMED]:
        words.setdefault(_locate(problem["loc"])[0], _in_words(problem))
    more = [f"and {len(problems) - _MOST_NAMED:,} more"] if len(problems) > _MOST_NAMED else []
    return "; ".join([*words.values(), *more])


def _in_words(problem: ErrorDetails) -> str:
    """One of pydantic's errors."""
    if not problem["loc"]:  # a check across sections names the keys itself
        return str(problem["ctx"]["error"])
    *parents, last = problem["loc"]
    path, schema = _locate(problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            known = _locate(parents, table=True)[1]["properties"]
            elsewhere = where_it_is(parents, str(last))
            return (
                f"{path}: unknown {'key' if parents else 'section'}; {elsewhere or nearest(str(last), known)}"
            )
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
                f"{path}.{choice['propertyName']}: unknown {what} {textwrap.shorten(tag, 80)!r}; "
                f"{nearest(tag[:80], choice['mapping'])}{own}"
            )
        case "less_than" if "exclusiveMaximum" not in schema and "anyOf" not in schema:
            # the largest count is in no schema
            return f"{path}: expected {_TYPES[schema['type']]} below {problem['ctx']['lt']:,}, found {problem['input']}"
        case _:
            found = redacted(json.dumps(problem["input"], ensure_ascii=False))
            as_type = _in_quotes if schema.get("type") == "string" else _out_of_quotes
            hint = as_type(problem["input"], schema)
            return f"{path}: expected {expected(schema)}, found {textwrap.shorten(found, 80)}{hint}"


def _in_quotes(value: object, schema: Schema) -> str:
    """How a number that was to be text is written, as the name of a folder may be one; nothing for other values."""
    text = str(value).lower() if isinstance(value, bool) else value  # as TOML writes it
    return f"""; in quotes it is text: '"{text}"'""" if isinstance(value, int | float) else ""


def _out_of_quotes(value: object, schema: Schema) -> str:
    """How a number or a truth value is written that was found as text; nothing where none of its type was expected."""
    found = meant(value) if isinstance(value, str) else None
    kinds = {choice.get("type") for choice in schema.get("anyOf", [schema])}
    fitting = (
        {"boolean"}
        if isinstance(found, bool)
        else {"number", "integer"}
        if isinstance(found, int)
        else {"number"}
    )
    return f"; write {written(found)}" if found is not None and kinds & fitting else ""


def _locate(loc: Sequence[str | int], table: bool = False) -> tuple[str, Schema]:
    """The path as it is written in a recipe, and the JSON Schema of the value there: of several, the first, or the
    first table where `table` is true or the path goes on inside.

    pydantic adds the name of an objective or operation to the path of a problem inside it.
    """
    whole = _schema()
    path, schema = "", whole
    for depth, part in enumerate(loc):
        arrays = [choice for choice in schema.get("anyOf", ()) if choice.get("type") == "array"]
        if isinstance(part, int) and arrays:
            schema = arrays[0]
        if "anyOf" in schema:
            break  # what follows is pydantic's name for one of the choices
        if "discriminator" in schema:
            known = schema["discriminator"]["mapping"]
            if part not in known:  # the name itself, which is no text
                return f"{path}.{part}", {"type": "string"}
            schema = {"$ref": known[part]}
        elif isinstance(part, int):
            path = f"{path}[{part}]"
            schema = schema["items"] if "items" in schema else schema["prefixItems"][part]
        else:
            path, schema = f"{path}.{part}" if path else part, schema.get("properties", {}).get(part, {})
        choices = [_definition(choice, whole) for choice in schema.get("anyOf", [schema])]
        choices = [choice for choice in choices if choice.get("type") != "null"]
        tables = [choice for choice in choices if "properties" in choice or "discriminator" in choice]
        if len(choices) > 1 and not tables:
            schema = {"anyOf": choices}
        else:
            schema = (tables if tables and (table or depth + 1 < len(loc)) else choices)[0]
    return path, schema


@functools.cache
def _schema() -> Schema:
    return Settings.model_json_schema()


def _definition(schema: Schema, whole: Schema) -> Schema:
    """The schema that a reference points to; any other schema as it is."""
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


def expected(schema: Schema) -> str:
    """What a schema allows, in words: the type with its range, or the choices."""
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "discriminator" in schema:
        return f"a table with `{schema['discriminator']['propertyName']}`"
    if schema.get("title") == "Network":
        return "a name, or a table with `name`"
    if "anyOf" in schema:
        return " or ".join(expected(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}"
    bounds = [f"{word} {_plain(schema[bound])}" for bound, word in _BOUNDS.items() if bound in schema]
    return " ".join([_TYPES[schema["type"]], " and ".join(bounds)]).strip()


def _plain(bound: float) -> str:
    """A bound of a number: 1 for 1.0 too, which pydantic writes either way."""
    return f"{int(bound) if bound == int(bound) else bound:,}"
