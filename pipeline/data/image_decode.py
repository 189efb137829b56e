"""An image file, a PIL image or an array → an array (C, H, W): decoded, scaled, cropped."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__, features

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.errors import DataError


def decode(path: Path, views: ViewsSettings) -> NDArray[np.uint8]:
    """(3, H, W) uint8 of an image file. Raises DataError, naming the file, where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.info.pop("transparency", None)  # alpha is dropped; converting a palette would warn of it
            return _pixels(fit(_eight_bits(image).convert("RGB"), views))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from None


def decoder() -> str:
    """The libraries that `decode` uses, with their versions: others may give other pixels of the same file."""
    libraries = [f"{name} {features.version(name)}" for name in ("jpg", "libjpeg_turbo", "webp", "libtiff")]
    return ", ".join([f"Pillow {__version__}", *libraries, platform.machine()])


def fit(image: Image.Image, views: ViewsSettings) -> Image.Image:
    """The shorter side scaled to `views.resize`, then the `views.size` square in the middle."""
    if views.size is None:
        return image
    short, size = views.resize or views.size, views.size
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def to_array(value: Any, views: ViewsSettings) -> NDArray[Any]:
    """(C, H, W) uint8 of an image; float32 of floats."""
    if isinstance(value, Image.Image):
        value = _eight_bits(value)
        grey = value.mode in ("1", "L", "LA")
        return _pixels(fit(value.convert("L" if grey else "RGB"), views))
    array = np.asarray(value)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if array.dtype != np.uint8:
        raise TypeError(f"inputs must be images, uint8 or float arrays, found {array.dtype}")
    return resized(array[None], views)[0] if array.ndim == 3 else array


def alike(value: NDArray[Any], first: NDArray[Any], name: object) -> NDArray[Any]:
    """The input. Raises DataError where shape or dtype differ from those of the first."""
    if (value.shape, value.dtype) != (first.shape, first.dtype):
        raise DataError(
            f"{name}: {value.dtype} {value.shape}, where the first is {first.dtype} {first.shape}; all must be "
            "alike (views.size brings images to one size)"
        )
    return value


def resized(images: NDArray[np.uint8], views: ViewsSettings) -> NDArray[np.uint8]:
    """Images (N, C, H, W) at `views.size`."""
    if views.size is None or images.shape[-2:] == (views.size, views.size):
        return images
    channels = images.reshape(-1, *images.shape[-2:])
    fitted = np.stack([np.asarray(fit(Image.fromarray(channel), views)) for channel in channels])
    return fitted.reshape(*images.shape[:2], *fitted.shape[-2:])


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits in 8, which converting would cut off at 255 instead. Raises ValueError for floats."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, of a range that nobody says")
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65_535:
        raise ValueError(f"its pixels go from {pixels.min()} to {pixels.max()}, beyond 16 bits")
    return Image.fromarray((pixels >> 8).astype(np.uint8))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
