"""What an operation of `views.augment` does to a batch of images, by the function that its settings name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from decant.pipeline.config.augmentations import Countable, Mixing, Operation
from decant.pipeline.support.plugins import shipped
from decant.pipeline.views.arrays import Images
from decant.pipeline.views.hashing import Bits


def apply(operation: Operation, images: Images, bits: Bits) -> Images:
    """Images (B, C, H, W) after an operation that takes one sample at a time; bits (B, 16) decide how."""
    if isinstance(operation, Countable):
        return enact(operation, images, outcome(operation, bits))
    return _load(operation.function)(images, bits, operation)


def mix(
    operation: Mixing, images: Images, partners: Images, bits: Bits
) -> tuple[Images, NDArray[np.float64]]:
    """Images (B, C, H, W) mixed with those of their partners, and the share (B,) that each keeps of its own
    label.
    """
    mixed: tuple[Images, NDArray[np.float64]]
    mixed = _load(operation.function)(images, partners, bits, operation)
    return mixed


def outcome(operation: Countable, bits: Bits) -> NDArray[np.int64]:
    """(B,): which of its outcomes an operation has, counted from 0; bits (B, 16) decide."""
    drawn: NDArray[np.int64] = _load(operation.draw)(bits, operation)
    return drawn


def enact(operation: Countable, images: Images, outcomes: NDArray[np.int64]) -> Images:
    """Images (B, C, H, W) after the outcomes (B,) of an operation."""
    return _load(operation.function)(images, outcomes, operation)


def unsupported(operation: Operation, input_shape: tuple[int, ...], dtype: DTypeLike) -> str | None:
    """Why an operation cannot work on inputs of this shape and dtype, or None where it can."""
    if len(input_shape) != 3:
        return f"works on images (C, H, W), the inputs are {tuple(input_shape)}"
    channels, height, width = input_shape
    if np.dtype(dtype) != np.uint8 and not operation.any_dtype:
        return f"works on uint8 images, these are {np.dtype(dtype)}"
    if channels not in (1, 3) and not operation.any_channels:
        return f"works on images of 1 or 3 channels, these have {channels}"
    return operation.misfit(height, width)


@functools.cache
def _load(function: str) -> Callable[..., Any]:
    """The function, looked up once: batches of small images take less time than many look-ups."""
    return shipped(f"decant.pipeline.views.{function}")
