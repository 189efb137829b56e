"""`docs/contributing.md`: its order of rooms is that of the imports, and what it adds to a copy of the code runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.helpers.imports import graph
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs/contributing.md").read_text("utf-8")
BLOCK = re.compile(
    r"In `(?P<file>[^`]+)`, (?P<side>above|below|in place of) `(?P<line>[^`]+)`\n\n"
    r"<!--.*?-->\n```python\n(?P<code>.*?)```",
    re.DOTALL,
)
RECIPE = """
[data]
name = "bars"

[views]
count = 2
augment = [{ op = "invert" }]

[teacher]
network = { name = "pooled", size = 8 }
epochs = 2
lr = 0.01

[student]
network = "pooled"
epochs = 2
lr = 0.01
objective = "l1"
"""
RUN = """
import warnings
from decant.cache import CacheWarning
from decant.pipeline.cli.main import decant
warnings.simplefilter("default", CacheWarning)  # in two epochs a teacher learns too little not to be doubted
for phase in ("teacher", "cache-logits", "student", "objectives"):
    words = [phase] if phase == "objectives" else [phase, "--recipe", "new.toml", "--device", "cpu"]
    decant(words, standalone_mode=False)
"""


def test_a_room_imports_nothing_from_a_room_below_it_in_the_table() -> None:
    rooms = re.findall(r"^\| `([a-z_/]+)` \|", PAGE, re.MULTILINE)
    prefixes = ["decant." + room.rstrip("/").replace("/", ".") for room in rooms]
    there = {".".join(name.split(".")[:3]) for name in graph() if name.startswith("decant.pipeline.")}
    folders = {name for name in there if (ROOT / name.removeprefix("decant.").replace(".", "/")).is_dir()}
    assert folders == set(prefixes) - {"decant.cache"}
    for name, imported in graph().items():
        here = _room(name, prefixes)
        below = {other for other in imported if here is not None and (_room(other, prefixes) or 0) > here}
        assert not below, f"{name} imports {sorted(below)}"


def _room(module: str, prefixes: list[str]) -> int | None:
    found = [place for place, prefix in enumerate(prefixes) if f"{module}.".startswith(f"{prefix}.")]
    return found[0] if found else None


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages and what the page adds to them."""
    folder = tmp_path_factory.mktemp("contributed")
    for name in ("cache", "pipeline"):
        shutil.copytree(ROOT / name, folder / "decant" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "decant").glob("*.py"):
        shutil.copy(path, folder / "decant")
    for block in BLOCK.finditer(PAGE):
        path = folder / "decant" / block["file"]
        text = path.read_text("utf-8")
        lines = [line for line in text.splitlines(keepends=True) if line.startswith(block["line"])]
        assert len(lines) == 1, f"{block['file']}: {block['line']!r} begins {len(lines)} lines"
        code, line = block["code"], lines[0]
        placed = {"above": f"{code}\n\n{line}", "below": line + code, "in place of": code}[block["side"]]
        path.write_text(text.replace(line, placed), "utf-8")
    return folder


def test_every_block_of_the_page_is_put_somewhere() -> None:
    assert len(BLOCK.findall(PAGE)) == PAGE.count("```python")
    for kind in ("an augmentation", "an objective", "a dataset", "a network"):
        assert f"## Add {kind}\n" in PAGE


def test_what_the_page_adds_goes_through_every_phase(changed: Path) -> None:
    (changed / "new.toml").write_text(RECIPE)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN], cwd=changed, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert str(changed) in _where_decant_is(changed)
    assert "(1 − alpha)·CE + alpha·mean |s − t|" in run.stdout
    results = sorted(path.parent.parent.name for path in changed.glob("runs/new/**/result.json"))
    assert any(name.startswith("student-pooled-l1-") for name in results), results


@pytest.mark.parametrize("words", [("format", "--check"), ("check",)])
def test_what_the_page_adds_is_formatted_and_lacks_no_import(changed: Path, words: tuple[str, ...]) -> None:
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    settings = "\n".join(line for line in settings.splitlines() if not line.startswith("extend-exclude"))
    (changed / "pyproject.toml").write_text(settings, "utf-8")
    command = [sys.executable, "-m", "ruff", *words, "decant"]
    run = subprocess.run(command, cwd=changed, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No Python files" not in run.stderr


def _where_decant_is(folder: Path) -> str:
    script = "import decant; print(decant.__file__)"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_what_another_plugin_warns_of_ends_no_run_of_the_tests() -> None:
    """As pytest-benchmark does before the first test begins, where it is installed and tests run side by side."""
    with warnings.catch_warnings(record=True) as said:
        warnings.warn_explicit("benchmarks are off", UserWarning, "logger.py", 1, "pytest_benchmark.logger")
    assert len(said) == 1
    with pytest.raises(UserWarning, match="deprecated"):
        warnings.warn_explicit("deprecated", UserWarning, "reader.py", 1, "decant.cache.reader")
