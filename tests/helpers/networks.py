"""Networks and images of any shape, and the words of a refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.preprocess import Network
from decant.pipeline.networks.registry import build_by_name


def build_for(name: str, input_shape: tuple[int, ...], num_classes: int = 10, **args: Any) -> Network:
    """A network by its name, for inputs of a shape."""
    size = input_shape[0]
    return build_by_name(
        name, num_classes, input_shape=input_shape, mean=[0.5] * size, std=[0.25] * size, **args
    )


def pixels(*shape: int) -> Tensor:
    """Random uint8 images."""
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def refusal(name: str, input_shape: tuple[int, ...] = (3, 32, 32), **args: Any) -> str:
    """Why the network cannot be built."""
    with pytest.raises(ModelError) as caught:
        build_for(name, input_shape, **args)
    assert "\n" not in str(caught.value), "an error is one line"
    assert str(caught.value).startswith(f"network {name!r}: ")
    return str(caught.value)
