"""Virtual environments with the libraries of the running one, linked and not downloaded, and pip in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.processes import PATIENCE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


class Environment:
    """A virtual environment in a folder. With `light` it has the base dependencies alone, and no extra."""

    def __init__(self, folder: Path, *, light: bool) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        self.site = next(folder.glob("lib/python*/site-packages"))
        _link_libraries(self.site, light)

    def run(self, *words: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`python WORDS`, in a folder that Python has on its path."""
        return run(self.python, *words, cwd=cwd, check=check)

    def pip_install(self, *words: str | Path, cwd: Path) -> str:
        """`pip install --no-deps --no-build-isolation WORDS`: what pip said."""
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", *offline)
        return run(*pip, *words, cwd=cwd).stdout


def run(*words: str | Path, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that finds nothing of the running process's environment, and that must succeed with `check`."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


def copy_sources(folder: Path) -> Path:
    """A copy of what the distribution is built from, links as links."""
    for name in ("decant", "cache", "pipeline"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "Makefile", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def _link_libraries(site: Path, light: bool) -> None:
    """Links the distributions of the running environment into another one: all but decant and pip, or only the base
    dependencies.
    """
    wanted = _closure(PROJECT["dependencies"]) if light else metadata.distributions()
    for distribution in wanted:
        if distribution.name.startswith(("decant", "pip")):
            continue
        for file in distribution.files or ():
            top = file.parts[0]
            source, link = Path(str(distribution.locate_file(top))), site / top
            if top not in ("..", "__pycache__") and source.exists() and not link.exists():
                link.symlink_to(source)


def _closure(requirements: list[str]) -> list[metadata.Distribution]:
    """The distributions that these requirements bring, without any extra."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if needed and requirement.name not in found:
            found[requirement.name] = metadata.distribution(requirement.name)
            waiting += map(Requirement, found[requirement.name].requires or ())
    return list(found.values())
