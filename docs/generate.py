"""The tables of the reference, made from the code: mkdocs calls this file while it builds the site.

A page says `<!-- generated: settings -->` where the table belongs. The names are the keys of `TABLES`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import decant
from decant.pipeline.cli.main import decant as command_line
from decant.pipeline.config.augmentations import Augmentation
from decant.pipeline.config.catalogue import catalogue
from decant.pipeline.config.settings import Settings

ROOT = Path(__file__).parents[1]
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
    """The tables that a recipe may have, by their path in the file."""
    for name, field in Settings.model_fields.items():
        model = _model_of(field)
        yield name, model
        for inner, nested in model.model_fields.items():
            found = _model_of(nested)
            if found is not None and inner not in ("network", "objective"):
                yield f"{name}.{inner}", found


def objectives() -> str:
    """Every objective that ships."""
    rows = [
        (f"`{entry.name}`", entry.formula, entry.use, _defaults(entry.defaults), entry.source)
        for entry in catalogue()
    ]
    return _table(("name", "loss", "when to use it", "settings and defaults", "source"), rows)


def operations() -> str:
    """Everything that `views.augment` may list."""
    rows = []
    for model in operation_models():
        keys = [_setting(model, key, field) for key, field in model.model_fields.items() if key != "op"]
        rows.append((f"`{tag(model, 'op')}`", _one_line(model.__doc__), "<br>".join(keys)))
    return _table(("`op`", "what it does", "settings and defaults"), rows)


def operation_models() -> tuple[type[BaseModel], ...]:
    """The class of each operation."""
    return get_args(get_args(Augmentation)[0])


def tag(model: type[BaseModel], key: str) -> str:
    """The word by which a recipe names a class: its only allowed `op` or `name`."""
    return str(get_args(model.model_fields[key].annotation)[0])


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_command(path, command) for path, command in walk(command_line, "decant"))


def walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, by what is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def api() -> str:
    """Every public name with its docstring."""
    return "\n\n".join(_name(name, getattr(decant, name)) for name in decant.__all__)


def tree() -> str:
    """Every folder of the two packages, with the first sentence of its docstring."""
    rows = []
    for top in ("cache", "pipeline"):
        for path in sorted((ROOT / top).rglob("__init__.py")):
            found = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            said = " ".join(found.split("\n\n")[0].split()).split(". ")[0].removesuffix(".")
            rows.append((f"`{path.parent.relative_to(ROOT)}/`", said))
    return _table(("folder", "what is in it"), rows)


TABLES = {
    "settings": settings,
    "objectives": objectives,
    "operations": operations,
    "commands": commands,
    "api": api,
    "tree": tree,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for each page: puts the tables in."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda found: TABLES[found[1]](), markdown)


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
                        found[name] = _one_line(text)
    return found


def _section(path: str, model: type[BaseModel]) -> str:
    about = described(model)
    rows = [
        (f"`{_key(key, field)}`", _allowed(_schema(model, key)), _default(field), about.get(key, ""))
        for key, field in model.model_fields.items()
    ]
    said = re.sub(r"^`[^`]*`: ", "", _one_line(model.__doc__))
    table = _table(("key", "value", "default", "what it is for"), rows)
    return f"{_heading(path)}\n\n{said[0].upper()}{said[1:]}\n\n{table}"


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
    return "" if value is None else f"`{json.dumps(value)}`"


def _defaults(values: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{key} = {json.dumps(value)}`".replace(" ", "\xa0") for key, value in values.items())


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, help_option_names=["-h", "--help"])
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            rows.append((f"`{record[0]}`", record[1]))
    text = inspect.cleandoc(command.help or "")
    table = _table(("option", "what it does"), rows)
    return f"## {path} {{ #{path.replace(' ', '-')} }}\n\n```text\n{usage}\n```\n\n{text}\n\n{table}"


def _name(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        inner = [
            one for one in getattr(value, "__all__", ()) if one[0].isupper() or callable(getattr(value, one))
        ]
        members = [_member(f"{name}.{one}", getattr(value, one)) for one in inner]
        return "\n\n".join([f"## decant.{name} {{ #{name} }}", _docstring(value), *members])
    title = f"## decant.{name} {{ #{name} }}"
    if not isinstance(value, type):
        return "\n\n".join([title, _signature(name, value), _docstring(value)])
    parts = [title, _docstring(value)]
    if not hasattr(value, "open") and not issubclass(value, Exception):  # those are made by `open`, or raised
        made = _docstring(value.__init__) if value.__init__.__doc__ else ""
        parts += [_signature(name, value), made if "__init__" in vars(value) else ""]
    for key, member in vars(value).items():
        shown = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not key.startswith("_") and (callable(shown) or isinstance(shown, property)):
            parts.append(_member(f"{name}.{key}", shown))
    return "\n\n".join(parts)


def _member(name: str, value: Any) -> str:
    head = f"### {name} {{ #{name.replace('.', '-')} }}"
    if isinstance(value, property):
        return "\n\n".join([head, _docstring(value)])
    return "\n\n".join([head, _signature(name, value), _docstring(value)])


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations, which are strings in the code
    text = (
        text.replace("(self, ", "(")
        .replace("(self)", "()")
        .removesuffix(" -> None" * isinstance(value, type))
    )
    if len(name + text) > 80:
        inner, arrow, returned = text.removeprefix("(").rpartition(")")
        inner = re.sub(r", (?=[\w*/]+(?::|,|$))", ",\n    ", inner)
        text = f"(\n    {inner},\n{arrow}{returned}"
    return f"```python\n{name}{text}\n```"


def _docstring(value: Any) -> str:
    """A docstring as Markdown: examples become code."""
    lines, inside = [], False
    for line in inspect.cleandoc(getattr(value, "__doc__", None) or "").splitlines():
        begins = line.startswith(">>>")
        if begins and not inside:
            lines += ["", "```pycon"]
        elif inside and not line.strip():
            lines.append("```")
        inside = begins or (inside and bool(line.strip()))
        lines.append(line)
    return "\n".join([*lines, *(["```"] if inside else [])])


def _table(columns: tuple[str, ...], rows: list[Any]) -> str:
    def line(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def _one_line(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split())
