"""`decant cache …` through the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, decant, refused, succeed, tiny

COMMANDS = ["ls", "info", "verify", "diff", "path", "import", "export", "merge", "gc"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the caches of two teachers."""
    folder = tmp_path_factory.mktemp("caches")
    for seed in ("0", "1"):
        succeed(tiny("teacher", "--set", f"teacher.seed={seed}", cwd=folder))
        succeed(tiny("cache-logits", "--set", f"teacher.seed={seed}", cwd=folder))
    return folder


def caches(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("caches/digits-train-conv-*.h5"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    assert "Options:" in succeed(decant("cache", command, "--help", cwd=tmp_path))


def test_no_command_for_files_imports_torch(made: Path) -> None:
    for words in (["ls"], ["info", caches(made)[0]], ["verify", caches(made)[0]], ["gc"]):
        script = (
            "import sys; sys.argv = ['decant', 'cache', *sys.argv[1:]]\n"
            "from pipeline.cli import main\n"
            "try: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=made, capture_output=True, text=True, check=True
        )
        assert done.stderr.strip().endswith("False"), words


def test_ls_lists_and_json_is_for_programs(made: Path) -> None:
    text = succeed(decant("cache", "ls", cwd=made))
    assert all(Path(name).name in text for name in caches(made))
    rows = json.loads(succeed(decant("cache", "ls", "--json", cwd=made)))
    assert {row["teacher"] for row in rows} == {"conv"}
    assert {row["bytes"] for row in rows} == {(made / name).stat().st_size for name in caches(made)}
    assert "no caches in nowhere" in succeed(decant("cache", "ls", "--store", "nowhere", cwd=made))


def test_info_shows_provenance_and_the_teachers_figures(made: Path) -> None:
    name = caches(made)[0]
    text = succeed(decant("cache", "info", name, cwd=made))
    for part in ("teacher.weights_sha256", "data.sha256", "views.count: 1", "the teacher's top-1", "entropy"):
        assert part in text
    found = json.loads(
        succeed(decant("cache", "info", "--json", Path(name).stem.split("-")[-1][:8], cwd=made))
    )
    assert found["identity"]["data"]["length"] == 1437
    assert found["summary"]["rows"] == 1437


def test_verify_finds_a_flipped_bit_names_its_rows_and_exits_with_1(made: Path, tmp_path: Path) -> None:
    assert succeed(decant("cache", "verify", cwd=made)).count(": sound") == 2
    content = bytearray((made / caches(made)[0]).read_bytes())
    content[40_000] ^= 4
    (tmp_path / "flipped.h5").write_bytes(content)
    done = decant("cache", "verify", "flipped.h5", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 problems\n  view 0, block 0 (rows 0 to 1,436) is not as it was written" in done.stdout


def test_verify_against_the_teacher_reports_the_largest_difference(made: Path) -> None:
    text = succeed(decant("cache", "verify", "--against-teacher", "50", *TINY, cwd=made))
    assert "50 rows run again: largest difference" in text


def test_diff_shows_the_field_and_exits_with_1(made: Path) -> None:
    one, other = caches(made)
    done = decant("cache", "diff", one, other, cwd=made)
    assert done.returncode == 1
    assert "teacher.weights_sha256: " in done.stdout
    assert "1 fields differ" in done.stdout
    assert "the same question" in succeed(decant("cache", "diff", one, one, cwd=made))


def test_path_is_for_scripts(made: Path) -> None:
    path = succeed(decant("cache", "path", *TINY, cwd=made))
    assert Path(path.strip()).is_file()
    assert "run: decant cache-logits" in refused(decant("cache", "path", "--set", "teacher.seed=7", cwd=made))


def test_a_student_learns_from_imported_and_from_merged_logits(made: Path, tmp_path: Path) -> None:
    one, other = (made / name for name in caches(made))
    store = ("--store", str(tmp_path / "store"))
    merged = succeed(decant("cache", "merge", one, other, *store, cwd=tmp_path)).split()[1]
    assert "distilled" in succeed(tiny("student", "--set", f"cache.from={merged}", *store, cwd=tmp_path))
    (row,) = json.loads(succeed(decant("cache", "ls", "--json", *store, cwd=tmp_path)))
    assert (row["teacher"], row["uses"]) == ("mean logits of 2", 1)
    succeed(decant("cache", "export", one, "logits.npy", "--view", "0", cwd=tmp_path))
    table = np.load(tmp_path / "logits.npy")
    assert table.shape == (1437, 10)
    words = ("cache", "import", "logits.npy", "--teacher", "somebody's", "--recipe", "digits", *store)
    imported = succeed(decant(*words, cwd=tmp_path)).split()[1]
    assert "distilled" in succeed(tiny("student", "--set", f"cache.from={imported}", *store, cwd=tmp_path))


def test_gc_lists_first_and_deletes_when_told(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    path = store / Path(caches(made)[0]).name
    path.write_bytes((made / caches(made)[0]).read_bytes())
    os.utime(path, (time.time() - 50 * 86_400,) * 2)
    assert "would remove" in succeed(decant("cache", "gc", "--store", store, cwd=tmp_path))
    assert path.exists()
    assert "removed" in succeed(decant("cache", "gc", "--delete", "--store", store, cwd=tmp_path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["info", "nothing.h5"], 1, "no such file, and no cache of caches has that name or key"),
        (["export", "nothing.h5", "out.npy"], 1, "no such file"),
        (["import", "gone.npy", "--teacher", "x", "--data", "y"], 1, "gone.npy: no such file"),
        (["import", "gone.npy", "--teacher", "x"], 2, "give either --data or --recipe"),
        (["export", "nothing.h5", "out.h5"], 2, "what is written is .npy"),
        (["verify", "a.h5", "--against-teacher", "5"], 2, "name the recipe, no CACHE"),
        (["diff", "one"], 2, "Missing argument"),
    ],
)
def test_a_mistake_is_one_clear_line(words: list[str], code: int, message: str, tmp_path: Path) -> None:
    assert message in refused(decant("cache", *words, cwd=tmp_path), code=code)


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "no caches in nowhere" in succeed(decant("cache", "verify", "--store", "nowhere", cwd=tmp_path))
