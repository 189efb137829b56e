"""Crops, flips and scaling: an image at a time by hand, on arrays and tensors alike."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import ks_2samp, kstest
from torchvision.transforms.v2 import RandomResizedCrop, functional

from decant.pipeline.views.boxes import log_uniform
from decant.pipeline.views.geometry import center_crop, flip, pad_crop, resized_crop, resized_crop_box
from decant.pipeline.views.hashing import below, chance, uniform
from tests.helpers.pixels import bits, crc32, draw, images, operate

KINDS = [images(), images(dtype="float32"), images(shape=(1, 1, 1)), images(shape=(5, 2, 31))]
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.mark.parametrize("inputs", KINDS)
@pytest.mark.parametrize("padding", [1, 4])
def test_pad_crop_takes_a_window_of_the_image_with_zeros_around_it(
    inputs: NDArray[Any], padding: int
) -> None:
    top, left = (below(bits()[:, place], 2 * padding + 1) for place in (0, 1))
    found = operate(lambda images, top, left: pad_crop(images, padding, top, left), inputs, top, left)
    _, channels, height, width = inputs.shape
    for place in range(40):
        for channel, y, x in np.ndindex(channels, height, width):
            row, column = y + top[place] - padding, x + left[place] - padding
            within = 0 <= row < height and 0 <= column < width
            expected = inputs[place, channel, row, column] if within else 0
            assert found[place, channel, y, x] == expected, f"image {place}, pixel {channel, y, x}"
    assert (found.dtype, found.shape) == (inputs.dtype, inputs.shape)


@pytest.mark.parametrize("inputs", KINDS)
def test_flip_turns_the_rows_of_some_images_around(inputs: NDArray[Any]) -> None:
    mirrored = chance(bits()[:, 0], 0.5)
    found = operate(flip, inputs, mirrored)
    for place, image in enumerate(inputs):
        assert np.array_equal(found[place], image[..., ::-1] if mirrored[place] else image)
    assert found.dtype == inputs.dtype


@pytest.mark.parametrize("inputs", [images(), images(dtype="float32"), images(shape=(1, 8, 8))])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_center_crop_takes_the_middle(inputs: NDArray[Any], size: int) -> None:
    found = operate(lambda images: center_crop(images, size), inputs)
    top, left = (inputs.shape[2] - size) // 2, (inputs.shape[3] - size) // 2
    assert found.shape == (*inputs.shape[:2], size, size)
    assert np.array_equal(found, inputs[:, :, top : top + size, left : left + size])


# Scaling


def longhand_scaled(box: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One channel (h, w) → (H', W'), in fractions of which the weights alone are rounded."""

    def lines(extent: int, count: int) -> list[tuple[int, int, int]]:
        found = []
        for place in range(count):
            at = min(max(Fraction(2 * place + 1, 2 * count) * extent - Fraction(1, 2), 0), extent - 1)
            whole, weight = divmod(floor(at * 2048 + Fraction(1, 2)), 2048)
            found.append((whole, min(whole + 1, extent - 1), weight))
        return found

    scaled = np.empty(size, np.uint8)
    for y, (upper, lower, down) in enumerate(lines(box.shape[0], size[0])):
        for x, (first, second, right) in enumerate(lines(box.shape[1], size[1])):
            above = int(box[upper, first]) * (2048 - right) + int(box[upper, second]) * right
            below_ = int(box[lower, first]) * (2048 - right) + int(box[lower, second]) * right
            scaled[y, x] = floor(Fraction(above * (2048 - down) + below_ * down, 2048**2) + Fraction(1, 2))
    return scaled


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 9, 7), (9, 7)), ((1, 12, 12), (5, 5)), ((2, 6, 5), (17, 16)), ((1, 1, 1), (3, 3))],
)
def test_a_box_is_scaled_between_the_centres_of_pixels(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    inputs = images(shape=shape)
    boxes = resized_crop_box(bits(), shape[1:], SCALE, RATIO)
    found = operate(lambda images, *box: resized_crop(images, *box, size), inputs, *boxes)
    assert (found.dtype, found.shape) == (np.uint8, (len(inputs), shape[0], *size))
    for place, (top, left, height, width) in enumerate(zip(*boxes, strict=True)):
        if place < 30:
            for channel in range(shape[0]):
                box = inputs[place, channel, top : top + height, left : left + width]
                assert np.array_equal(found[place, channel], longhand_scaled(box, size)), f"image {place}"


def test_the_whole_image_in_its_own_size_is_itself() -> None:
    inputs = images(shape=(3, 33, 20))
    start, height, width = np.zeros(len(inputs), int), np.full(len(inputs), 33), np.full(len(inputs), 20)
    assert np.array_equal(resized_crop(inputs, start, start, height, width, (33, 20)), inputs)


def test_the_brightest_image_stays_so() -> None:
    inputs = np.full((50, 1, 40, 40), 255, np.uint8)
    found = resized_crop(inputs, *resized_crop_box(bits(50), (40, 40), SCALE, RATIO), (33, 33))
    assert found.min() == 255


@pytest.mark.parametrize("size", [(32, 32), (48, 20)])
def test_scaling_is_that_of_torchvision_but_for_rounding(size: tuple[int, int]) -> None:
    inputs = images(60, shape=(3, 32, 32))
    boxes = resized_crop_box(bits(60), (32, 32), SCALE, RATIO)
    found = resized_crop(inputs, *boxes, size)
    theirs = [
        functional.resized_crop(image, *map(int, box), list(size), antialias=False)
        for image, *box in zip(torch.from_numpy(inputs).float(), *boxes, strict=True)
    ]
    difference = np.abs(found - torch.stack(theirs).numpy()).max()
    assert difference < 0.65, f"they differ by {difference:.3f} levels"  # half by rounding, 1/8 by weights


# The boxes


@pytest.mark.parametrize("shape", [(1, 1), (2, 31), (9, 7), (32, 32), (3000, 4000)])
@pytest.mark.parametrize(
    ("scale", "ratio"), [(SCALE, RATIO), ((1e-6, 1e-6), (100, 100)), ((1, 1), (0.01, 0.01))]
)
def test_boxes_lie_in_the_image(
    shape: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    top, left, height, width = draw(lambda bits: resized_crop_box(bits, shape, scale, ratio), bits())
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= shape[0]
    assert (left + width).max() <= shape[1]


def test_boxes_are_distributed_as_those_of_torchvision() -> None:
    torch.manual_seed(0)
    image = torch.empty(1, 150, 200)
    theirs = np.array([RandomResizedCrop.get_params(image, [*SCALE], [*RATIO]) for _ in range(4000)])
    ours = np.stack(resized_crop_box(bits(4000), (150, 200), SCALE, RATIO), axis=1)
    for name, of in {
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
    }.items():
        assert ks_2samp(of(ours), of(theirs)).pvalue > 0.01, name


def test_area_is_uniform_and_ratio_log_uniform_where_every_box_fits() -> None:
    _, _, height, width = resized_crop_box(bits(20_000), (4000, 4000), (0.05, 0.25), (0.5, 2.0))
    area, ratio = height * width / 4000**2, width / height
    assert kstest((area - 0.05) / 0.2, "uniform").pvalue > 0.01
    assert kstest(np.log2(ratio) / 2 + 0.5, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(area, np.log(ratio))[0, 1]) < 0.02


@pytest.mark.parametrize(("shape", "ratio"), [((40, 40), (2, 3)), ((40, 30), (0.2, 0.3)), ((9, 1), (1, 1))])
def test_what_never_fits_is_the_middle_as_torchvision_has_it(
    shape: tuple[int, int], ratio: tuple[float, float]
) -> None:
    found = np.stack(resized_crop_box(bits(20), shape, (1.0, 1.0), ratio), axis=1)
    theirs = RandomResizedCrop.get_params(torch.empty(1, *shape), [1.0, 1.0], [*ratio])
    assert np.unique(found, axis=0).tolist() == [list(theirs)]


def test_log_uniform_is_the_power_that_it_says() -> None:
    fraction = bits(5000)[:, 0] >> np.uint64(32)
    for low, high in [(3 / 4, 4 / 3), (0.01, 100.0), (2.0, 2.0)]:
        expected = low * (high / low) ** (fraction / 2**32)
        np.testing.assert_allclose(log_uniform(fraction, low, high), expected, rtol=1e-13)


# For ever


def test_pixels_and_draws_never_change_unnoticed() -> None:
    inputs, given = images(shape=(3, 24, 17)), bits()
    offsets = below(given[:, 0], 9), below(given[:, 1], 9)
    boxes = resized_crop_box(given, (24, 17), SCALE, RATIO)
    assert {
        "pad-crop": crc32(pad_crop(inputs, 4, *offsets)),
        "flip": crc32(flip(inputs, uniform(given[:, 0]) < 0.5)),
        "center-crop": crc32(center_crop(inputs, 12)),
        "boxes": crc32(np.stack(boxes)),
        "resized-crop": crc32(resized_crop(inputs, *boxes, (16, 20))),
    } == {
        "pad-crop": 1_993_255_993,
        "flip": 112_145_202,
        "center-crop": 2_817_454_917,
        "boxes": 3_065_915_309,
        "resized-crop": 354_688_693,
    }
