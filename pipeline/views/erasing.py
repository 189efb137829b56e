"""Operations that fill a box of each image: cutout and random erasing."""

from __future__ import annotations

from collections.abc import Sequence

import array_api_compat
import numpy as np

from decant.pipeline.config.augmentations import Cutout, RandomErasing
from decant.pipeline.views.arrays import Images, inside
from decant.pipeline.views.boxes import COUNTERS, Box, Draw, draw_box, place_box
from decant.pipeline.views.hashing import Bits, below, chance


def apply_cutout(images: Images, bits: Bits, settings: Cutout) -> Images:
    """`cutout`: a square of zeros, its centre anywhere in the image."""
    return cutout(images, settings.size, *cutout_corner(bits, images.shape[-2:], settings.size))


def apply_random_erasing(images: Images, bits: Bits, settings: RandomErasing) -> Images:
    """`random-erasing`: a random box filled with `value` with probability `p`."""
    box = erasing_box(bits, images.shape[-2:], settings.p, settings.scale, settings.ratio)
    return erase(images, *box, settings.value)


def cutout(images: Images, size: int, top: Draw, left: Draw) -> Images:
    """Zeros in the square of `size` at (top, left), each (B,), which may lie partly outside.

    (B, C, H, W) of any dtype → the same. Source: DeVries, Taylor (2017).
    """
    side = np.full(len(top), size)
    return erase(images, top, left, side, side)


def cutout_corner(bits: Bits, shape: tuple[int, int], size: int) -> tuple[Draw, Draw]:
    """(top, left) of squares whose centre is any pixel of an image of `shape` (H, W), from bits (B, 16)."""
    return below(bits[:, 0], shape[0]) - size // 2, below(bits[:, 1], shape[1]) - size // 2


def erase(images: Images, top: Draw, left: Draw, height: Draw, width: Draw, value: int = 0) -> Images:
    """`value` in the box of each image, which may lie partly outside. (B, C, H, W) of any dtype → the same."""
    namespace = array_api_compat.array_namespace(images)
    filled = namespace.full_like(images[:1, :1, :1, :1], value)
    return namespace.where(inside(images, top, left, height, width), filled, images)


def erasing_box(
    bits: Bits, shape: tuple[int, int], p: float, scale: Sequence[float], ratio: Sequence[float]
) -> Box:
    """With probability `p` a random box of images of `shape` (H, W), else one of no size, from bits (B, 16).

    Distributed as torchvision's RandomErasing: the share of the area is uniform in `scale`, height over width
    log-uniform in `ratio`; of 10 tries the first with sides shorter than the image's. Where there is none,
    nothing is erased. Source: Zhong et al. (2020), algorithm 1.
    """
    shorter = shape[0] - 1, shape[1] - 1
    height, width = draw_box(bits, shape[0] * shape[1], shorter, scale, (1 / ratio[1], 1 / ratio[0]))
    erased = chance(bits[:, COUNTERS], p)
    height, width = height * erased, width * erased
    return *place_box(bits, shape, height, width), height, width
