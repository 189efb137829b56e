"""The distribution, built once, and environments that it is installed in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.environments import Environment, copy_sources, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree by pip."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_sources(folder / "tree"), folder / "dist")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and its base dependencies, and no extra."""
    folder = tmp_path_factory.mktemp("installed")
    environment = Environment(folder / "venv", light=True)
    environment.pip_install(wheel, cwd=folder)
    return environment


def build_wheel(source: Path, output: Path) -> Path:
    """`pip wheel` of a folder or a source archive."""
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(*pip, "--wheel-dir", output, source, cwd=source.parent)
    [wheel] = output.glob("*.whl")
    return wheel
