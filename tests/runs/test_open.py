"""A run is opened from its folder or its result, and what is no run is refused with what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.pipeline.errors import DamagedError, NotMadeError
from decant.pipeline.runs.open import class_names, open_run
from decant.pipeline.runs.result import RESULT, Result
from decant.pipeline.runs.saved_recipe import RECIPE
from tests.helpers.small import recipe, teach


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return teach(tmp_path_factory.mktemp("finished"), "teacher.epochs=1")


def test_a_folder_and_its_result_open_the_same_run(taught: Result) -> None:
    run = open_run(taught.folder)
    assert run == open_run(taught.folder / RESULT)
    assert run.result == taught
    assert run.folder == taught.folder
    assert run.recipe.settings == recipe("teacher.epochs=1").settings
    assert not run.is_regression


def test_what_is_no_run_is_refused_with_what_to_give(taught: Result, tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match=r"gone: no such run; a run is a folder with a result\.json"):
        open_run(tmp_path / "gone")
    with pytest.raises(NotMadeError, match="no finished network here"):
        open_run(tmp_path)
    with pytest.raises(NotMadeError, match=f"a folder of several; give one of them: {taught.folder}"):
        open_run(taught.folder.parent)
    (tmp_path / RECIPE).write_text("")
    with pytest.raises(NotMadeError, match="not finished; run the command that began it again"):
        open_run(tmp_path)


def test_a_run_without_its_recipe_is_named(taught: Result, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_bytes((taught.folder / RESULT).read_bytes())
    with pytest.raises(DamagedError, match=r"recipe\.toml is missing"):
        open_run(tmp_path)


def test_classes_without_names_are_numbered() -> None:
    assert class_names((), 3) == ("0", "1", "2")
    assert class_names(("cat", "dog"), 2) == ("cat", "dog")
