"""Runs and a cache that the first version made are found: no key and no folder's digest has changed.

`tests/golden/first-version` was made by version 0.1.0 before its modules moved, with
`decant teacher | cache-logits | student --recipe small.toml`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import decant, decant_anew, only, succeed
from tests.helpers.processes import ROOT

MADE = ROOT / "tests/golden/first-version"


@pytest.fixture(scope="module")
def first_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what it left, to run commands in."""
    folder = tmp_path_factory.mktemp("first") / "version"
    shutil.copytree(MADE, folder)
    return folder


@pytest.mark.parametrize("phase", ["teacher", "cache-logits", "student"])
def test_every_phase_finds_what_the_first_version_made(first_version: Path, phase: str) -> None:
    before = {path: path.read_bytes() for path in first_version.rglob("*") if path.is_file()}
    said = succeed(decant(phase, "--recipe", "small.toml", cwd=first_version))
    assert "found" in said
    assert "made" not in said
    after = {path: path.read_bytes() for path in first_version.rglob("*") if path.is_file()}
    made = {
        path for path in after if not path.name.endswith((".lock", ".uses")) and path.name != "caches.json"
    }
    assert made == set(before) & made
    assert all(after[path] == before[path] for path in made)


def test_the_status_of_the_first_version_is_done(first_version: Path) -> None:
    said = succeed(decant("status", "--recipe", "small.toml", cwd=first_version))
    assert said.count("done") == 4, said


def test_what_the_first_version_made_is_measured_exported_and_asked_for(first_version: Path) -> None:
    """By commands that no other test starts in a process that has imported nothing yet."""
    recipe, run = ("--recipe", "small.toml"), only(first_version, "runs/small/student-mlp-kd-*/seed-0")
    for words, says in (
        (("evaluate", *recipe), "distilled"),
        (("export", run, "--formats", "pt2"), "export.json"),
        (("cache", "export", "b5780e88", "logits.npy"), "logits.npy"),
        (
            ("cache", "import", "logits.npy", "--teacher", "t", "--data", "d", "--store", "s"),
            "next: decant cache info",
        ),
    ):
        assert says in succeed(decant_anew(*words, cwd=first_version)), words
