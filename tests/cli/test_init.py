"""`decant init`: a project that runs as it is written, by lines that a real shell reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.pipeline.cli.init import FILES, write_project
from decant.pipeline.errors import PipelineError
from tests.helpers.commands import decant
from tests.helpers.shells import as_a_shell_reads

SMALL = (
    " -r recipe.toml --set teacher.epochs=1 --set student.epochs=1 --set student.seeds=1 --set views.count=2"
)


def test_the_project_runs_by_the_commands_that_are_printed(tmp_path: Path) -> None:
    printed = decant("init", "first project", cwd=tmp_path).stdout.splitlines()
    assert printed[0] == f"made {', '.join(f'first project/{name}' for name in FILES)}"
    assert printed[1].startswith(
        "next: cd 'first project' && decant teacher -r recipe.toml && decant cache-logits"
    )
    line = printed[1].removeprefix("next: ").replace(" -r recipe.toml", SMALL)
    out, err = "", ""
    read = as_a_shell_reads(line, tmp_path)
    assert [words[0] for _, words in read] == ["teacher", "cache-logits", "student"]
    for folder, words in read:
        done = decant(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        out, err = out + done.stdout, err + done.stderr
    assert out.count("made runs/recipe/student-my_network-small-") == 2, "on labels, and distilled"
    assert {said.split(" from ")[0] for said in err.splitlines()} == {
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
