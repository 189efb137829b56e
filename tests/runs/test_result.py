"""A finished network is found by its result, as it was saved; a damaged one is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from decant.pipeline.errors import DamagedError
from decant.pipeline.runs.result import RESULT, find_results, load_result
from tests.helpers.small import recipe, teach


def test_a_result_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    made = teach(tmp_path)
    assert load_result(made.folder) == made
    assert list(find_results(tmp_path / "runs")) == [made]
    (made.folder / RESULT).unlink()
    assert load_result(made.folder) is None
    assert list(find_results(tmp_path / "runs")) == []


def test_a_result_of_an_older_version_is_read_without_what_it_does_not_say(tmp_path: Path) -> None:
    made = teach(tmp_path, "teacher.epochs=1")
    assert made.classes is not None
    content = json.loads((made.folder / RESULT).read_text("utf-8"))
    del content["classes"], content["input_dtype"]
    (made.folder / RESULT).write_text(json.dumps(content), "utf-8")
    assert load_result(made.folder) == replace(made, classes=None, input_dtype=None)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "teacher"}'])
def test_a_damaged_result_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(content)
    with pytest.raises(DamagedError, match=f"{RESULT}: "):
        load_result(tmp_path)


def test_results_of_other_data_in_the_same_folder_are_left_out(tmp_path: Path) -> None:
    made = teach(tmp_path)
    own = recipe().settings.data
    assert list(find_results(tmp_path / "runs", own)) == [made]
    assert list(find_results(tmp_path / "runs", own.model_copy(update={"root": "elsewhere"}))) == []
