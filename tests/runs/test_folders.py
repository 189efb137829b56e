"""The same decisive settings, data and views lead to the same run folder, others to another."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.runs.folders import as_folder_name, student_folder, teacher_folder
from tests.helpers.small import recipe

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


def test_a_function_of_ones_own_that_changed_leads_to_another_folder(
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


def test_a_folder_has_a_name_that_every_system_takes() -> None:
    assert as_folder_name("torchvision:resnet50") == "torchvision-resnet50"
    assert as_folder_name("ce+kl") == "ce+kl"
    assert as_folder_name("../x y") == "x-y"
