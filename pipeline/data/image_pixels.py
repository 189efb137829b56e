"""A PIL image → its pixels (C, H, W): upright, in grey or RGB, scaled and cropped.

A change of these pixels counts up `image_decode.DECODING`, which is part of the keys of caches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.support.notices import say_once

MOST_PIXELS = 89_478_485
"""Of an image, above which Pillow suspects that its file is made to fill the memory."""
_ORIENTATION = 0x0112  # EXIF's tag
_IN_WORDS = 1 << 14, 1 << 22
"""Fewest and most pixels of an image that is taken apart as words, which take memory beside it."""
_AT_ONCE = 1 << 14  # pixels: memory of that size is used again and again, and is not mapped anew
_FEW_LEVELS = 4096  # of 65,536, below which an image of 16 bits is nearly black in 8


def fit(image: Image.Image, views: ViewsSettings) -> Image.Image:
    """Scaled, then the middle of `views.size` cut out: a square after the shorter side was brought to `views.resize`,
    a rectangle (H, W) from the smallest image of the same shape that covers it.
    """
    if views.size is None:
        return image
    height, width = (views.size, views.size) if isinstance(views.size, int) else views.size
    if height * width > MOST_PIXELS:
        raise ValueError(f"views.size: {height:,} × {width:,} pixels are more than {MOST_PIXELS:,}")
    short = views.resize or min(height, width)
    if isinstance(views.size, int):
        scale = short / min(image.size)
        scaled = max(short, round(image.width * scale)), max(short, round(image.height * scale))
    else:
        scale = max(width / image.width, height / image.height)
        scaled = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if scaled[0] * scaled[1] > MOST_PIXELS:
        return _middle(image, (width, height), scaled)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    if scaled == (width, height):
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _middle(image: Image.Image, size: tuple[int, int], scaled: tuple[int, int]) -> Image.Image:
    """The middle of an image that is brought to `scaled`, without the rest, which may fill the memory: a line of 2 by
    100,000 pixels would become 224 by 11 million.
    """
    factors = [whole / now for whole, now in zip(image.size, scaled, strict=True)]
    starts = [(whole - part) // 2 for whole, part in zip(scaled, size, strict=True)]
    corner = [start * factor for start, factor in zip(starts, factors, strict=True)]
    end = [
        min(whole, (start + part) * factor)
        for whole, start, part, factor in zip(image.size, starts, size, factors, strict=True)
    ]
    return image.resize(size, Image.Resampling.BILINEAR, box=(corner[0], corner[1], end[0], end[1]))


def in_colours(image: Image.Image, channels: int) -> Image.Image:
    """An image that stands upright, in grey for one channel, else in RGB; what shows through where it is transparent
    are its own colours.
    """
    image = _upright(image)
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # alpha is dropped; converting a palette would warn of it
    image = _eight_bits(image)
    if channels == 1:
        return image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB").convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation says; as it is where that cannot be read."""
    image.load()  # which turns a TIFF itself
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises anything, and the pixels are none the worse
        return image
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of each EXIF orientation upright."""


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits in 8, which converting would cut off at 255 instead. Raises ValueError for floats."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, of a range that nobody says")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image)
    lowest, highest = int(pixels.min()), int(pixels.max())
    if lowest < 0 or highest > 65_535:
        raise ValueError(f"its pixels go from {lowest} to {highest}, beyond 16 bits")
    if 0 < highest < _FEW_LEVELS:
        say_once(
            f"warning: an image of 16 bits has no pixel above {highest:,} of 65,535, and is nearly black in 8 "
            "bits: write images of 8 bits, or scale their pixels to the whole range",
            about="16 bits",
        )
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """(C, H, W) of an image in grey or RGB."""
    if image.mode == "RGB" and _IN_WORDS[0] <= image.width * image.height <= _IN_WORDS[1]:
        return _channels_of_words(image)
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _channels_of_words(image: Image.Image) -> NDArray[np.uint8]:
    """(3, H, W) of an image in RGB, whose pixels are words of four bytes: half the time of picking every third byte."""
    words = np.frombuffer(image.tobytes("raw", "RGBX"), "<u4").reshape(image.height, image.width)
    found = np.empty((3, *words.shape), np.uint8)
    rows = max(1, _AT_ONCE // image.width)
    shifted = np.empty((rows, image.width), np.uint32)
    for first in range(0, image.height, rows):
        some = words[first : first + rows]
        for channel in range(3):
            found[channel, first : first + rows] = np.right_shift(some, 8 * channel, out=shifted[: len(some)])
    return found
