"""Colour jitter: a pixel at a time by hand, on arrays and tensors alike."""

from __future__ import annotations

import colorsys
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import chisquare, kstest
from torchvision.transforms.v2 import functional

from decant.pipeline.views.arrays import ONE
from decant.pipeline.views.colour import color_jitter, grey, jitter
from tests.helpers.pixels import bits, crc32, draw, images, operate

STRENGTHS = (0.4, 0.4, 0.4, 0.1)
SAME = {"brightness": ONE, "contrast": ONE, "saturation": ONE, "hue": 0}


def one_of(count: int, **values: Any) -> tuple[NDArray[np.int64], ...]:
    """The arguments of color_jitter that change nothing but what is given."""
    changed = [np.broadcast_to({**SAME, **values}[name], count).astype(np.int64) for name in SAME]
    return *changed, np.tile(np.arange(4), (count, 1))


def factors(count: int) -> NDArray[np.int64]:
    """From 0 to far beyond 1."""
    return np.linspace(0, 11 * ONE, count).astype(np.int64)


def blended(pixel: int, other: int, factor: int) -> int:
    exact = Fraction(factor, ONE) * pixel + (1 - Fraction(factor, ONE)) * other
    return min(max(floor(exact + Fraction(1, 2)), 0), 255)


def luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pillow's."""
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_scales_pixels(channels: int) -> None:
    inputs, factor = images(shape=(channels, 4, 5)), factors(300)
    found = operate(color_jitter, inputs, *one_of(300, brightness=factor))
    for place, *pixel in np.ndindex(inputs.shape):
        value = int(inputs[place, *pixel])
        assert found[place, *pixel] == blended(value, 0, int(factor[place])), f"{value} × {factor[place]}"


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_scales_the_distance_from_the_mean_grey(channels: int) -> None:
    inputs, factor = images(shape=(channels, 4, 5)), factors(300)
    found = operate(color_jitter, inputs, *one_of(300, contrast=factor))
    for place, image in enumerate(inputs):
        shades = image[0] if channels == 1 else luma(image)
        mean = floor(Fraction(int(shades.sum()), shades.size) + Fraction(1, 2))
        for pixel in np.ndindex(image.shape):
            assert found[place, *pixel] == blended(int(image[pixel]), mean, int(factor[place]))


def test_saturation_scales_the_distance_from_the_pixels_grey() -> None:
    inputs, factor = images(shape=(3, 4, 5)), factors(300)
    found = operate(color_jitter, inputs, *one_of(300, saturation=factor))
    for place, image in enumerate(inputs):
        shades = luma(image)
        for channel, y, x in np.ndindex(image.shape):
            expected = blended(int(image[channel, y, x]), int(shades[y, x]), int(factor[place]))
            assert found[place, channel, y, x] == expected


def test_hue_turns_the_colour_and_keeps_value_and_saturation() -> None:
    inputs, turn = images(shape=(3, 4, 5)), np.linspace(-ONE // 2, ONE // 2, 300).astype(np.int64)
    found = operate(color_jitter, inputs, *one_of(300, hue=turn))
    assert np.array_equal(found.max(axis=1), inputs.max(axis=1))
    assert np.array_equal(found.min(axis=1), inputs.min(axis=1))
    for place, image in enumerate(inputs):
        for y, x in np.ndindex(4, 5):
            hue, *rest = colorsys.rgb_to_hsv(*(image[:, y, x] / 255))
            expected = np.array(colorsys.hsv_to_rgb((hue + turn[place] / ONE) % 1, *rest)) * 255
            assert np.abs(found[place, :, y, x] - expected).max() < 0.51, f"image {place}, pixel {y, x}"


def test_grey_is_that_of_pillow() -> None:
    inputs = images()
    assert np.array_equal(grey(inputs)[:, 0], [luma(image) for image in inputs])


def test_factors_of_one_and_no_turn_leave_every_colour_as_it_is() -> None:
    levels = np.unique(np.r_[np.arange(0, 256, 5), 1, 2, 127, 128, 254])
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=0).reshape(1, 3, -1, 1).astype(np.uint8)
    assert np.array_equal(color_jitter(colours, *one_of(1)), colours)
    whole = color_jitter(colours, *one_of(1, hue=ONE))  # not left out, as no turn is
    assert np.array_equal(whole, colours)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_its_own_order(channels: int) -> None:
    inputs = images(shape=(channels, 4, 5))
    *values, order = jitter(bits(), *STRENGTHS)
    found = operate(color_jitter, inputs, *values, order)
    for place, image in enumerate(inputs):
        step = image[None]
        for which in order[place]:
            name = list(SAME)[which]
            step = color_jitter(step, *one_of(1, **{name: values[which][place]}))
        assert np.array_equal(found[place], step[0]), f"image {place}, order {order[place]}"
    assert len(np.unique(order, axis=0)) == 24


def test_jitter_is_that_of_torchvision_but_for_rounding() -> None:
    inputs = images(100, shape=(3, 16, 16))
    *values, order = jitter(bits(100), *STRENGTHS)
    found = color_jitter(inputs, *values, order).astype(int)
    adjust = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    for place, image in enumerate(inputs):
        theirs = torch.from_numpy(image)
        for which in order[place]:
            theirs = adjust[which](theirs, values[which][place] / ONE)
        difference = np.abs(found[place] - theirs.numpy()).mean()
        assert difference < 2, f"image {place} differs by {difference:.2f} levels"  # they cut, we round


# The draws


def test_factors_are_uniform_in_their_ranges() -> None:
    *values, order = draw(lambda bits: jitter(bits, 0.4, 2.0, 0.1, 0.5), bits(5000))
    ranges = [(0.6, 1.4), (0.0, 3.0), (0.9, 1.1), (-0.5, 0.5)]
    for drawn, (low, high) in zip(values, ranges, strict=True):
        shares = (drawn / ONE - low) / (high - low)
        assert kstest(shares, "uniform").pvalue > 0.01, (low, high)
        assert abs(np.corrcoef(shares, values[0])[0, 1]) < 0.04 or drawn is values[0]
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 0.01


def test_without_strength_or_chance_nothing_changes() -> None:
    for given in [(0.0, 0.0, 0.0, 0.0, 1.0), (*STRENGTHS, 0.0)]:
        *values, _ = jitter(bits(), *given)
        assert [np.unique(drawn).tolist() for drawn in values] == [[ONE], [ONE], [ONE], [0]]


def test_half_of_the_images_change_where_the_chance_is_half() -> None:
    *values, _ = jitter(bits(10_000), *STRENGTHS, 0.5)
    changed = values[0] != ONE
    assert 0.48 < changed.mean() < 0.52
    for drawn, neutral in zip(values, SAME.values(), strict=True):
        assert (drawn[~changed] == neutral).all(), "all four change together"


def test_pixels_and_draws_never_change_unnoticed() -> None:
    drawn = jitter(bits(), *STRENGTHS, 0.8)
    assert {
        "draws": crc32(np.column_stack(drawn)),
        "colour": crc32(color_jitter(images(shape=(3, 16, 16)), *drawn)),
        "grey": crc32(color_jitter(images(shape=(1, 16, 16)), *drawn)),
    } == {
        "draws": 2_515_508_341,
        "colour": 3_136_873_175,
        "grey": 500_102_557,
    }
