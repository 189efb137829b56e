"""Preprocessing is a part of the network: pixels are normalised, resized, and saved with what they need."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.preprocess import Preprocess
from decant.pipeline.networks.registry import build_by_name
from tests.helpers.networks import pixels

# Preprocessing


def test_uint8_images_are_normalised_as_pixels_between_0_and_1() -> None:
    images = pixels(2, 3, 4, 5)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    column = torch.tensor([mean, std]).view(2, 3, 1, 1)
    longhand = (images.float() / 255 - column[0]) / column[1]
    torch.testing.assert_close(Preprocess(mean, std)(images), longhand, rtol=1e-5, atol=1e-5)


def test_float_inputs_are_taken_as_they_are_and_left_untouched() -> None:
    features = torch.randn(6, 2)
    before = features.clone()
    normalised = Preprocess([1.0, -2.0], [2.0, 0.5])(features)
    torch.testing.assert_close(normalised, (before - torch.tensor([1.0, -2.0])) / torch.tensor([2.0, 0.5]))
    assert torch.equal(features, before), "the caller's tensor was written to"


def test_float_images_differ_from_uint8_ones_by_a_factor_of_255() -> None:
    preprocess = Preprocess([0.4], [0.2])
    images = pixels(2, 1, 8, 8)
    torch.testing.assert_close(preprocess(images.float() / 255), preprocess(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_become_the_dtype_of_the_network(dtype: torch.dtype) -> None:
    assert Preprocess([0.0], [1.0])(torch.zeros(2, 1, dtype=dtype)).dtype == torch.float32


@pytest.mark.parametrize("size", [None, (12, 10)])
def test_channels_last_stays_channels_last(size: tuple[int, int] | None) -> None:
    images = pixels(2, 3, 8, 8).to(memory_format=torch.channels_last)
    got = Preprocess([0.5] * 3, [0.5] * 3, size)(images)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(16, 12), (4, 4)])
def test_resizing_is_bilinear_and_antialiased_and_commutes_with_normalising(size: tuple[int, int]) -> None:
    images = pixels(2, 3, 8, 8)
    resized = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True) / 255
    got = Preprocess([0.5] * 3, [0.25] * 3, size)(images)
    torch.testing.assert_close(got, (resized - 0.5) / 0.25, rtol=1e-4, atol=1e-4)


def test_mean_and_std_are_saved_with_the_weights() -> None:
    network = build_by_name("linear", 2, input_shape=(2,), mean=[1.0, 2.0], std=[3.0, 4.0])
    state = network.state_dict()
    assert state["preprocess.mean"].tolist() == [1.0, 2.0]
    assert state["preprocess.std"].tolist() == [3.0, 4.0]


def test_integers_that_are_no_pixels_are_refused() -> None:
    with pytest.raises(TypeError, match=r"uint8 pixels or float features, got torch\.int64"):
        Preprocess([0.5], [0.5])(torch.zeros(1, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.5], [0.5, 0.5, 0.5], "mean has 1 values, the inputs have 3 channels"),
        ([0.5] * 3, [0.5], "mean has 3 values and std has 1"),
        ([0.5] * 3, [0.5, 0.0, 0.5], "std must be positive"),
    ],
)
def test_a_mean_or_std_that_cannot_be_right_is_refused(
    mean: list[float], std: list[float], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        build_by_name("resnet20", 10, input_shape=(3, 32, 32), mean=mean, std=std)
