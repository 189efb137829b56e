"""Labels from anywhere: integers are classes, floats are targets, and what is neither is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from decant.pipeline.data.labels import as_label, as_labels, check_labels, is_label
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import DataError

NAN = float("nan")


@pytest.mark.parametrize("label", [3, np.int64(3), np.array(3), torch.tensor(3), np.uint8(3)])
def test_an_integer_of_any_library_is_a_class(label: Any) -> None:
    found = as_label(label)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("label", [0.5, np.float64(0.5), torch.tensor(0.5), [0.5], np.array([0.5], "f8")])
def test_a_float_is_a_row_of_one_target(label: Any) -> None:
    found = as_label(label)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tolist()) == (np.float32, [0.5])


@pytest.mark.parametrize("label", ["three", [1, 2], [[0.5]], {"a": 1}])
def test_anything_else_is_refused(label: Any) -> None:
    with pytest.raises(TypeError):
        as_label(label)


def test_none_is_minus_one_among_classes_and_nan_among_targets() -> None:
    classes = as_labels([None, 2, None], "mine")
    assert (classes.dtype, classes.tolist()) == (np.int64, [-1, 2, -1])
    targets = as_labels([None, as_label([1.0, 2.0])], "mine")
    assert (targets.dtype, targets.shape) == (np.float32, (2, 2))
    assert np.isnan(targets[0]).all()
    assert targets[1].tolist() == [1.0, 2.0]
    assert as_labels([None, None], "mine").tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([None, 0.5, 3], "mine: sample 2: its label is a class, that of sample 1 a row of 1 floats"),
        ([0, 1, 0.5], "mine: sample 2: its label is a row of 1 floats, that of sample 0 a class"),
        (
            [[0.5], [0.5, 1.0]],
            "mine: sample 1: its label is a row of 2 floats, that of sample 0 a row of 1 floats",
        ),
    ],
)
def test_labels_of_two_kinds_name_the_first_odd_one(labels: list[Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        as_labels([as_label(label) for label in labels], "mine")
    assert str(caught.value) == says


def test_a_label_is_known_again() -> None:
    for label, other in [(3, 2), ([0.5, NAN], [0.5, 1.0]), (None, 3), (-1, 1)]:
        stored = as_labels([as_label(label), as_label(label)], "mine")[0]
        assert is_label(stored, as_label(label))
        assert not is_label(stored, as_label(other))
    assert not is_label(np.array([-1.0], np.float32), None), "−1 is a target like any other"


def data(labels: Any, classes: tuple[str, ...] = ()) -> ArrayData:
    return ArrayData("mine", "train", np.zeros((3, 2), np.float32), labels, classes)


@pytest.mark.parametrize(
    ("labels", "classes", "says"),
    [
        (np.zeros(3, np.float32), (), "targets must be (3, T) floats, found (3,)"),
        (np.zeros((2, 1), np.float32), (), "targets must be (3, T) floats, found (2, 1)"),
        (np.zeros((3, 0), np.float32), (), "targets must be (3, T) floats, found (3, 0)"),
        (np.zeros((3, 1)), (), "targets must be float32, found float64"),
        (
            np.array([[0], [np.inf], [0]], np.float32),
            (),
            "sample 1: target [inf]; targets are finite, NaN is none",
        ),
        (np.zeros((3, 1), np.float32), ("a", "b"), "has 2 class names, and targets that are floats"),
        (np.zeros(2, np.int64), (), "labels must be (3,) integers, found (2,)"),
        (np.zeros(3, np.int32), (), "labels must be (3,) integers, found (3,)"),
    ],
)
def test_labels_that_no_phase_can_work_with_are_refused(labels: Any, classes: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        check_labels(data(labels, classes))
    assert str(caught.value).startswith(f"mine: train: {says}")


def test_targets_may_be_missing() -> None:
    check_labels(data(np.array([[1.0, NAN], [NAN, NAN], [0.0, 2.0]], np.float32)))
