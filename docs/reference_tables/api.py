"""Every public name with its docstring."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

import decant
from reference_tables.markdown import docstring


def api() -> str:
    """Every public name with its docstring."""
    return "\n\n".join(_name(name, getattr(decant, name)) for name in decant.__all__)


def _name(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        inner = [
            one for one in getattr(value, "__all__", ()) if one[0].isupper() or callable(getattr(value, one))
        ]
        members = [_member(f"{name}.{one}", getattr(value, one)) for one in inner]
        return "\n\n".join([f"## decant.{name} {{ #{name} }}", docstring(value), *members])
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
