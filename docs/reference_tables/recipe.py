"""What a recipe may say: its settings, objectives and view operations, the recipes and networks that ship."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from decant.pipeline.config.augmentations import Augmentation
from decant.pipeline.config.catalogue import catalogue
from decant.pipeline.config.recipe import shipped
from decant.pipeline.config.settings import Settings
from reference_tables.markdown import one_line, table

_BOUNDS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}
_ENDLESS = 1e9  # a bound beyond it is that of an integer's bits, which nobody meets
_TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "string",
    "boolean": "`true` or `false`",
    "object": "table",
}


def settings() -> str:
    """Every section of a recipe with its keys; a class that two sections share is written out once."""
    shown: dict[type[BaseModel], str] = {}
    parts = []
    for path, model in sections():
        if model in shown:
            parts.append(
                f"{_heading(path)}\n\n{_said(Settings, path)} It has the keys of `[{shown[model]}]`."
            )
        else:
            parts.append(_section(path, model))
        shown.setdefault(model, path)
    return "\n\n".join(parts)


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables that a recipe may have, by their path in the file; those within one whose keys another has are said
    there.
    """
    seen = set[type[BaseModel]]()
    for name, field in Settings.model_fields.items():
        model = _model_of(field)
        yield name, model
        for inner, nested in () if model in seen else model.model_fields.items():
            found = _model_of(nested)
            if found is not None and inner not in ("network", "objective"):
                yield f"{name}.{inner}", found
        seen.add(model)


def objectives() -> str:
    """Every objective that ships."""
    rows = [
        (f"`{entry.name}`", entry.formula, entry.use, _defaults(entry.defaults), entry.source)
        for entry in catalogue()
    ]
    return table(("name", "loss", "when to use it", "settings and defaults", "source"), rows)


def operations() -> str:
    """Everything that `views.augment` may list."""
    rows = []
    for model in operation_models():
        keys = [_setting(model, key, field) for key, field in model.model_fields.items() if key != "op"]
        rows.append((f"`{tag(model, 'op')}`", one_line(model.__doc__), "<br>".join(keys)))
    return table(("operation", "what it does", "settings and defaults"), rows)


def operation_models() -> tuple[type[BaseModel], ...]:
    """The class of each operation."""
    return get_args(get_args(Augmentation)[0])


def tag(model: type[BaseModel], key: str) -> str:
    """The word by which a recipe names a class: its only allowed `op` or `name`."""
    return str(get_args(model.model_fields[key].annotation)[0])


def recipes() -> str:
    """Every recipe that ships, with the first sentence of the comment that it begins with."""
    folder = resources.files("decant.pipeline.config.recipes")
    rows = []
    for name in shipped():
        text = folder.joinpath(f"{name}.toml").read_text("utf-8")
        comment = " ".join(line.removeprefix("#").strip() for line in text.partition("\n\n")[0].splitlines())
        rows.append(
            (
                f"`{name}`",
                re.split(r"(?<=[\w)]\.)\s(?=[A-Z])", comment)[0].removesuffix(".").replace("*", "\\*"),
            )
        )
    return table(("recipe", "what it is"), rows)


def networks() -> str:
    """Every network that ships, with the arguments that a recipe may write beside its name."""
    from decant.pipeline.networks import registry

    rows = []
    for name in registry.names():
        taken = inspect.signature(registry._find(name)).parameters.values()
        arguments = [f"`{one.name} = {one.default}`" for one in taken if one.kind is one.KEYWORD_ONLY]
        rows.append((f"`{name}`", ", ".join(arguments)))
    return table(("network", "arguments and defaults"), rows)


def described(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field, its own class's before those of the classes that it extends."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.startswith("decant"):
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            assert isinstance(body, ast.ClassDef)
            for field, after in zip(body.body, body.body[1:], strict=False):
                match field, after:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        found[name] = one_line(text)
    return found


def _section(path: str, model: type[BaseModel]) -> str:
    about = described(model)
    rows = [
        (f"`{_key(key, field)}`", _allowed(_schema(model, key)), _default(field), about.get(key, ""))
        for key, field in model.model_fields.items()
    ]
    said = re.sub(r"^`[^`]*`: ", "", one_line(model.__doc__))
    found = table(("key", "value", "default", "what it is for"), rows)
    return f"{_heading(path)}\n\n{said[0].upper()}{said[1:]}\n\n{found}"


def _heading(path: str) -> str:
    return f"## `[{path}]` {{ #{path.replace('.', '-')} }}"


def _said(model: type[BaseModel], name: str) -> str:
    return described(model)[name]


def _model_of(field: FieldInfo) -> Any:
    """The model that a field holds, where it is a table of a recipe."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _setting(model: type[BaseModel], key: str, field: FieldInfo) -> str:
    """One key of an operation in a cell: its name, default, range and docstring."""
    about = described(model).get(key)
    default = _default(field).strip("`")
    said = f"`{_key(key, field)}{f' = {default}' if default and default != 'required' else ''}`"
    required = ", required" if field.is_required() else ""
    return f"{said}: {_allowed(_schema(model, key))}{required}{f'. {about}' if about else ''}"


def _key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _schema(model: type[BaseModel], key: str) -> Mapping[str, Any]:
    whole = model.model_json_schema()
    found = whole["properties"][_key(key, model.model_fields[key])]
    return {**found, "$defs": whole.get("$defs", {})}


def _allowed(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    inner = {"$defs": schema.get("$defs", {})}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name == "Network":
            return "a name, or a table with `name`"
        if name == "Scheduled":
            return "a schedule"
        return _allowed({**schema["$defs"][name], **inner})
    if "discriminator" in schema:
        kind = schema["discriminator"]["propertyName"]
        return f"a table with `{kind}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "anyOf" in schema:
        choices = [_allowed({**one, **inner}) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(filter(None, choices)))
    if schema.get("type") == "array":
        items = schema.get("items", {})
        return "a list" + (f" of {_plural(_allowed({**items, **inner}))}" if items else "")
    bounds = [
        text.format(schema[bound])
        for bound, text in _BOUNDS.items()
        if abs(schema.get(bound, _ENDLESS)) < _ENDLESS
    ]
    return ", ".join([_TYPES.get(schema.get("type", ""), ""), " and ".join(bounds)]).strip(", ")


def _plural(allowed: str) -> str:
    noun, comma, rest = allowed.partition(", ")
    return noun.replace("a table", "tables").replace("integer", "integers").replace("number", "numbers") + (
        comma + rest
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f'`"{value.name}"`' if hasattr(value, "name") else ""
    if isinstance(value, tuple):
        value = [round(one, 4) if isinstance(one, float) else one for one in value]
    return "" if value is None else f"`{json.dumps(value)}`"


def _defaults(values: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{key} = {json.dumps(value)}`".replace(" ", "\xa0") for key, value in values.items())
