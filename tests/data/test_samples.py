"""Data in hand: what their digest covers, how many classes they have, and their statistics."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.pipeline.data.samples import (
    ArrayData,
    channel_statistics,
    has_labels,
    num_classes,
    num_outputs,
    num_targets,
    spread,
    task_of,
)
from decant.pipeline.errors import DataError


def array_data(inputs: NDArray[Any], labels: Any = None, classes: tuple[str, ...] = ()) -> ArrayData:
    labels = np.arange(len(inputs)) % 3 if labels is None else np.array(labels, np.int64)
    return ArrayData("mine", "train", inputs, labels, classes)


def pixels(count: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 5, 4)).astype(np.uint8)


def test_the_digest_is_of_every_byte_of_inputs_and_labels_in_their_order() -> None:
    whole = array_data(pixels()).digest()
    assert array_data(pixels()).digest() == whole
    changed = pixels()
    changed[19, 2, 4, 3] ^= 1
    relabelled = np.arange(20) % 3
    relabelled[7] = 0
    others = {
        "one bit": array_data(changed),
        "one label": array_data(pixels(), relabelled),
        "one sample less": array_data(pixels()[:-1]),
        "another order": array_data(pixels()[::-1], (np.arange(20) % 3)[::-1]),
        "another shape": array_data(pixels().reshape(20, 3, 4, 5)),
        "another type": array_data(pixels().view(np.int8)),
    }
    digests = {what: data.digest() for what, data in others.items()}
    assert len({whole, *digests.values()}) == 1 + len(digests), digests


def test_the_digest_is_of_the_content_and_not_of_how_it_lies_in_memory() -> None:
    assert array_data(np.asfortranarray(pixels())).digest() == array_data(pixels()).digest()


def test_raw_inputs_are_a_copy() -> None:
    data = array_data(pixels())
    data.raw(np.array([3]))[:] = 0
    assert np.array_equal(data.raw(np.array([19, 3])), pixels()[[19, 3]])


def test_the_class_count_is_that_of_the_names_or_of_the_labels() -> None:
    assert num_classes(array_data(pixels(), classes=("a", "b", "c", "d"))) == 4
    assert num_classes(array_data(pixels())) == 3
    assert num_classes(array_data(pixels(), [-1] * 20, ("a", "b"))) == 2
    with pytest.raises(DataError, match="neither class names nor labels"):
        num_classes(array_data(pixels(), [-1] * 20))


def test_labels_say_the_task_and_how_many_outputs_it_takes() -> None:
    classes, targets = array_data(pixels(), classes=("a", "b", "c", "d")), array_data(pixels())
    targets.labels = np.zeros((20, 2), np.float32)
    assert (task_of(classes), num_targets(classes), num_outputs(classes)) == ("classification", None, 4)
    assert (task_of(targets), num_targets(targets), num_outputs(targets)) == ("regression", 2, 2)


def test_one_label_is_enough_to_have_labels() -> None:
    classes, targets = array_data(pixels(), [-1] * 20), array_data(pixels())
    targets.labels = np.full((20, 2), np.nan, np.float32)
    assert not has_labels(classes)
    assert not has_labels(targets)
    classes.labels[7], targets.labels[7, 1] = 0, 0
    assert has_labels(classes)
    assert has_labels(targets)


@pytest.mark.parametrize("count", [1, 20, 700])
def test_statistics_are_those_of_all_pixels_between_0_and_1(count: int) -> None:
    inputs = pixels(count)
    mean, std = channel_statistics(array_data(inputs))
    scaled = inputs.astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=1e-6)
    assert std == pytest.approx(scaled.std(axis=(0, 2, 3)), abs=1e-6)


@pytest.mark.parametrize("side", [1, 16, 17, 40])
def test_statistics_of_pixels_are_exact(side: int) -> None:
    inputs = np.random.default_rng(side).integers(250, 256, (300, 2, side, side), dtype=np.uint8)
    inputs[:, 1] = 255
    mean, std = channel_statistics(array_data(inputs))
    values = inputs[:, 0].ravel().tolist()
    assert mean == [round(statistics.mean(values) / 255, 6), 1.0]
    assert std == [round(statistics.pstdev(values) / 255, 6), 1e-6]


def test_statistics_of_features_far_from_zero_are_exact() -> None:
    features = np.random.default_rng(0).normal([5, -1e6], [1, 0.5], (3000, 2))
    mean, std = channel_statistics(array_data(features))
    assert mean == pytest.approx(features.mean(axis=0), abs=1e-6)
    assert std == pytest.approx(features.std(axis=0), abs=1e-6)


def test_a_constant_channel_has_a_deviation_to_divide_by() -> None:
    mean, std = channel_statistics(array_data(np.full((9, 1, 2, 2), 255, np.uint8)))
    assert (mean, std) == ([1.0], [1e-6])


def test_of_many_samples_ten_thousand_are_measured() -> None:
    features = np.zeros((20_001, 1), np.float32)
    features[spread(20_001, 10_000)] = 1
    assert channel_statistics(array_data(features)) == ([1.0], [1e-6])


@pytest.mark.parametrize(("length", "count"), [(1, 10), (9, 10), (10, 10), (11, 10), (10_000, 10)])
def test_spread_reaches_from_the_first_to_the_last(length: int, count: int) -> None:
    found = spread(length, count)
    assert len(found) == min(length, count)
    assert (found[0], found[-1]) == (0, length - 1)
    assert len(found) < 3 or np.diff(found).max() - np.diff(found).min() <= 1
