"""What every pixel operation is tried on, and what must hold for each."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decant.pipeline.views.hashing import Bits, choices

COUNT = 300


def images(
    count: int = COUNT, shape: tuple[int, ...] = (3, 9, 7), dtype: str = "uint8", seed: int = 0
) -> NDArray[Any]:
    """Random images; floats are from −1 to 1, so that a zero can have the wrong sign."""
    size = count * int(np.prod(shape))
    drawn = choices(seed, np.arange(-(-size // 128)), np.zeros(-(-size // 128), int), 0)  # 128 bytes each
    pixels = drawn.astype("<u8").view("uint8").reshape(-1)[:size].reshape(count, *shape)
    return (pixels / 127.5 - 1).astype("float32") if dtype == "float32" else pixels


def bits(count: int = COUNT, place: int = 0, seed: int = 0) -> Bits:
    return choices(seed, np.arange(count), np.zeros(count, int), place)


def longhand_choices(seed: int, index: int, view: int, operation: int) -> list[int]:
    """The bits of a sample's view for an operation, in Python's own integers."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(value: int) -> int:
        value = (value + golden) & mask
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return value ^ value >> 31

    key = mix((mix((mix(seed) + index) & mask) + view) & mask)
    return [mix((key + (16 * operation + place) * golden) & mask) for place in range(16)]


def operate(function: Callable[..., Any], inputs: NDArray[Any], *per_image: NDArray[Any]) -> NDArray[Any]:
    """`function(inputs, *per_image)`, once it is known to be the same for tensors, whatever the batch, and to
    leave its inputs alone.
    """
    given, draws = inputs.copy(), [values.copy() for values in per_image]
    found = function(inputs, *per_image)
    assert isinstance(found, np.ndarray)
    assert not np.shares_memory(found, inputs)
    on_torch = function(torch.from_numpy(inputs), *map(_tensor_of_images, per_image))
    assert isinstance(on_torch, torch.Tensor)
    assert on_torch.dtype == torch.from_numpy(found).dtype
    assert on_torch.numpy().tobytes() == found.tobytes(), "a tensor has other pixels than an array"
    for size in (1, 7, 256):
        for start in range(0, len(inputs), size):
            part = slice(start, start + size)
            alone = function(inputs[part], *(values[part] for values in per_image))
            assert alone.tobytes() == found[part].tobytes(), f"images {start} … in batches of {size}"
    assert function(inputs[:0], *(values[:0] for values in per_image)).shape[0] == 0
    assert inputs.tobytes() == given.tobytes(), "the inputs were changed"
    for values, before in zip(per_image, draws, strict=True):
        assert np.array_equal(values, before), "the draws were changed"
    return found


def draw(function: Callable[[Bits], Any], given: Bits) -> tuple[NDArray[np.int64], ...]:
    """What `function` draws, as a tuple of (B,) or (B, …) int64, once it is known to be each sample's own."""
    found = _tuple(function(given))
    for size in (1, 7, 256):
        for start in range(0, COUNT, size):
            part = slice(start, min(start + size, COUNT))
            for whole, alone in zip(found, _tuple(function(given[part])), strict=True):
                assert np.array_equal(whole[part], alone), f"samples {start} … in batches of {size}"
    for values, none in zip(found, _tuple(function(given[:0])), strict=True):
        assert values.dtype == none.dtype == np.int64
        assert len(none) == 0
    return found


def crc32(found: NDArray[Any]) -> int:
    """Of the pixels, to see that they never change."""
    return zlib.crc32(np.ascontiguousarray(found).tobytes())


def _tensor_of_images(values: NDArray[Any]) -> Any:
    """Images beside the images are tensors too; what is drawn never is."""
    return torch.from_numpy(values) if values.ndim == 4 else values


def _tuple(found: Any) -> tuple[NDArray[np.int64], ...]:
    return found if isinstance(found, tuple) else (found,)
