"""The path of a recipe's cache, known without data or teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import recipe

from pipeline.errors import NotMadeError
from pipeline.remembered import cache_path, remember_cache


def test_each_settings_have_their_own_path_and_students_none(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).touch()
    remember_cache(recipe(), tmp_path, tmp_path / "a.h5")
    remember_cache(recipe("teacher.seed=1"), tmp_path, tmp_path / "b.h5")
    assert cache_path(recipe(), tmp_path) == tmp_path / "a.h5"
    assert cache_path(recipe("student.epochs=9"), tmp_path) == tmp_path / "a.h5"
    assert cache_path(recipe("teacher.seed=1"), tmp_path) == tmp_path / "b.h5"


def test_what_is_unknown_or_gone_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        cache_path(recipe(), tmp_path)
    remember_cache(recipe(), tmp_path, tmp_path / "gone.h5")
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        cache_path(recipe(), tmp_path)
