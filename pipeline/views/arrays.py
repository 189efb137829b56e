"""Arithmetic of the pixel operations: fixed-point, on NumPy arrays and torch tensors alike.

Images are (B, C, H, W), a NumPy array or a torch tensor on any device; random parameters (offsets, sizes,
factors) are always NumPy arrays. Pixels are computed in 32-bit integers, so every device gives the same bytes.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Images = Any
"""(B, C, H, W) NumPy array or torch tensor; a function returns the kind that it was given."""

ONE = 1 << 16
"""1.0 in fixed point."""


def beside(values: NDArray[Any], images: Images) -> Any:
    """An array as one of the images' own library, on their device."""
    namespace = array_api_compat.array_namespace(images)
    return namespace.asarray(values, device=array_api_compat.device(images))


def per_image(values: NDArray[Any], images: Images) -> Any:
    """(B,) values as (B, 1, 1, 1), beside the images."""
    return beside(values.reshape(-1, 1, 1, 1), images)


def int32(images: Images) -> Images:
    """The same numbers in 32 bits."""
    namespace = array_api_compat.array_namespace(images)
    return namespace.astype(images, namespace.int32)


def blend(images: Images, others: Images, weight: NDArray[np.int64]) -> Images:
    """weight·images + (1 − weight)·others, rounded and clipped to uint8; `weight` (B,) in 65536ths, from −32
    to 32.

    Both hold integers 0 … 255 and broadcast against each other.
    """
    namespace = array_api_compat.array_namespace(images)
    share = per_image(weight.astype(np.int32), images)
    mixed = int32(images) * share + int32(others) * (ONE - share) + ONE // 2 >> 16
    return namespace.astype(namespace.clip(mixed, 0, 255), namespace.uint8)


def inside(
    images: Images,
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    height: NDArray[np.int64],
    width: NDArray[np.int64],
) -> Any:
    """(B, 1, H, W) bool, beside the images: which pixels lie in the box of each."""
    namespace, device = array_api_compat.array_namespace(images), array_api_compat.device(images)
    sides = beside(np.stack([top, top + height, left, left + width])[:, :, None], images)
    rows, columns = (namespace.arange(side, device=device) for side in images.shape[-2:])
    in_rows = (rows >= sides[0]) & (rows < sides[1])
    in_columns = (columns >= sides[2]) & (columns < sides[3])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]
