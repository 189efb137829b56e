"""The imports of the sources, as a graph of modules and of rooms: `python -m tests.helpers.imports` counts it.

A room is a folder of `pipeline/`, one of its own files, or `cache/` as a whole. It stands one floor above the highest
room that it imports.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def sources() -> dict[str, Path]:
    """Module name → file, of both packages."""
    modules = {}
    for path in [*ROOT.glob("cache/**/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        parts = ("decant", *path.relative_to(ROOT).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


@cache
def imports(path: Path, typing: bool = False) -> set[str]:
    """Every module that a file imports at any depth of its code; with `typing` also for type checkers only."""
    known, names, todo = sources(), set[str](), list[ast.AST]([ast.parse(path.read_text("utf-8"))])
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and not typing and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            names |= modules
            if len(modules) < len(node.names):  # what is imported is not modules alone
                names.add(str(node.module))
        todo += (inner for inner in ast.iter_child_nodes(node) if not isinstance(inner, ast.expr))
    return {name for name in names if name in known or name.split(".")[0] != "decant"}


@cache
def graph(typing: bool = False) -> dict[str, set[str]]:
    """Module name → the modules that it imports; with `typing` also for type checkers only."""
    return {name: imports(path, typing) for name, path in sources().items()}


@cache
def reachable(start: str, typing: bool = False) -> set[str]:
    edges, seen, todo = graph(typing), set[str](), [start]
    while todo:
        name = todo.pop()
        if name in edges and name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


def circles() -> list[tuple[str, str]]:
    """Every import that leads back to where it stands, be it for types alone: (module, what it imports)."""
    return [
        (name, other)
        for name, imported in graph(typing=True).items()
        for other in imported & set(sources())
        # A module of a package may come from the package's own file.
        if not name.startswith(f"{other}.") and name in reachable(other, typing=True)
    ]


def room(module: str) -> str:
    """`pipeline/phases` for decant.pipeline.phases.plan, `cache` for every module of the cache."""
    parts = module.split(".")[1:]
    return "cache" if parts[0] == "cache" else "/".join(parts[:2])


def rooms() -> dict[str, set[str]]:
    """Room → the rooms that it imports."""
    edges: dict[str, set[str]] = {}
    for name, imported in graph().items():
        edges.setdefault(room(name), set()).update(room(other) for other in imported & set(sources()))
    return {name: others - {name} for name, others in edges.items()}


def floors(edges: dict[str, set[str]]) -> dict[str, int]:
    """Room → its floor, from 1. Raises RecursionError where rooms import each other in a circle."""

    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in edges[name]), default=0)

    return {name: floor(name) for name in edges}


def main() -> None:
    """Prints the rooms by floor with what they import, and the counts."""
    edges = rooms()
    height = floors(edges)
    for name in sorted(edges, key=lambda name: (-height[name], name)):
        print(f"{height[name]:2}  {name:22} → {', '.join(sorted(edges[name])) or '–'}")
    arrows = sum(len(others) for others in edges.values())
    print(
        f"{len(edges)} rooms on {max(height.values())} floors, {arrows} arrows; "
        f"{len(sources())} modules, {len(circles())} imports in a circle"
    )


if __name__ == "__main__":
    main()
