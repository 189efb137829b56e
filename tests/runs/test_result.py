"""Run folders: the same question finds the same folder, another question another."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.errors import DamagedError
from decant.pipeline.runs.folders import as_folder_name, student_folder, teacher_folder
from decant.pipeline.runs.result import RESULT, find_results, load_result
from decant.pipeline.runs.saved_recipe import changed_settings, save_recipe
from tests.helpers.small import recipe, teach

VIEWS: dict[str, Any] = {"count": 1, "seed": None}
DATA: dict[str, Any] = {"name": "digits", "sha256": "0"}


def folder(*overrides: str, views: dict[str, Any] = VIEWS, data: dict[str, Any] = DATA) -> Path:
    return teacher_folder(Path("runs"), recipe(*overrides).settings.teacher, {"views": views, "data": data})


def test_what_decides_the_weights_decides_the_folder() -> None:
    assert folder() == folder()
    others = [
        folder("teacher.seed=1"),
        folder("teacher.lr=0.001"),
        folder("teacher.network.width=5"),
        folder(views={**VIEWS, "seed": 1}),
        folder(data={**DATA, "sha256": "1"}),
    ]
    assert len({folder(), *others}) == 6


def test_what_only_measures_or_counts_does_not() -> None:
    assert folder("teacher.evaluate_every=2") == folder()
    assert folder(views={**VIEWS, "count": 9}) == folder()  # a teacher sees a new view every epoch anyhow
    assert student(("student.seeds=5", "student.baseline=false")) == student()


def student(overrides: tuple[str, ...] = (), kind: Any = "distilled") -> Path:
    return student_folder(
        Path("runs"), recipe(*overrides).settings.student, kind, {"data": DATA, "cache": "key"}
    )


def test_the_content_of_a_weights_file_counts_and_not_its_name(tmp_path: Path) -> None:
    for name, content in [("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")]:
        (tmp_path / name).write_bytes(content)
    a, b, c = (folder(f"teacher.weights={str(tmp_path / name)!r}") for name in ("a.pth", "b.pth", "c.pth"))
    assert a == b
    assert len({a, c, folder()}) == 3


def test_the_objective_is_nothing_to_a_labels_only_student() -> None:
    hot = ("student.objective.temperature=9.0",)
    assert student(hot) != student()
    assert student(hot, "labels") == student((), "labels")
    assert "labels" in student((), "labels").name
    assert "kd" in student().name


def test_a_function_of_ones_own_that_changed_is_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module, own = tmp_path / "my_changing_losses.py", ("student.objective.name=my_changing_losses:loss",)
    folders = []
    for source in ("def loss(): return 1", "def loss(): return 2", "def loss(): return 1"):
        module.write_text(source)
        folders.append(student(own))
    first, changed, again = folders
    assert first != changed
    assert again == first
    module.unlink()
    importlib.invalidate_caches()
    assert student(own).name.startswith("student-")  # training says that it is missing


def test_a_run_folder_says_which_deciding_settings_changed_since(tmp_path: Path) -> None:
    save_recipe(
        tmp_path, recipe("student.seed=3", "student.objective.temperature=2", "teacher.evaluate_every=7")
    )
    found = changed_settings(recipe(), tmp_path, ("data", "views", "teacher", "student"))
    assert [str(one) for one in found or ()] == ["student.objective.temperature: expected 4.0, found 2.0"]
    assert changed_settings(recipe(), tmp_path, ("teacher",)) == []


def test_a_run_folder_without_a_recipe_tells_nothing(tmp_path: Path) -> None:
    assert changed_settings(recipe(), tmp_path, ("teacher",)) is None
    (tmp_path / "recipe.toml").write_text("[teacher", "utf-8")
    assert changed_settings(recipe(), tmp_path, ("teacher",)) is None


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


def test_a_folder_has_a_name_that_every_system_takes() -> None:
    assert as_folder_name("torchvision:resnet50") == "torchvision-resnet50"
    assert as_folder_name("ce+kl") == "ce+kl"
    assert as_folder_name("../x y") == "x-y"


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
