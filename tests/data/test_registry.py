"""A dataset by name: found or refused with the nearest names, checked, fingerprinted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import describe_data, identity, load_data
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import DataError

PLAIN = ViewsSettings()


def array_data(inputs: NDArray[Any], labels: Any = None, classes: tuple[str, ...] = ()) -> ArrayData:
    labels = np.arange(len(inputs)) % 3 if labels is None else np.array(labels, np.int64)
    return ArrayData("mine", "train", inputs, labels, classes)


def pixels(count: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 5, 4)).astype(np.uint8)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        load_data(DataSettings(name="cifar"), PLAIN, "train")
    assert str(caught.value).startswith("unknown dataset 'cifar'; did you mean cifar10 or cifar100?")
    with pytest.raises(
        DataError,
        match="known: cifar10, cifar100, diabetes, digits, fashion-mnist, hf, imagefolder, mnist, npy",
    ):
        load_data(DataSettings(name="zzzzz"), PLAIN, "train")


# The digest


def test_the_identity_names_data_split_classes_and_content() -> None:
    data = array_data(pixels(), classes=("a", "b", "c"))
    found = identity(data)
    assert (found["name"], found["split"], found["sha256"]) == ("mine", "train", data.digest())
    assert list(found["classes"]) == ["a", "b", "c"]


def test_image_files_are_described_without_being_decoded(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels(1)[0].transpose(1, 2, 0)).save(tmp_path / split / name / "0.png")
    settings = DataSettings(name="imagefolder", root=str(tmp_path))
    loaded, described = (take(settings, PLAIN, "train") for take in (load_data, describe_data))
    assert described.digest() == loaded.digest()
    assert described.input_shape == loaded.input_shape
    assert np.array_equal(described.labels, loaded.labels)
    second = tmp_path / "train/b/0.png"
    second.write_bytes(b"?" * second.stat().st_size)
    assert describe_data(settings, PLAIN, "train").digest() == loaded.digest()
    with pytest.raises(DataError):
        load_data(settings, PLAIN, "train")


# The class count


# Statistics of the channels


# What is checked of data from anywhere


class Samples:
    """Two grey images with the labels that a test wants."""

    classes = ("a", "b")

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Any]:
        return np.zeros((1, 2, 2), np.uint8), self.labels[index]


def too_large(root: str, split: str) -> Samples:
    return Samples([0, 2])


def negative(root: str, split: str) -> Samples:
    return Samples([0, -2])


def none(root: str, split: str) -> Samples:
    return Samples([])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("too_large", "label 2 of 2 classes; labels count from 0"),
        ("negative", "label -2; labels count from 0"),
        ("none", "no samples"),
    ],
)
def test_labels_are_classes_counted_from_0(function: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_data(DataSettings(name=f"{__name__}:{function}"), PLAIN, "train")
