"""The direction of the imports, read from the sources: cache below pipeline, the rooms of pipeline in layers, torch in
two modules of cache only, and no way from phase two to code that builds or runs a teacher.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.helpers.imports import ROOT, circles, graph, imports, reachable, sources


def test_the_packages_are_imported_by_one_name() -> None:
    for name, imported in graph().items():
        assert not {other for other in imported if other.split(".")[0] in ("cache", "pipeline")}, name


def test_the_cache_never_imports_the_pipeline() -> None:
    for name, imported in graph().items():
        if name.startswith("decant.cache"):
            assert not {other for other in imported if other.startswith("decant.pipeline")}, name


def test_only_the_datasets_of_the_cache_import_torch() -> None:
    having = {
        name
        for name, imported in graph().items()
        if name.startswith("decant.cache") and any(other.split(".")[0] == "torch" for other in imported)
    }
    assert having == {
        "decant.cache.dataset",
        "decant.cache.sequences",
        "decant.cache.shared_epoch",
        "decant.cache.stream",
    }


def test_the_pipeline_imports_of_the_cache_what_the_package_offers_and_io() -> None:
    """Also for types: what a module of the cache is called, and what it holds, is the cache's own business."""
    for name, path in sources().items():
        if name.startswith("decant.pipeline"):
            inner = {other for other in imports(path, typing=True) if "decant.cache." in other}
            assert {other for other in inner if not other.startswith("decant.cache.io")} == set(), name


def test_what_the_cache_offers_is_there() -> None:
    from decant import cache as package

    assert package.__all__ == sorted(package.__all__, key=lambda name: (name.islower(), name))
    assert all(getattr(package, name) is not None for name in package.__all__)


@pytest.mark.parametrize("name", ["teacher", "given_weights", "cache_logits", "teacher_pass", "cost"])
def test_phase_two_reaches_no_code_that_builds_or_runs_a_teacher(name: str) -> None:
    module = f"decant.pipeline.phases.{name}"
    assert module in sources()
    assert module not in reachable("decant.pipeline.phases.student")


def test_no_modules_import_each_other_in_a_circle_be_it_for_types() -> None:
    assert not circles()


LAYERS = (
    ("cli",),
    ("report",),
    ("status", "deploy", "integrations"),
    ("sweeps",),
    ("phases",),
    ("language",),
    ("own_loop",),
    ("runs", "tracking"),
    ("training",),
    ("networks", "objectives"),
    ("views",),
    ("data",),
    ("served",),
    ("corpus",),
    ("config",),
    ("support",),
    ("ranks",),
    ("errors",),
)
"""The rooms of `pipeline/`, from the top down: a room imports rooms below it alone."""


def room(module: str) -> str:
    """`phases` for decant.pipeline.phases.plan."""
    return module.split(".")[2]


def test_every_room_of_the_pipeline_imports_rooms_below_it_alone() -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    modules = [name for name in sources() if name.startswith("decant.pipeline.")]
    found = {room(name) for name in modules} - {"__main__"}
    assert found == set(layer), "a new room needs a place in LAYERS"
    upward = {
        f"{name} imports {other}"
        for name in modules
        if room(name) != "__main__"
        for other in graph()[name]
        if other.startswith("decant.pipeline.") and room(other) != room(name)
        if layer[room(other)] <= layer[room(name)]
    }
    assert not upward, "\n".join(sorted(upward))


def test_the_command_line_imports_nothing_heavy_before_a_command_runs() -> None:
    heavy = {"altair", "h5py", "numpy", "pydantic", "rich", "torch", "decant.cache"}
    script = f"import sys, decant.pipeline.cli.main; print(*{heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []


def test_training_on_the_digits_imports_neither_torchvision_nor_scikit_learn() -> None:
    """Both together take as long as importing torch."""
    script = (
        "import sys, decant.pipeline.phases.cache_logits, decant.pipeline.phases.student\n"
        "from decant.pipeline.config.recipe import load_recipe\n"
        "from decant.pipeline.phases.plan import Plan\n"
        "from pathlib import Path\n"
        "Plan.of(load_recipe('digits'), Path()).splits\n"
        "print(*{'torchvision', 'sklearn', 'scipy', 'optuna'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []


def test_import_decant_loads_neither_torch_nor_h5py() -> None:
    script = "import sys, decant; dir(decant); print(*{'torch', 'h5py', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_names_of_the_folders_are_other_names_of_the_same_modules() -> None:
    script = (
        "import cache, cache.manifest, decant.cache.manifest, pipeline.errors, decant.pipeline.errors, decant\n"
        "from cache import LogitCache\n"
        "from cache.reader import LogitCache as deep\n"
        "assert cache.manifest is decant.cache.manifest, 'manifest'\n"
        "assert cache.manifest.__spec__.name == 'decant.cache.manifest'\n"
        "assert pipeline.errors is decant.pipeline.errors, 'errors'\n"
        "assert LogitCache is deep is decant.LogitCache, 'class'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_a_room_of_several_modules_says_what_each_is_for() -> None:
    """In the docstring of its package: by this list a reader, and a new line of code, finds the module."""
    packages = [path for path in sources().values() if path.name == "__init__.py"]
    missing = {}
    for package in packages:
        modules = {path.stem for path in package.parent.glob("*.py")} - {"__init__", "__main__"}
        listed = set(
            re.findall(r"(\w+)\.py\b", ast.get_docstring(ast.parse(package.read_text("utf-8"))) or "")
        )
        if len(modules) > 4 and (unsaid := modules - listed):
            missing[package.parent.name] = sorted(unsaid)
    assert missing == {}
