"""Every public name with its docstring."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

import decant
from decant import cache, encodings
from reference_tables.integrations import integrations
from reference_tables.markdown import as_markdown, docstring

_OF_FILES = re.compile(r"\w+\.py ")
"""How a paragraph of a module begins that says what is in which of its files."""

_OF_CACHE = "What goes with caches beside these: errors, import and export, tables of other programs, measures of rows."


def api() -> str:
    """Every public name with its docstring."""
    names = [_name(name, getattr(decant, name)) for name in decant.__all__]
    return "\n\n".join([*names, "## decant.cache { #cache }", _OF_CACHE, *_of_cache()])


def _of_cache() -> list[str]:
    """What `decant.cache` offers beside what `decant` does, without the names of types that are no class."""
    shown = {id(getattr(module, name)) for module in (decant, encodings) for name in module.__all__}
    members = {name: getattr(cache, name) for name in cache.__all__}
    return [
        _member(f"cache.{name}", value)
        for name, value in members.items()
        if id(value) not in shown and (isinstance(value, type) or inspect.isfunction(value))
    ]


def _name(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        inner = [
            one for one in getattr(value, "__all__", ()) if one[0].isupper() or callable(getattr(value, one))
        ]
        members = [_member(f"{name}.{one}", getattr(value, one)) for one in inner]
        members = [*integrations()] if name == "integrations" else members
        paragraphs = inspect.cleandoc(value.__doc__ or "").split("\n\n")
        said = "\n\n".join(one for one in paragraphs if not _OF_FILES.match(one))
        return "\n\n".join([f"## decant.{name} {{ #{name} }}", as_markdown(said), *members])
    title = f"## decant.{name} {{ #{name} }}"
    if not isinstance(value, type):
        return "\n\n".join([title, _signature(name, value), docstring(value)])
    parts = [title, docstring(value)]
    if not hasattr(value, "open") and not issubclass(value, Exception):  # those are made by `open`, or raised
        made = docstring(value.__init__) if value.__init__.__doc__ else ""
        parts += [_signature(name, value), made if "__init__" in vars(value) else ""]
    for key, member in vars(value).items():
        shown = getattr(value, key) if isinstance(member, classmethod | staticmethod) else member
        if not key.startswith("_") and (callable(shown) or isinstance(shown, property)):
            parts.append(_member(f"{name}.{key}", shown))
    return "\n\n".join(parts)


def _member(name: str, value: Any) -> str:
    head = f"### {name} {{ #{name.replace('.', '-')} }}"
    if isinstance(value, property):
        return "\n\n".join([head, docstring(value)])
    return "\n\n".join([head, _signature(name, value), docstring(value)])


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations, which are strings in the code
    text = re.sub(r"ForwardRef\('([^']*)'\)", r"\1", text)  # as are those of named tuples
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
