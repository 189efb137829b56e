"""The names of `decant.integrations`, read from their sources: the libraries that they need may not be installed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from reference_tables.markdown import as_markdown

ROOT = Path(__file__).parents[2]


def integrations() -> Iterator[str]:
    """Each public class and function with its arguments and docstring, by the module that offers it."""
    for path in sorted((ROOT / "decant/integrations").glob("[a-z]*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                source = ROOT / f"{node.module.removeprefix('decant.').replace('.', '/')}.py"
                defined = {one.name: one for one in _definitions(source)}
                for alias in node.names:
                    yield _member(f"integrations.{path.stem}.{alias.name}", defined[alias.name])


def _definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node


def _member(name: str, node: ast.ClassDef | ast.FunctionDef) -> str:
    made: ast.ClassDef | ast.FunctionDef | None = node
    if isinstance(node, ast.ClassDef):
        made = next(
            (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None
        )
    parts = [f"### {name} {{ #{name.replace('.', '-')} }}"]
    if isinstance(made, ast.FunctionDef):
        given = re.sub(r"^self(, |$)", "", ast.unparse(made.args))
        if len(name + given) > 80:
            given = "\n    " + re.sub(r", (?=[\w*]+(: |,|$))", ",\n    ", given) + ",\n"
        returned = f" -> {ast.unparse(made.returns)}" if made.returns is not None and made is node else ""
        parts.append(f"```python\n{name}({given}){returned}\n```")
    said = [ast.get_docstring(one) for one in (node, made) if one is not None]
    return "\n\n".join([*parts, *(as_markdown(text) for text in dict.fromkeys(said) if text)])
