"""Networks by name: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.networks import refusal

# What is refused


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    assert "did you mean" in refusal("resnet21")
    assert "resnet20" in refusal("resnet21")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("conv", {"widht": 4}, "unknown argument 'widht'; it takes width (int, default 16)"),
        ("conv", {"width": "4"}, "width must be int, got '4'"),
        ("conv", {"width": True}, "width must be int, got True"),
        ("conv", {"width": 0}, "width must be 1 or more, got 0"),
        ("mlp", {"hidden": -1}, "hidden must be 1 or more, got -1"),
        ("mlp", {"layers": 0}, "layers must be 1 or more, got 0"),
        ("mlp", {"layers": 1.5}, "layers must be int, got 1.5; it takes hidden (int, default 128)"),
        ("resnet20", {"width": 4}, "unknown argument 'width'; it takes none"),
    ],
)
def test_an_argument_that_cannot_be_right_is_named(name: str, args: dict[str, Any], said: str) -> None:
    assert said in refusal(name, **args)


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (1, 2, 3, 4)])
def test_a_shape_that_is_neither_image_nor_vector_is_refused(shape: tuple[int, ...]) -> None:
    assert "input_shape must be (C, H, W) or (F,)" in refusal("linear", shape)


def test_a_network_needs_a_class() -> None:
    assert "num_classes must be 1 or more, got 0" in refusal("linear", num_classes=0)
