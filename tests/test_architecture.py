"""The direction of the imports, read from the sources: cache below pipeline, torch in one room of cache only, and no
way from phase two to code that builds a teacher.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
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


def holds_code(path: Path) -> bool:
    """Whether a file has any function or class: the face of a package may only say what is in it."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)


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
    heavy = {"altair", "h5py", "numpy", "pydantic", "rich", "torch", "cache"}
    script = f"import sys, pipeline.cli; print(*{heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []


def test_the_distribution_holds_every_package_and_what_lies_beside_its_modules() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("cache", "pipeline")
        for path in (ROOT / top).glob("**/__init__.py")
    }
    assert set(settings["packages"]) == packages
    named = {
        path
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    beside = {
        path
        for package in packages
        for path in (ROOT / package.replace(".", "/")).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert named == beside


def test_every_source_file_has_its_test_file() -> None:
    tests = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    without = []
    for name, path in sources().items():
        package, *rest = name.split(".")
        if not rest or rest[-1] == "__main__" or not holds_code(path):
            continue
        rooms = {rest[0], rest[-1], "_".join(rest[:2])}  # the rooms of a package may share a file
        own = {name for room in rooms for name in (f"test_{room}", f"test_{package}_{room}")}
        if not own & tests:
            without.append(name)
    assert not without, f"no test file for {without}"
