"""`decant init`: a project that runs as it is written, in a real shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decant.pipeline.cli.init import FILES, write_project
from decant.pipeline.errors import PipelineError
from tests.helpers.commands import decant

SMALL = (
    " -r recipe.toml --set teacher.epochs=1 --set student.epochs=1 --set student.seeds=1 --set views.count=2"
)


def test_the_project_runs_by_the_commands_that_are_printed(tmp_path: Path) -> None:
    printed = decant("init", "first project", cwd=tmp_path).stdout.splitlines()
    assert printed[0] == f"made {', '.join(f'first project/{name}' for name in FILES)}"
    assert printed[1].startswith(
        "next: cd 'first project' && decant teacher -r recipe.toml && decant cache-logits"
    )
    shell = (
        f"decant() {{ '{sys.executable}' -m decant \"$@\"; }}; set -e; {printed[1].removeprefix('next: ')}"
    )
    done = subprocess.run(
        ["bash", "-c", shell.replace(" -r recipe.toml", SMALL)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("DECANT")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("made runs/recipe/student-my_network-small-") == 2, "on labels, and distilled"
    assert {line.split(" from ")[0] for line in done.stderr.splitlines()} <= {
        "runs my_data:shapes",
        "runs my_network:small",
    }


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("nowhere")
    ended = decant("init", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"decant: .: has {name} already, and nothing is overwritten; name another folder: decant init FOLDER\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name], "and nothing was written"


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert write_project(tmp_path / "a/b") == [tmp_path / "a/b" / name for name in FILES]
    with pytest.raises(PipelineError, match=r"has recipe.toml, my_data.py, my_network.py already"):
        write_project(tmp_path / "a/b")


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PipelineError, match=r"notes\.txt: is a file; name a folder"):
        write_project(tmp_path / "notes.txt")
