"""The two parts of a recipe's data belong together, and only the train part is augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import DataError
from decant.pipeline.phases.datasets import Splits


def splits(*overrides: str) -> Splits:
    return Splits.load(load_recipe("digits", overrides).settings)


def refusal(*overrides: str) -> str:
    with pytest.raises(DataError) as caught:
        splits(*overrides)
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


def test_the_test_part_is_as_it_is_whatever_the_views() -> None:
    found = splits("views.count=4", 'views.augment=[{op="flip", p=1.0}]')
    raw = found.test.data.raw(np.arange(20))
    for view in (0, 3):
        keys = np.stack([np.arange(20), np.full(20, view)], axis=1)
        assert torch.equal(found.test.batch(keys)[0], torch.from_numpy(raw))
        assert torch.equal(
            found.student_train.batch(keys)[0],
            torch.from_numpy(found.student_train.data.raw(np.arange(20))).flip(-1),
        )
    assert (found.student_train.settings.count, found.test.settings.count) == (4, 1)
    assert (found.student_train.data.split, found.test.data.split) == ("train", "test")


def write(root: Path, part: str, *classes: str, side: int = 4) -> None:
    for name in classes:
        (root / part / name).mkdir(parents=True)
        Image.new("RGB", (side, side)).save(root / part / name / "a.png")


def test_parts_of_different_classes_do_not_belong_together(tmp_path: Path) -> None:
    write(tmp_path, "train", "cat", "dog")
    write(tmp_path, "test", "cat", "dogs")
    said = refusal("data.name=imagefolder", f"data.root={tmp_path}")
    train, test = tmp_path / "train", tmp_path / "test"
    assert said == (
        f"imagefolder: the train and test parts have different classes: {test} has no folder for dog, which {train} "
        f"has; {train} has no folder for dogs, which {test} has"
    )


def test_parts_of_different_shapes_do_not_belong_together(tmp_path: Path) -> None:
    write(tmp_path, "train", "cat", "dog")
    write(tmp_path, "test", "cat", "dog", side=5)
    here = ("data.name=imagefolder", f"data.root={tmp_path}")
    assert "train inputs are (3, 4, 4), test inputs (3, 5, 5); set views.size" in refusal(*here)
    assert splits(*here, "views.size=4").test.data.input_shape == (3, 4, 4)


def features(root: str, split: str) -> list[tuple[Any, int]]:
    """Without class names; the test part has a label that the train part has not."""
    return [(np.zeros(3), label) for label in ((0, 1, 2) if split == "train" else (0, 3))]


def same_features(root: str, split: str) -> list[tuple[Any, int]]:
    return [(np.zeros(3), label) for label in (0, 1)]


def test_a_test_label_beyond_the_train_parts_classes_is_refused() -> None:
    said = refusal(f"data.name={__name__}:features")
    assert said == f"{__name__}:features: the test part has label 3, the train part only 3 classes"


def test_images_alone_can_be_augmented() -> None:
    said = refusal(f"data.name={__name__}:same_features", 'views.augment=[{op="flip"}]')
    assert said.startswith("views.augment: flip: works on images (C, H, W)")


def test_where_a_crop_sets_the_size_the_test_part_is_cropped_in_the_middle() -> None:
    found = splits('views.augment=[{op="random-resized-crop", size=6}, {op="flip"}]')
    assert found.student_train.input_shape == found.test.input_shape == (1, 6, 6)
    assert found.student_train.data.input_shape == (1, 8, 8)
    whole = found.test.data.raw(np.array([3]))[0]
    assert np.array_equal(found.test[3][0].numpy(), whole[:, 1:7, 1:7])
