"""Operations that move pixels: crop, flip, scale. Parameters that are drawn for them are NumPy arrays, (B,) each."""

from __future__ import annotations

from collections.abc import Sequence

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.augmentations import CenterCrop, Flip, PadCrop, RandomResizedCrop
from decant.pipeline.views.arrays import Images, beside, inside, int32, per_image
from decant.pipeline.views.boxes import Box, Draw, draw_box, place_box
from decant.pipeline.views.hashing import Bits, below, chance

_WEIGHT_BITS = 11
"""Of each axis's weights: the sum of products of two axes and a pixel's 8 bits then fits into 32."""


def draw_pad_crop(bits: Bits, settings: PadCrop) -> Draw:
    """(B,): the offsets down and across as one number."""
    offsets = 2 * settings.padding + 1
    return below(bits[:, 0], offsets) * offsets + below(bits[:, 1], offsets)


def apply_pad_crop(images: Images, outcomes: Draw, settings: PadCrop) -> Images:
    """`pad-crop`: zeros on every side, then a crop of the original size at the offset that is drawn."""
    top, left = np.divmod(outcomes, 2 * settings.padding + 1)
    return pad_crop(images, settings.padding, top, left)


def draw_flip(bits: Bits, settings: Flip) -> Draw:
    """(B,): 1 with probability `p`, which is mirrored."""
    return chance(bits[:, 0], settings.p).astype(np.int64)


def apply_flip(images: Images, outcomes: Draw, settings: Flip) -> Images:
    """`flip`: mirrored left to right where the outcome is 1."""
    return flip(images, outcomes.astype(bool))


def apply_center_crop(images: Images, bits: Bits, settings: CenterCrop) -> Images:
    """`center-crop`: nothing is drawn."""
    return center_crop(images, settings.size)


def apply_random_resized_crop(images: Images, bits: Bits, settings: RandomResizedCrop) -> Images:
    """`random-resized-crop`: a random box, scaled to `size`, or to the size of the images."""
    shape = images.shape[-2:]
    box = resized_crop_box(bits, shape, settings.scale, settings.ratio)
    return resized_crop(images, *box, (settings.size, settings.size) if settings.size else shape)


def pad_crop(images: Images, padding: int, top: Draw, left: Draw) -> Images:
    """Crops, of the size that the images have, at (top, left) of the images padded with zeros.

    (B, C, H, W) of any dtype → the same. `top` and `left` are 0 … 2·padding.
    """
    count, channels, height, width = images.shape
    if isinstance(images, np.ndarray):
        padded = np.zeros((count, channels, height + 2 * padding, width + 2 * padding), images.dtype)
        padded[:, :, padding : padding + height, padding : padding + width] = images
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        return windows[np.arange(count), :, top, left]
    namespace, device = array_api_compat.array_namespace(images), array_api_compat.device(images)
    corners = beside(np.stack([top, left])[:, :, None] - padding, images)
    y, x = (
        namespace.clip(corner + namespace.arange(side, device=device), 0, side - 1)
        for corner, side in zip(corners, (height, width), strict=True)
    )
    samples = namespace.arange(count, device=device)[:, None, None]
    moved = namespace.permute_dims(images[samples, :, y[:, :, None], x[:, None, :]], (0, 3, 1, 2))
    sides = np.full(count, height), np.full(count, width)
    covered = inside(images, padding - top, padding - left, *sides)
    return namespace.where(covered, moved, namespace.zeros_like(moved))


def flip(images: Images, mirrored: NDArray[np.bool_]) -> Images:
    """The images whose `mirrored` (B,) is true turned left to right. (B, C, H, W) of any dtype → the same."""
    if isinstance(images, np.ndarray):
        images = images.copy()
        images[mirrored] = images[mirrored, ..., ::-1]
        return images
    namespace = array_api_compat.array_namespace(images)
    return namespace.where(per_image(mirrored, images), namespace.flip(images, axis=3), images)


def center_crop(images: Images, size: int) -> Images:
    """The size × size pixels in the middle; where the margins differ by one, that of the bottom or right is larger.

    (B, C, H, W) of any dtype → (B, C, size, size).
    """
    namespace = array_api_compat.array_namespace(images)
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return namespace.asarray(images[..., top : top + size, left : left + size], copy=True)


def resized_crop(
    images: Images, top: Draw, left: Draw, height: Draw, width: Draw, size: tuple[int, int]
) -> Images:
    """The box of each image, scaled to `size` (H', W'): (B, C, H, W) uint8 → (B, C, H', W') uint8.

    Bilinear between the centres of pixels, the edge of the box repeated beyond it, weights in 2048ths;
    without antialiasing, so a box that is larger than `size` is sampled.
    """
    namespace = array_api_compat.array_namespace(images)
    rows = _interpolated(namespace.permute_dims(images, (0, 2, 3, 1)), top, height, size[0])  # (B, H', W, C)
    both = _interpolated(namespace.permute_dims(rows, (0, 2, 1, 3)), left, width, size[1])  # (B, W', H', C)
    rounded = both + (1 << 2 * _WEIGHT_BITS - 1) >> 2 * _WEIGHT_BITS
    return namespace.permute_dims(namespace.astype(rounded, namespace.uint8), (0, 3, 2, 1))


def resized_crop_box(
    bits: Bits, shape: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> Box:
    """A random box of images of `shape` (H, W), from bits (B, 16).

    Distributed as torchvision's RandomResizedCrop: the share of the area is uniform in `scale`, width over
    height log-uniform in `ratio`; of 10 tries the first that fits, else as much of the middle as `ratio`
    allows.
    """
    height, width = draw_box(bits, shape[0] * shape[1], shape, scale, ratio)
    top, left = place_box(bits, shape, height, width)
    fallback = _middle(shape, ratio)
    missing = height == 0
    for values, value in zip((top, left, height, width), fallback, strict=True):
        values[missing] = value
    return top, left, height, width


def _interpolated(lines: Images, start: Draw, extent: Draw, size: int) -> Images:
    """(B, L, …) → (B, size, …) int32, 2048 times the value: lines `start` … `start` + `extent` − 1 scaled."""
    one = 1 << _WEIGHT_BITS
    centres = (2 * np.arange(size) + 1) * extent[:, None] - size  # of the new lines, in 1 / (2·size) old ones
    positions = np.maximum((centres * one + size) // (2 * size), 0)
    before, weight = positions >> _WEIGHT_BITS, positions & one - 1
    after = np.minimum(before + 1, extent[:, None] - 1)
    weights = beside(weight.astype(np.int32)[:, :, None, None], lines)
    first = int32(_lines(lines, start[:, None] + before))
    second = int32(_lines(lines, start[:, None] + after))
    return first * (one - weights) + second * weights


def _lines(lines: Images, positions: Draw) -> Images:
    """(B, L, …) and (B, L') → (B, L', …): of each sample the lines at its own places."""
    return lines[beside(np.arange(len(positions))[:, None], lines), beside(positions, lines)]


def _middle(shape: tuple[int, int], ratio: Sequence[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest box in the middle whose ratio is in range."""
    height, width = shape
    if width < ratio[0] * height:
        height = max(1, round(width / ratio[0]))
    elif width > ratio[1] * height:
        width = max(1, round(height * ratio[1]))
    return (shape[0] - height) // 2, (shape[1] - width) // 2, height, width
