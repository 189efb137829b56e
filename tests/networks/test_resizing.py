"""Images resized for one network alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.networks import build_for, pixels, refusal


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sized_networks.py").write_text(
        "from torch import nn\n"
        "def fixed(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * 24 * 20, num_classes))\n"
        "def seen(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(__import__('math').prod(input_shape), num_classes))\n"
        "def theirs(num_classes, input_shape, size):\n"
        "    return nn.Sequential(nn.Upsample((size, size)), nn.Flatten(), nn.Linear(3 * size**2, num_classes))\n"
        "def anything(num_classes, input_shape, **more):\n"
        "    return theirs(num_classes, input_shape, more['size'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("size", [24, [24, 20]])
@pytest.mark.parametrize("name", ["mlp", "conv", "sized_networks:seen"])
def test_any_network_sees_images_of_its_size(own: None, name: str, size: Any) -> None:
    network = build_for(name, (3, 8, 8), size=size).eval()
    images = pixels(2, 3, 8, 8)
    wanted = tuple(size) if isinstance(size, list) else (size, size)
    assert network.preprocess(images).shape == (2, 3, *wanted)
    assert network(images).shape == (2, 10)
    resized = nn.functional.interpolate(images.float(), size=wanted, mode="bilinear", antialias=True) / 255
    torch.testing.assert_close(network.preprocess(images), (resized - 0.5) / 0.25, rtol=1e-4, atol=1e-4)


def test_a_function_of_one_size_takes_other_images(own: None) -> None:
    assert "; where it needs images of another size, give it `size`" in refusal(
        "sized_networks:fixed", (3, 8, 8)
    )
    assert build_for("sized_networks:fixed", (3, 8, 8), size=[24, 20])(pixels(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", ["sized_networks:theirs", "sized_networks:anything"])
def test_a_function_that_takes_size_is_given_it(own: None, name: str) -> None:
    network = build_for(name, (3, 8, 8), size=12)
    assert network.preprocess.size is None
    assert network.preprocess(pixels(2, 3, 8, 8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("interpolation", ["bicubic", "nearest"])
def test_images_are_resized_by_the_interpolation_that_is_named(interpolation: str) -> None:
    images = pixels(2, 3, 8, 8)
    network = build_for("linear", (3, 8, 8), size=16, interpolation=interpolation)
    how: dict[str, Any] = (
        {"mode": "nearest-exact"}
        if interpolation == "nearest"
        else {"mode": interpolation, "antialias": True}
    )
    resized = nn.functional.interpolate((images / 255 - 0.5) / 0.25, size=(16, 16), **how)
    torch.testing.assert_close(network.preprocess(images), resized, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "args", "says"),
    [
        ((3, 8, 8), {"size": 0}, "size: must be a number of pixels, or [height, width], got 0"),
        ((3, 8, 8), {"size": [8]}, "size: must be a number of pixels, or [height, width], got [8]"),
        ((3, 8, 8), {"size": "large"}, "size: must be a number of pixels"),
        ((3, 8, 8), {"size": True}, "size: must be a number of pixels"),
        ((3, 8, 8), {"interpolation": "bicubic"}, "interpolation: says how images are resized, to `size`"),
        ((3, 8, 8), {"size": 9, "interpolation": "lanczos"}, "one of bilinear, bicubic, nearest"),
        ((5,), {"size": 8}, "size: resizes images, and the data has inputs of shape (5,)"),
    ],
)
def test_what_is_no_size_is_refused(shape: tuple[int, ...], args: dict[str, Any], says: str) -> None:
    assert says in refusal("linear", shape, **args)


def test_a_network_of_torchvision_that_takes_one_size_alone() -> None:
    args: dict[str, Any] = {"image_size": 32}
    assert "Expected 32 but got 16" in refusal("torchvision:vit_b_32", (3, 16, 16), **args)
    network = build_for("torchvision:vit_b_32", (3, 16, 16), size=32, **args)
    assert network.preprocess.size == (32, 32)
