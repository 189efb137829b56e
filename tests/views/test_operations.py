"""What an operation cannot work on is said, and what it can is tried."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from decant.pipeline.config.augmentations import Augmentation
from decant.pipeline.views.operations import unsupported

NEEDS: dict[str, dict[str, Any]] = {
    "center-crop": {"size": 8},
    "cutout": {"size": 3},
    "transform": {"name": "torchvision:RandomInvert"},
}
OPERATIONS = [
    "pad-crop",
    "flip",
    "center-crop",
    "random-resized-crop",
    "color-jitter",
    "rand-augment",
    "trivial-augment",
    "cutout",
    "random-erasing",
    "mixup",
    "cutmix",
    "transform",
]
ANY_DTYPE = ("pad-crop", "flip", "center-crop", "cutout", "cutmix")
GREY_OR_COLOUR = ("color-jitter", "rand-augment", "trivial-augment")


def operation(name: str, **values: Any) -> Augmentation:
    return TypeAdapter(Augmentation).validate_python({"op": name, **NEEDS.get(name, {}), **values})


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_images_of_bytes_and_none_takes_features(name: str) -> None:
    for channels in (1, 3):
        assert unsupported(operation(name), (channels, 8, 9), "uint8") is None
    assert unsupported(operation(name), (6,), "float32") == "works on images (C, H, W), the inputs are (6,)"


@pytest.mark.parametrize("name", OPERATIONS)
def test_floats_and_many_channels_are_for_what_only_moves_pixels(name: str) -> None:
    floats = unsupported(operation(name), (3, 8, 9), "float32")
    assert floats == (None if name in ANY_DTYPE else "works on uint8 images, these are float32")
    many = unsupported(operation(name), (4, 8, 9), "uint8")
    assert many == ("works on images of 1 or 3 channels, these have 4" if name in GREY_OR_COLOUR else None)


def test_a_crop_is_no_larger_than_the_image() -> None:
    assert unsupported(operation("center-crop", size=9), (3, 9, 9), "uint8") is None
    for shape in ((3, 8, 9), (3, 9, 8)):
        reason = unsupported(operation("center-crop", size=9), shape, "uint8")
        assert reason == f"size = 9 is larger than the images, {shape[1]} × {shape[2]}"
