"""`decant cache …` in processes of its own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import Store
from decant.pipeline.data import image_pack
from tests.helpers.commands import TINY, decant, follow, only, refused, succeed, tiny
from tests.helpers.processes import finished, python
from tests.helpers.shells import typed

COMMANDS = ["ls", "info", "verify", "diff", "path", "import", "export", "merge", "gc"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the caches of two teachers."""
    folder = tmp_path_factory.mktemp("caches")
    for seed in ("0", "1"):
        succeed(tiny("teacher", "--set", f"teacher.seed={seed}", cwd=folder))
        succeed(tiny("cache-logits", "--set", f"teacher.seed={seed}", cwd=folder))
    return folder


def document(*words: str | Path, cwd: Path, code: int = 0) -> tuple[Any, str]:
    """What `decant cache WORDS --json` tells a program, and what it says beside."""
    done = decant("cache", *words, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def following(said: str) -> str:
    """The command that the last line of an output names."""
    *_, last = said.splitlines()
    assert last.startswith("next: decant "), said
    return last.removeprefix("next: ")


def caches(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.glob("caches/digits-train-conv-*.h5"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    assert "Options:" in succeed(decant("cache", command, "--help", cwd=tmp_path))


def test_no_command_for_files_imports_torch_and_a_check_no_recipe_either(made: Path) -> None:
    name = caches(made)[0]
    random = np.random.default_rng(0)
    np.save(made / "several.npy", random.normal(size=(50, 3)).astype(np.float32))
    np.save(made / "yes.npy", random.integers(0, 2, (50, 3)))
    what = ("--labels=yes.npy", "--task=multilabel", "--teacher=theirs", "--store=sigmoids")
    succeed(decant("cache", "import", "several.npy", *what, "--data=mine", cwd=made))
    every = (
        ["ls"],
        ["info", name],
        ["verify", name],
        ["diff", name, name],
        ["export", name, "logits.npy"],
        ["import", "several.npy", *what, "--data=others"],
        ["info", str(only(made, "sigmoids/mine*.h5"))],
        ["gc"],
    )
    script = (
        "import json, sys\n"
        "from decant.pipeline.cli.main import decant\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    decant.main(['cache', *words], standalone_mode=False)\n"
        "    assert 'torch' not in sys.modules, words"
    )
    finished(python(script, json.dumps(every), cwd=made))
    script += "\n    assert not {'pydantic', 'rich.progress'} & set(sys.modules), words"
    finished(python(script, json.dumps([["info", name], ["verify", name]]), cwd=made))


def test_ls_lists_and_json_is_for_programs(made: Path) -> None:
    text = succeed(decant("cache", "ls", cwd=made))
    assert all(Path(name).name in text for name in caches(made))
    rows, _ = document("ls", cwd=made)
    assert {row["teacher"] for row in rows} == {"conv"}
    assert {row["bytes"] for row in rows} == {(made / name).stat().st_size for name in caches(made)}
    assert all(len(row["key"]) == 64 and row["seconds_old"] > 0 for row in rows)
    assert document("ls", "--store", "nowhere", cwd=made)[0] == []


def test_each_look_at_a_store_leads_to_the_next(made: Path) -> None:
    said = succeed(decant("cache", "ls", cwd=made))
    for begin in ("decant cache info digits-", "decant cache verify caches/", "decant cache info caches/"):
        line = following(said)
        assert line.startswith(begin)
        said = typed(line, made)


def test_what_follows_is_in_the_same_store_and_without_a_cache_the_way_to_one(
    made: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "my store" / "mine.h5"
    copy.parent.mkdir()
    copy.write_bytes((made / caches(made)[0]).read_bytes())
    line = following(succeed(decant("cache", "ls", "--store", "my store", cwd=tmp_path)))
    assert line == "decant cache info mine.h5 --store 'my store'"
    assert "my store/mine.h5" in typed(line, tmp_path)
    copy.write_bytes(b"no cache")
    line = following(succeed(decant("cache", "ls", "--store", "my store", cwd=tmp_path)))
    assert line == "decant cache verify --store 'my store'"
    empty = succeed(decant("cache", "ls", "--store", "nowhere", cwd=tmp_path))
    assert empty == "no caches in nowhere\nnext: decant teacher --store nowhere\n"


def test_info_shows_provenance_and_the_teachers_figures(made: Path) -> None:
    name = caches(made)[0]
    text = succeed(decant("cache", "info", name, cwd=made))
    for part in ("teacher.weights_sha256", "data.sha256", "views.count: 1", "the teacher's top-1", "entropy"):
        assert part in text
    found, _ = document("info", Path(name).stem.split("-")[-1][:8], cwd=made)
    assert found["path"] == name
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
    assert "next:" not in done.stdout
    found, said = document("verify", "flipped.h5", made / caches(made)[0], cwd=tmp_path, code=1)
    assert [(one["path"], len(one["problems"])) for one in found] == [
        ("flipped.h5", 1),
        (str(made / caches(made)[0]), 0),
    ]
    assert found[0]["problems"][0].startswith("view 0, block 0 (rows 0 to 1,436)")
    assert "flipped.h5: 1 problems" in said


def test_verify_against_the_teacher_reports_the_largest_difference(made: Path) -> None:
    found, said = document("verify", "--against-teacher", "50", *TINY, cwd=made)
    assert "50 rows run again: largest difference" in said
    assert following(said).startswith("decant student --set teacher.network.width=4")
    assert (found["rows"], found["dtype"], found["agrees"]) == (50, "float16", True)
    assert 0 < found["rounding"] <= found["largest"] <= found["bound"]


def test_diff_shows_the_field_and_exits_with_1(made: Path) -> None:
    one, other = caches(made)
    done = decant("cache", "diff", one, other, cwd=made)
    assert done.returncode == 1
    assert "teacher.weights_sha256: " in done.stdout
    assert "1 fields differ" in done.stdout
    assert "no field differs" in succeed(decant("cache", "diff", one, one, cwd=made))
    [difference], said = document("diff", one, other, cwd=made, code=1)
    assert difference["field"] == "teacher.weights_sha256"
    assert difference["expected"] != difference["found"]
    assert following(said) == following(done.stdout) == f"decant cache merge {one} {other}"


def test_caches_that_differ_in_their_teacher_alone_can_be_merged_as_diff_says(
    made: Path, tmp_path: Path
) -> None:
    one, other = (made / name for name in caches(made))
    said = typed(following(decant("cache", "diff", one, other, cwd=tmp_path).stdout), tmp_path)
    assert 'teacher.mean: "logits"' in typed(following(said), tmp_path)


def test_path_is_for_scripts(made: Path) -> None:
    path = succeed(decant("cache", "path", *TINY, cwd=made))
    assert Path(path.removesuffix("\n")).is_file(), "nothing else is said"
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
    of = (
        "--teacher",
        "somebody's",
        "--recipe",
        "digits",
        "--set",
        "student.epochs=2",
        "--set=student.seeds=1",
    )
    said = succeed(decant("cache", "import", "logits.npy", *of, *store, cwd=tmp_path))
    assert "distilled" in follow(following(said), tmp_path)


def test_logits_of_data_of_ones_own_lead_to_a_look_at_them(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", 3 * np.eye(5, dtype=np.float32))
    words = ("import", "logits.npy", "--teacher", "mine", "--data", "my images", "--store", "s")
    said = succeed(decant("cache", *words, cwd=tmp_path))
    assert 'data.name: "my images"' in typed(following(said), tmp_path)


def test_gc_lists_first_and_deletes_when_told(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    path = store / Path(caches(made)[0]).name
    path.write_bytes((made / caches(made)[0]).read_bytes())
    os.utime(path, (time.time() - 50 * 86_400,) * 2)
    size = path.stat().st_blocks * 512
    said = succeed(decant("cache", "gc", "--unused-days", "40", "--store", store, cwd=tmp_path))
    assert "would remove" in said
    [told], _ = document("gc", "--store", store, cwd=tmp_path)
    assert told == {"path": str(path), "bytes": size, "reason": "not used for 50 days", "done": False}
    assert path.exists()
    removed = typed(following(said), tmp_path)
    assert removed.startswith(f"removed {path}")
    assert "next:" not in removed
    assert not path.exists()
    assert document("gc", "--delete", "--store", store, cwd=tmp_path)[0] == []


def test_gc_removes_packs_of_decoded_images_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "caches")
    path = store.root / image_pack.FOLDER / f"images-train-3x8x8-0123{image_pack.SUFFIX}"
    path.parent.mkdir(parents=True)
    path.write_bytes(image_pack.Layout("0123", 1, (3, 8, 8)).header)
    os.utime(path, (time.time() - 50 * 86_400,) * 2)
    [told], _ = document("gc", "--delete", cwd=tmp_path)
    assert (Path(told["path"]).name, told["done"], path.exists()) == (path.name, True, False)


def test_gc_tells_a_program_what_it_removed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "caches").mkdir()
    (tmp_path / "caches/old.h5").write_bytes((made / caches(made)[0]).read_bytes())
    [told], _ = document("gc", "--unused-days", "0", "--delete", cwd=tmp_path)
    assert told["done"] is True
    assert not (tmp_path / told["path"]).exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["info", "nothing.h5"], 1, "no such file, and the store caches has no cache of that name or key"),
        (["export", "nothing.h5", "out.npy"], 1, "no such file"),
        (["import", "gone.npy", "--teacher", "x", "--data", "y"], 1, "gone.npy: no such file"),
        (["import", "gone.npy", "--teacher", "x"], 2, "give either --data or --recipe"),
        (["export", "nothing.h5", "out.h5"], 2, "what is written is .npy"),
        (["verify", "a.h5", "--against-teacher", "5"], 2, "name the recipe, no CACHE"),
        (["verify", "a.h5", "--recipe", "nowhere"], 1, "nowhere"),
        (["verify", "a.h5", "--set", "student.epoch=1"], 1, "student.epoch"),
        (["diff", "one"], 2, "Missing argument"),
    ],
)
def test_a_mistake_is_one_clear_line(words: list[str], code: int, message: str, tmp_path: Path) -> None:
    assert message in refused(decant("cache", *words, cwd=tmp_path), code=code)


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "no caches in nowhere" in succeed(decant("cache", "verify", "--store", "nowhere", cwd=tmp_path))
