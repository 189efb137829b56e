"""Operations that mix two samples. The share of each is an exact fraction, the same for pixels and labels."""

from __future__ import annotations

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.augmentations import CutMix, Mixup
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional
from decant.pipeline.views.arrays import ONE, Images, blend, inside
from decant.pipeline.views.boxes import Box, Draw
from decant.pipeline.views.hashing import Bits, below, chance, uniform


def apply_mixup(
    images: Images, partners: Images, bits: Bits, settings: Mixup
) -> tuple[Images, NDArray[np.float64]]:
    """`mixup`: the weighted mean of two images, and the weight (B,) of each one's own label."""
    weight = mixup_weight(bits, settings.alpha, settings.p)
    return mixup(images, partners, weight), weight / ONE


def apply_cutmix(
    images: Images, partners: Images, bits: Bits, settings: CutMix
) -> tuple[Images, NDArray[np.float64]]:
    """`cutmix`: a box of another image, and the share (B,) of each one's own label."""
    shape = images.shape[-2:]
    box = cutmix_box(bits, shape, settings.alpha, settings.p)
    return cutmix(images, partners, *box), cutmix_share(*box[2:], shape)


def partner(bits: Bits, count: int) -> Draw:
    """(B,): the other sample of each, any of `count`, itself too, from bits (B, 16)."""
    return below(bits[:, 0], count)


def mixup(images: Images, partners: Images, weight: Draw) -> Images:
    """weight·images + (1 − weight)·partners, both (B, C, H, W) uint8; `weight` (B,) is in 65536ths, and the
    label's too. Source: Zhang et al. (2018), equation 1.
    """
    return blend(images, partners, weight)


def mixup_weight(bits: Bits, alpha: float, p: float = 1.0) -> Draw:
    """(B,) 0 … 65536: λ ~ Beta(alpha, alpha) with probability `p`, else 1, from bits (B, 16).

    Raises DataError where SciPy is not installed.
    """
    special = optional("scipy.special", "mixup", DataError)
    drawn = np.rint(special.betaincinv(alpha, alpha, uniform(bits[:, 2])) * ONE).astype(np.int64)
    return np.where(chance(bits[:, 1], p), drawn, ONE)


def cutmix(images: Images, partners: Images, top: Draw, left: Draw, height: Draw, width: Draw) -> Images:
    """The partners' pixels in the box of each image, its own elsewhere; both (B, C, H, W) of any dtype.

    Source: Yun et al. (2019), equation 1.
    """
    namespace = array_api_compat.array_namespace(images)
    return namespace.where(inside(images, top, left, height, width), partners, images)


def cutmix_box(bits: Bits, shape: tuple[int, int], alpha: float, p: float = 1.0) -> Box:
    """The box of each image of `shape` (H, W) that comes from its partner, from bits (B, 16).

    Its sides are √(1 − λ) of the image's, λ ~ Beta(alpha, alpha), its centre is any pixel; what lies outside
    is cut off. With probability 1 − p it has no size. Source: Yun et al. (2019), equation 2.
    """
    cut = np.sqrt((ONE - mixup_weight(bits, alpha, p)) / ONE)
    starts, extents = [], []
    for axis, side in enumerate(shape):
        extent = (side * cut).astype(np.int64)
        start = below(bits[:, 3 + axis], side) - extent // 2
        starts.append(start.clip(0, side))
        extents.append((start + extent).clip(0, side) - starts[-1])
    return starts[0], starts[1], extents[0], extents[1]


def cutmix_share(height: Draw, width: Draw, shape: tuple[int, int]) -> NDArray[np.float64]:
    """(B,): the share of each image of `shape` (H, W) that is its own, and of the label that is."""
    area = shape[0] * shape[1]
    return (area - height * width) / area
