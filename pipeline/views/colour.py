"""Colour jitter in integers: brightness, contrast, saturation and hue of 8-bit pixels."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from decant.pipeline.config.augmentations import ColorJitter
from decant.pipeline.views.arrays import ONE, Images, beside, blend, int32, per_image
from decant.pipeline.views.boxes import Draw
from decant.pipeline.views.hashing import Bits, below, chance

_RECIPROCALS = ((1 << 30) // np.arange(256).clip(1)).astype(np.int32)
"""2³⁰ / n, for a division that every device does alike and fast."""


def apply_color_jitter(images: Images, bits: Bits, settings: ColorJitter) -> Images:
    """`color-jitter`: brightness, contrast, saturation and hue, in random order."""
    strengths = settings.brightness, settings.contrast, settings.saturation, settings.hue
    return color_jitter(images, *jitter(bits, *strengths, settings.p))


def color_jitter(
    images: Images, brightness: Draw, contrast: Draw, saturation: Draw, hue: Draw, order: Draw
) -> Images:
    """Images (B, C, H, W) uint8, C 1 or 3, with colours scaled as torchvision's ColorJitter does.

    Brightness, contrast and saturation (B,) are factors in 65536ths, of the distance from black, from the
    image's mean grey and from each pixel's grey; `hue` (B,) is in 65536ths of a turn. `order` (B, 4) says
    which comes first: 0 brightness, 1 contrast, 2 saturation, 3 hue. Grey images have neither of the last
    two.
    """
    namespace = array_api_compat.array_namespace(images)
    images = namespace.asarray(images, copy=True)
    steps: list[tuple[Any, Draw, int]] = [(_brightness, brightness, ONE), (_contrast, contrast, ONE)]
    if images.shape[1] == 3:
        steps += [(_saturation, saturation, ONE), (_hue, hue, 0)]
    for step in range(4):
        for which, (adjust, values, neutral) in enumerate(steps):
            chosen = np.flatnonzero((order[:, step] == which) & (values != neutral))
            if len(chosen):
                samples = beside(chosen, images)
                images[samples] = adjust(images[samples], values[chosen])
    return images


def jitter(
    bits: Bits, brightness: float, contrast: float, saturation: float, hue: float, p: float = 1.0
) -> tuple[Draw, Draw, Draw, Draw, Draw]:
    """(brightness, contrast, saturation, hue, order) of color_jitter, from bits (B, 16).

    Factors are uniform in max(0, 1 − strength) … 1 + strength, the hue in −hue … hue, the order is any of
    the 24. Without change with probability 1 − p.
    """
    changed = chance(bits[:, 8], p)
    values = []
    for draw, strength in enumerate((brightness, contrast, saturation)):
        low, high = round(max(0.0, 1 - strength) * ONE), round((1 + strength) * ONE)
        values.append(np.where(changed, low + below(bits[:, draw], high - low + 1), ONE))
    most = round(hue * ONE)
    turn = np.where(changed, below(bits[:, 3], 2 * most + 1) - most, 0)
    return values[0], values[1], values[2], turn, np.argsort(bits[:, 4:8], axis=1, kind="stable")


def grey(images: Images) -> Images:
    """(B, 1, H, W) int32: the luma of ITU-R 601, rounded as PIL does; of one channel, itself."""
    images = int32(images)
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    return 19_595 * red + 38_470 * green + 7_471 * blue + ONE // 2 >> 16


def _brightness(images: Images, factor: Draw) -> Images:
    namespace = array_api_compat.array_namespace(images)
    return blend(images, namespace.zeros_like(images[:, :1, :1, :1]), factor)


def _contrast(images: Images, factor: Draw) -> Images:
    namespace = array_api_compat.array_namespace(images)
    pixels = images.shape[2] * images.shape[3]
    total = namespace.sum(grey(images), axis=(1, 2, 3), keepdims=True, dtype=namespace.int64)
    return blend(images, (2 * total + pixels) // (2 * pixels), factor)


def _saturation(images: Images, factor: Draw) -> Images:
    return blend(images, grey(images), factor)


def _hue(images: Images, turn: Draw) -> Images:
    """Along the hexagon of HSV, a side of it ONE long; value and saturation stay as they are.

    Red is at 0, green at 2, blue at 4 of its six sides, and an angle in −1 … 5.
    """
    namespace = array_api_compat.array_namespace(images)
    red, green, blue = (int32(images[:, channel]) for channel in range(3))
    high = namespace.maximum(namespace.maximum(red, green), blue)
    low = namespace.minimum(namespace.minimum(red, green), blue)
    spread = high - low
    most_red = red == high
    most_green = (green == high) & ~most_red
    most_blue = ~(most_red | most_green)
    beyond = most_red * (green - blue) + most_green * (blue - red) + most_blue * (red - green)
    angle = 2 * ONE * int32(most_green) + 4 * ONE * int32(most_blue)
    angle += beyond * beside(_RECIPROCALS, images)[spread] >> 14
    angle += per_image((6 * turn % (6 * ONE)).astype(np.int32), images)[:, 0]
    angle -= 6 * ONE * int32(angle >= 5 * ONE)
    ramps = (abs(angle - 3 * ONE) - ONE, 2 * ONE - abs(angle - 2 * ONE), abs(angle - ONE) - ONE)
    turned = [low + (spread * namespace.clip(ramp, 0, ONE) + ONE // 2 >> 16) for ramp in ramps]
    return namespace.astype(namespace.stack(turned, axis=1), namespace.uint8)
