"""The path of a recipe's cache, known without data or teacher, and what making a cache took."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from decant.pipeline.errors import NotMadeError
from decant.pipeline.runs.notes import Pass, cache_path, pass_of, remember_cache, remember_pass
from tests.helpers.small import recipe


def test_each_settings_have_their_own_path_and_students_none(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).touch()
    remember_cache(recipe(), tmp_path, tmp_path / "a.h5")
    remember_cache(recipe("teacher.seed=1"), tmp_path, tmp_path / "b.h5")
    with pytest.raises(NotMadeError):
        cache_path(recipe("cache.dtype=float32"), tmp_path)
    assert cache_path(recipe(), tmp_path) == tmp_path / "a.h5"
    assert cache_path(recipe("student.epochs=9"), tmp_path) == tmp_path / "a.h5"
    assert cache_path(recipe("teacher.seed=1"), tmp_path) == tmp_path / "b.h5"


def test_what_is_unknown_or_gone_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        cache_path(recipe(), tmp_path)
    remember_cache(recipe(), tmp_path, tmp_path / "gone.h5")
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        cache_path(recipe(), tmp_path)


TOOK = Pass(seconds=12.5, rows=2874, views_taken_over=1, machine="CPU, 2 cores")


def test_what_a_pass_took_is_remembered_by_key_and_the_last_time_counts(tmp_path: Path) -> None:
    remember_pass(tmp_path / "runs", "ab" * 32, TOOK)
    remember_pass(tmp_path / "runs", "cd" * 32, Pass(1.0, 10, 0, "abacus"))
    assert pass_of(tmp_path / "runs", "ab" * 32) == TOOK
    remember_pass(tmp_path / "runs", "ab" * 32, Pass(1.5, 0, 2, "abacus"))
    assert pass_of(tmp_path / "runs", "ab" * 32) == Pass(1.5, 0, 2, "abacus")
    assert pass_of(tmp_path / "runs", "cd" * 32) == Pass(1.0, 10, 0, "abacus")


def test_who_notes_at_the_same_time_loses_nothing_of_another(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: remember_pass(tmp_path, key, TOOK), keys))
        paths = {tmp_path / f"{seed}.h5": recipe(f"views.seed={seed}") for seed in range(8)}
        list(pool.map(lambda path: remember_cache(paths[path], tmp_path, path), paths))
    assert {key for key in keys if pass_of(tmp_path, key) != TOOK} == set()
    for path, of in paths.items():
        path.touch()
        assert cache_path(of, tmp_path) == path


WRONG = '{"seconds": 1.0, "rows": "2874", "views_taken_over": 0, "machine": "abacus"}'


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"seconds": 1.0}', WRONG])
def test_a_pass_that_is_unknown_or_damaged_is_not_made_up(content: str | None, tmp_path: Path) -> None:
    remember_pass(tmp_path, "ab" * 32, TOOK)
    (file,) = tmp_path.glob("**/*.json")
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert pass_of(tmp_path, "ab" * 32) is None


def test_passes_and_paths_are_remembered_apart(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    remember_cache(recipe(), tmp_path, tmp_path / "a.h5")
    before = json.loads((tmp_path / "caches.json").read_text())
    assert list(before.values()) == [str(tmp_path / "a.h5")]
    remember_pass(tmp_path, "ab" * 32, TOOK)
    assert json.loads((tmp_path / "caches.json").read_text()) == before
    assert cache_path(recipe(), tmp_path) == tmp_path / "a.h5"
