"""The direction of the imports, read from the sources: cache below pipeline, torch in one room of cache only, and no
way from phase two to code that builds a teacher.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def sources() -> dict[str, Path]:
    """Module name → file, of both packages."""
    found = {}
    for path in [*ROOT.glob("cache/**/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Every module that a file imports at any depth of its code, except for type checkers only."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(str(node.module))
    return {name for name in names if name in known or name.split(".")[0] not in ("cache", "pipeline")}


def graph() -> dict[str, set[str]]:
    found = sources()
    return {name: imports(path, set(found)) for name, path in found.items()}


def reachable(start: str) -> set[str]:
    edges, seen, todo = graph(), set(), [start]
    while todo:
        name = todo.pop()
        if name in edges and name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


def test_the_cache_never_imports_the_pipeline() -> None:
    for name, imported in graph().items():
        if name.startswith("cache"):
            assert not {other for other in imported if other.split(".")[0] == "pipeline"}, name


def test_only_the_dataset_of_the_cache_imports_torch() -> None:
    having = {
        name
        for name, imported in graph().items()
        if name.startswith("cache") and any(other.split(".")[0] == "torch" for other in imported)
    }
    assert having == {"cache.dataset"}


@pytest.mark.parametrize("builder", ["pipeline.teacher", "pipeline.cache_logits"])
def test_phase_two_reaches_no_code_that_builds_or_runs_a_teacher(builder: str) -> None:
    assert builder in sources()
    assert builder not in reachable("pipeline.student")


def test_the_command_line_imports_nothing_heavy_before_a_command_runs() -> None:
    tree = ast.parse((ROOT / "pipeline/cli.py").read_text("utf-8"))
    eager = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    eager |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {
        name for name in eager if name.split(".")[0] in ("torch", "numpy", "pydantic", "h5py", "cache")
    }


def test_every_source_file_has_its_test_file() -> None:
    tests = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    without = []
    for name in sources():
        package, *rest = name.split(".")
        if not rest or rest[-1] == "__main__" or rest[0] == "recipes":
            continue
        own = {f"test_{rest[0]}", f"test_{package}_{rest[0]}"}  # the rooms of a package share a file
        if not own & tests:
            without.append(name)
    assert not without, f"no test file for {without}"
