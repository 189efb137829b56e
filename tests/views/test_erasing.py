"""Cutout and random erasing: a pixel at a time by hand, on arrays and tensors alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms.v2 import RandomErasing

from decant.pipeline.views.erasing import cutout, cutout_corner, erase, erasing_box
from tests.helpers.pixels import bits, crc32, draw, images, operate

SCALE, RATIO = (0.02, 0.33), (0.3, 3.3)


def longhand(image: NDArray[Any], top: int, left: int, height: int, width: int, value: int) -> NDArray[Any]:
    image = image.copy()
    for y in range(top, top + height):
        for x in range(left, left + width):
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                image[:, y, x] = value
    return image


@pytest.mark.parametrize("inputs", [images(), images(dtype="float32"), images(shape=(1, 12, 5))])
@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_cutout_blackens_a_square_that_the_border_may_cut(inputs: NDArray[Any], size: int) -> None:
    corner = cutout_corner(bits(), inputs.shape[2:], size)
    found = operate(lambda images, top, left: cutout(images, size, top, left), inputs, *corner)
    for place, (top, left) in enumerate(zip(*corner, strict=True)):
        assert np.array_equal(found[place], longhand(inputs[place], top, left, size, size, 0))
    assert found.dtype == inputs.dtype


@pytest.mark.parametrize("value", [0, 255])
def test_erasing_fills_a_box(value: int) -> None:
    inputs, boxes = images(), erasing_box(bits(), (9, 7), 0.7, SCALE, RATIO)
    found = operate(lambda images, *box: erase(images, *box, value), inputs, *boxes)
    for place, box in enumerate(zip(*boxes, strict=True)):
        assert np.array_equal(found[place], longhand(inputs[place], *box, value))
    assert found.dtype == np.uint8


def test_the_centre_of_a_square_is_any_pixel() -> None:
    for size in (1, 6, 7):
        top, left = draw(lambda bits, size=size: cutout_corner(bits, (8, 5), size), bits(8000))
        centres = (top + size // 2) * 5 + left + size // 2
        assert set(centres.tolist()) == set(range(40))
        assert chisquare(np.bincount(centres)).pvalue > 0.01


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_boxes_come_with_their_chance_and_lie_in_the_image(p: float) -> None:
    top, left, height, width = draw(lambda bits: erasing_box(bits, (32, 24), p, SCALE, RATIO), bits(4000))
    erased = height * width > 0
    assert abs(erased.mean() - p) < 0.02
    assert height[~erased].sum() == width[~erased].sum() == 0
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 32
    assert (left + width).max() <= 24


def test_boxes_are_distributed_as_those_of_torchvision() -> None:
    torch.manual_seed(0)
    theirs_of, image = RandomErasing(p=1.0, scale=SCALE, ratio=RATIO), torch.empty(3, 150, 200)
    params = [theirs_of.make_params([image]) for _ in range(4000)]
    theirs = np.array([[params_[name] for name in "ijhw"] for params_ in params])
    ours = np.stack(erasing_box(bits(4000), (150, 200), 1.0, SCALE, RATIO), axis=1)
    for name, of in {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 2] / box[:, 3],
    }.items():
        assert ks_2samp(of(ours), of(theirs)).pvalue > 0.01, name


def test_a_box_that_never_fits_erases_nothing() -> None:
    for shape, scale in [((8, 8), (1.0, 1.0)), ((1, 1), SCALE)]:
        *_, height, width = erasing_box(bits(), shape, 1.0, scale, (1.0, 1.0))
        assert height.sum() == width.sum() == 0


def test_a_box_without_a_pixel_is_drawn_again() -> None:
    *_, height, width = erasing_box(bits(2000), (4, 4), 1.0, (0.001, 0.2), (0.5, 2.0))
    assert min(height.min(), width.min()) >= 1


def test_pixels_and_draws_never_change_unnoticed() -> None:
    inputs, given = images(shape=(3, 24, 17)), bits()
    corner, boxes = cutout_corner(given, (24, 17), 8), erasing_box(given, (24, 17), 0.5, SCALE, RATIO)
    assert {
        "corners": crc32(np.stack(corner)),
        "cutout": crc32(cutout(inputs, 8, *corner)),
        "boxes": crc32(np.stack(boxes)),
        "erasing": crc32(erase(inputs, *boxes, 128)),
    } == {
        "corners": 2_539_201_341,
        "cutout": 3_367_040_705,
        "boxes": 3_377_353_216,
        "erasing": 3_173_510_263,
    }
