"""The folders of the code, and the messages that it may print."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

from reference_tables.markdown import table

ROOT = Path(__file__).parents[2]
_OTHERS = "Others"
_OF_OTHERS = "Raised through a function, so that the class depends on its caller."
"""Messages that are raised through a function or a variable, so that the place does not say their class."""


def tree() -> str:
    """Every folder of the two packages, with the first sentence of its docstring."""
    rows = []
    for top in ("cache", "pipeline"):
        for path in sorted((ROOT / top).rglob("__init__.py")):
            found = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            said = " ".join(found.split("\n\n")[0].split()).split(". ")[0].removesuffix(".")
            rows.append((f"`{path.parent.relative_to(ROOT)}/`", said))
    return table(("folder", "what is in it"), rows)


def messages() -> str:
    """Every message of an error that a command words, by its class; `…` stands for what differs."""
    found: dict[str, dict[str, str]] = {name: {} for name in errors()}
    for path in sorted([*ROOT.glob("cache/**/*.py"), *ROOT.glob("pipeline/**/*.py")]):
        folder = path.parent.relative_to(ROOT)
        for name, message in _raised(path):
            if name in found or not hasattr(builtins, name):
                found.setdefault(name if name in found else _OTHERS, {}).setdefault(message, f"`{folder}/`")
    parts = [
        f"## {name} {{ #{name} }}\n\n{errors().get(name, _OF_OTHERS)}\n\n"
        + table(("said by", "message"), [(where, f"`` {text} ``") for text, where in sorted(said.items())])
        for name, said in sorted(found.items())
        if said
    ]
    return "\n\n".join(parts)


def errors() -> dict[str, str]:
    """Every error class of the two packages with the first line of its docstring."""
    found = {}
    for path in (ROOT / "cache/errors.py", ROOT / "pipeline/errors.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return found


def _raised(path: Path) -> Iterator[tuple[str, str]]:
    """(class, message) of each `raise` in a file whose message says something."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            kind, text = node.exc.func, _text(node.exc.args[0])
            called = getattr(kind, "id", getattr(kind, "attr", None))
            if called and len(text.replace("…", "").strip(" :;")) > 3:
                # What settings refuse in pydantic's way becomes the error of the recipe.
                name = "RecipeError" if called == "ValueError" and "config" in path.parts else called
                yield name, " ".join(text.replace("……", "…").split())


def _text(message: ast.expr) -> str:
    """A message with `…` for whatever is put into it."""
    if isinstance(message, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in message.values)
    return str(message.value) if isinstance(message, ast.Constant) else ""
