"""An editable install, of which type checkers see the types too, and an environment that `make` finds from before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.environments import PROJECT, Environment, copy_sources, run

TYPED = """
import decant

cache = decant.LogitCache.open("a.h5")
samples: int = cache.num_samples
reveal_type(cache.logits([0]))
wrong: str = cache.num_samples

from decant.objectives import KD, Objective
loss: Objective = KD(0.5, temperature=2.0)
KD(alpha="much")

from decant.views import flip
flip(p="often")
"""

WITHOUT_TORCH = """
[mypy]
[mypy-torch.*]
follow_imports = skip
"""
"""What is asked is whether the types of decant are seen; reading those of torch takes longer than all else."""

BEFORE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "decant"
version = "0.0.1"

[project.scripts]
decant = "pipeline.before:main"

[tool.setuptools.packages.find]
include = ["pipeline*"]
"""


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which the tree is installed as by `pip install --editable .`."""
    folder = tmp_path_factory.mktemp("editable")
    tree = copy_sources(folder / "tree")
    environment = Environment(folder / "venv", light=True)
    environment.pip_install("--editable", tree, cwd=folder)
    return environment


def test_an_editable_install_runs_the_tree(editable: Environment, tmp_path: Path) -> None:
    tree = editable.site.parents[3] / "tree"
    said = editable.run("-c", "import decant; print(decant.__file__)", cwd=tmp_path).stdout
    assert Path(said.strip()) == tree / "decant/__init__.py"
    version = run(editable.python.parent / "decant", "--version", cwd=tmp_path).stdout
    assert version == f"decant, version {PROJECT['version']}\n"


def test_inside_the_tree_the_folders_have_their_names(editable: Environment) -> None:
    tree = editable.site.parents[3] / "tree"
    script = "import decant; from cache import LogitCache; print(LogitCache is decant.LogitCache)"
    assert editable.run("-c", script, cwd=tree).stdout == "True\n"
    assert editable.run("-m", "pipeline", "--version", cwd=tree).stdout.startswith("decant, version")


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Types of the libraries, which take mypy seconds the first time."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_mypy_sees_types(how: str, request: pytest.FixtureRequest, mypy_cache: Path, tmp_path: Path) -> None:
    environment: Environment = request.getfixturevalue(how)
    (tmp_path / "loop.py").write_text(TYPED)
    (tmp_path / "mypy.ini").write_text(WITHOUT_TORCH)
    mypy = (sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--python-executable", environment.python)
    found = run(*mypy, "--cache-dir", mypy_cache, "loop.py", cwd=tmp_path, check=False)
    revealed, wrong, alpha, often, count = found.stdout.splitlines()
    assert revealed.startswith('loop.py:6: note: Revealed type is "numpy.ndarray['), found.stdout
    assert wrong.startswith("loop.py:7: error: Incompatible types in assignment"), found.stdout
    assert alpha.startswith('loop.py:11: error: Argument "alpha" has incompatible type "str"'), found.stdout
    assert often.startswith('loop.py:14: error: Argument "p" to "flip" has incompatible type "str"'), (
        found.stdout
    )
    assert count.startswith("Found 3 errors in 1 file"), found.stdout


def test_make_takes_over_an_environment_of_the_old_distribution(tmp_path: Path) -> None:
    before = tmp_path / "before"
    (before / "pipeline").mkdir(parents=True)
    (before / "pipeline/__init__.py").touch()
    (before / "pipeline/before.py").write_text("def main(): print('before')\n")
    (before / "pyproject.toml").write_text(BEFORE)
    environment = Environment(tmp_path / "venv", light=False)
    environment.pip_install("--editable", before, cwd=tmp_path)
    command = environment.python.parent / "decant"
    assert run(command, cwd=tmp_path).stdout == "before\n"

    tree = copy_sources(tmp_path / "tree")
    variables = (f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}
    offline["PIP_NO_BUILD_ISOLATION"] = "0"  # which pip reads as "no isolation"
    run("make", *variables, tmp_path / "venv/.ready", cwd=tree, **offline)
    assert run(command, "--version", cwd=tmp_path).stdout == f"decant, version {PROJECT['version']}\n"
    script = "from importlib.metadata import distributions as all; print(*(one.name for one in all()))"
    names = environment.run("-c", script, cwd=tmp_path).stdout.split()
    assert PROJECT["name"] in names
    assert "decant" not in names
