"""Labels of binary and multi-label tasks in every form that users have them in, and those that are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.data import describe_data, external, identity, load_data
from decant.pipeline.data.samples import LabelledData, has_labels, num_outputs, task_of
from decant.pipeline.data.sigmoid_labels import warn_of_zeros_and_ones
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import forget_what_was_said

NAN = math.nan
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 4, 4)).astype(np.uint8)
ROWS = [[1, 0, 1], [0, 0, 0], [1, 1, 1]]


class Samples(list[tuple[Any, Any]]):
    classes: tuple[str, ...] = ()


Read = Callable[..., LabelledData]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    def read(labels: list[Any], task: Task | None, classes: tuple[str, ...] = ()) -> LabelledData:
        samples = Samples((IMAGE, label) for label in labels)
        samples.classes = classes
        module = ModuleType("mine_of_labels")
        module.parts = lambda root, split: samples  # type: ignore[attr-defined]
        monkeypatch.setitem(__import__("sys").modules, "mine_of_labels", module)
        return load_data(DataSettings(name="mine_of_labels:parts", task=task), ViewsSettings(), "train")

    return read


@pytest.mark.parametrize(
    "form",
    [
        lambda row: row,
        lambda row: tuple(map(bool, row)),
        lambda row: np.array(row, np.uint8),
        lambda row: np.array(row, np.float64),
        lambda row: torch.tensor(row),
        lambda row: torch.tensor(row, dtype=torch.bool),
        lambda row: torch.tensor(row, dtype=torch.float16),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_rows_of_zeros_and_ones_are_taken_in_any_form(
    form: Callable[[list[int]], Any], large: bool, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0 if large else 1 << 30)
    data = read([form(row) for row in ROWS], "multilabel", ("a", "b", "c"))
    assert data.labels.dtype == np.float32
    assert data.labels.tolist() == ROWS
    assert (task_of(data), num_outputs(data), identity(data)["task"]) == ("multilabel", 3, "multilabel")
    assert data.raw(np.arange(3)).shape == (3, 3, 4, 4)


@pytest.mark.parametrize(
    "labels", [[0, 1, 1], [False, True, True], [0.0, 1.0, 1.0], [[0], [1], [1]], torch.tensor([0, 1, 1])]
)
def test_one_zero_or_one_is_a_binary_label(labels: Any, read: Read) -> None:
    data = read(list(labels), "binary", ("no", "yes"))
    assert data.labels.tolist() == [[0], [1], [1]]
    assert (task_of(data), num_outputs(data)) == ("binary", 1)


@pytest.mark.parametrize("large", [False, True])
def test_minus_one_nan_and_none_are_unknown(large: bool, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0 if large else 1 << 30)
    data = read([[1, 0, -1], [0, NAN, 1], None], "multilabel")
    expected = [[1, 0, NAN], [0, NAN, 1], [NAN] * 3]
    assert np.array_equal(data.labels, np.float32(expected), equal_nan=True)
    assert len(data.raw(np.arange(3))) == 3
    assert np.array_equal(read([1, -1, 0, None], "binary").labels[:, 0], [1, NAN, 0, NAN], equal_nan=True)
    assert not has_labels(read([None, None], "multilabel", ("a", "b", "c")))


@pytest.mark.parametrize(
    ("labels", "task", "classes", "message"),
    [
        (ROWS, "binary", (), r"a label is a row of 3; .* set data.task = \"multilabel\""),
        ([0, 2, 1], "multilabel", (), "a label is one number; .* a row of 0 and 1"),
        ([[0, 2, 1], [0, 0, 1]], "multilabel", (), r"sample 0: its label is \[0.0, 2.0, 1.0\]"),
        ([[0.5, 0.5], [0, 1]], "multilabel", (), "sample 0: .* every entry is 0 or 1"),
        ([0, 1, 2], "binary", (), "sample 2: its label is 2.0; "),
        (ROWS, "multilabel", ("a", "b"), "2 class names; .* there are 3"),
        ([0, 1], "binary", ("a", "b", "c"), "3 class names; .* there are 2"),
        ([1, -1, 1], "binary", (), "labels are 1 or unknown, and none is 0"),
        (
            [[0, 1], [1]],
            "multilabel",
            (),
            "sample 1: its label is a row of 1 floats, that of sample 0 a row of 2",
        ),
        (ROWS, None, (), r"a row of 3 integers that is not one-hot; .* data.task = \"multilabel\""),
        ([0, 0, None], "binary", (), "every label is the same for all samples"),
        ([[1, 0], [1, 0]], "multilabel", (), "every label is the same for all samples"),
        ([1.0, 0.5], "classification", (), "sample 1: label 0.5: no whole number"),
        ([[0.5, 1.5]], "classification", (), r"floats .* no labels of data\.task"),
        ([[1.0, 1.0]], None, ("a", "b"), r'rows of 0 and 1, .* data.task = "multilabel"'),
    ],
)
def test_what_is_no_label_of_the_task_is_refused(
    labels: list[Any], task: Task | None, classes: tuple[str, ...], message: str, read: Read
) -> None:
    with pytest.raises(DataError, match=message):
        read(labels, task, classes)


@pytest.mark.parametrize("large", [False, True])
def test_classes_may_be_floats_where_the_recipe_says_that_they_are_classes(
    large: bool, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0 if large else 1 << 30)
    data = read([0.0, np.float32(2), torch.tensor([1.0]), NAN], "classification")
    assert (data.labels.dtype, data.labels.tolist()) == (np.int64, [0, 2, 1, -1])
    assert len(data.raw(np.arange(4))) == 4


@pytest.mark.parametrize("names", [["no", "yes"], ["no", "perhaps", "yes"]])
def test_two_folders_of_images_are_a_binary_task(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(IMAGE.transpose(1, 2, 0)).save(tmp_path / "train" / name / "0.png")
    settings = DataSettings(name="imagefolder", root=str(tmp_path), pack="never", task="binary")
    if len(names) > 2:
        with pytest.raises(DataError, match=r"sample 2: its label is 2\.0"):
            load_data(settings, ViewsSettings(), "train")
        return
    data = load_data(settings, ViewsSettings(), "train")
    assert (data.labels.tolist(), data.classes, num_outputs(data)) == ([[0], [1]], ("no", "yes"), 1)
    assert describe_data(settings, ViewsSettings(), "train").labels.tolist() == [[0], [1]]


def test_a_shipped_dataset_can_only_have_a_task_that_it_has_labels_of() -> None:
    def digits(task: Task) -> LabelledData:
        return load_data(DataSettings(name="digits", task=task), ViewsSettings(), "train")

    assert "task" not in identity(digits("classification"))
    for task in ("multilabel", "regression", "binary"):
        with pytest.raises(DataError, match="digits: train: "):
            digits(task)


@pytest.mark.parametrize(
    ("labels", "task", "said"),
    [
        ([[1.0, 0.0], [1.0, 1.0]], None, 'data.task = "multilabel"'),
        ([1.0, 0.0, NAN], None, 'data.task = "binary"'),
        ([1.0, 0.0], "regression", None),
        ([1.0, 0.5], None, None),
        ([0.0, 0.0], None, None),
        ([1, 0], None, None),
        ([1, 0], "binary", None),
    ],
)
def test_a_regression_of_zeros_and_ones_is_doubted(
    labels: list[Any], task: Task | None, said: str | None, read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read(labels, task)
    forget_what_was_said()
    warn_of_zeros_and_ones(data, task)
    told = capsys.readouterr().err
    assert (said in told) if said else not told
    assert "task" not in identity(data) or task == "binary", "what was found before is found"


def test_a_class_that_always_or_never_comes_up_is_said(
    read: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_what_was_said()
    read([[1, 0, 0, 1], [1, NAN, 1, 1]], "multilabel", ("sun", "rain", "wind", "sky"))
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("train: ")[2] for line in said] == [
        "every sample has sun, sky",
        "no sample has rain",
    ]
