"""The operations of `views.augment`: what each draws from the hash, and what it then does to a batch of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.augmentations import (
    Augmentation,
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    PadCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Transform,
    TrivialAugment,
)
from decant.pipeline.views import colour, erasing, external, geometry, mixing
from decant.pipeline.views.arrays import Images
from decant.pipeline.views.hashing import Bits, below, chance

Countable = PadCrop | Flip
"""Operations whose outcomes can be numbered: see `enumeration`."""

Mixing = Mixup | CutMix
"""Operations that take in another sample."""


def apply(operation: Augmentation, images: Images, bits: Bits) -> Images:
    """Images (B, C, H, W) after an operation that takes one sample at a time; bits (B, 16) decide how."""
    shape = images.shape[-2:]
    match operation:
        case PadCrop() | Flip():
            return enact(operation, images, outcome(operation, bits))
        case CenterCrop(size=size):
            return geometry.center_crop(images, size)
        case RandomResizedCrop(size=size, scale=scale, ratio=ratio):
            box = geometry.resized_crop_box(bits, shape, scale, ratio)
            return geometry.resized_crop(images, *box, (size, size) if size else shape)
        case ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, p=p):
            return colour.color_jitter(images, *colour.jitter(bits, brightness, contrast, saturation, hue, p))
        case Cutout(size=size):
            return erasing.cutout(images, size, *erasing.cutout_corner(bits, shape, size))
        case RandomErasing(p=p, scale=scale, ratio=ratio, value=value):
            return erasing.erase(images, *erasing.erasing_box(bits, shape, p, scale, ratio), value)
        case RandAugment(num_ops=num_ops, magnitude=magnitude):
            return _by_name("torchvision:RandAugment", images, bits, num_ops=num_ops, magnitude=magnitude)
        case TrivialAugment():
            return _by_name("torchvision:TrivialAugmentWide", images, bits)
        case Transform(name=name, args=args):
            return _by_name(name, images, bits, **args)
        case Mixup() | CutMix():
            raise TypeError(f"{operation.op} takes two samples: see `mix`")


def mix(
    operation: Mixing, images: Images, partners: Images, bits: Bits
) -> tuple[Images, NDArray[np.float64]]:
    """Images (B, C, H, W) mixed with those of their partners, and the share (B,) that each keeps of its own
    label.
    """
    match operation:
        case Mixup(alpha=alpha, p=p):
            weight = mixing.mixup_weight(bits, alpha, p)
            return mixing.mixup(images, partners, weight), weight / 65536
        case CutMix(alpha=alpha, p=p):
            shape = images.shape[-2:]
            box = mixing.cutmix_box(bits, shape, alpha, p)
            return mixing.cutmix(images, partners, *box), mixing.cutmix_share(*box[2:], shape)


def outcome(operation: Countable, bits: Bits) -> NDArray[np.int64]:
    """(B,): which of its outcomes an operation has, counted from 0."""
    match operation:
        case PadCrop(padding=padding):
            offsets = 2 * padding + 1
            return below(bits[:, 0], offsets) * offsets + below(bits[:, 1], offsets)
        case Flip(p=p):
            return chance(bits[:, 0], p).astype(np.int64)


def enact(operation: Countable, images: Images, outcomes: NDArray[np.int64]) -> Images:
    """Images (B, C, H, W) after the outcomes (B,) of an operation."""
    match operation:
        case PadCrop(padding=padding):
            top, left = np.divmod(outcomes, 2 * padding + 1)
            return geometry.pad_crop(images, padding, top, left)
        case Flip():
            return geometry.flip(images, outcomes.astype(bool))


def _by_name(name: str, images: Images, bits: Bits, **args: Any) -> Images:
    return external.seeded(external.resolve(name, args), images, bits, name)
