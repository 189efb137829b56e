"""An image file, a PIL image or an array → an array (C, H, W): decoded, scaled, cropped."""

from __future__ import annotations

import errno
import io
import os
import platform
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, __version__, features

from decant.cache import as_values
from decant.cache.io.files import remedy
from decant.cache.io.opening import open_read
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.found_images import readable_formats
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

DECODING = 2
"""Counted up when `decode` makes other pixels of the same file; 2 turns images as their orientation says."""

_ORIENTATION = 0x0112  # EXIF's tag
_FEW_LEVELS = 4096  # of 65,536, below which an image of 16 bits is nearly black in 8
_MOST_PIXELS = 89_478_485  # of a file, above which Pillow suspects that it is made to fill the memory
_LONGEST = 1_000_000  # pixels of a side; a line takes memory beside its pixels
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF", "TIFF"}  # and not the preview that a camera puts into a JPEG
T = TypeVar("T")
_OF_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}
"""Errors that are not of the content of a file."""
_POINTER = b"version https://git-lfs"


def decode(path: Path, views: ViewsSettings) -> NDArray[np.uint8]:
    """(3, H, W) uint8 of an image file, or (1, H, W) with `views.channels = 1`: turned upright as its EXIF orientation
    says; of an animation or several pages the first; alpha is dropped. Raises DataError, naming the file, where it
    cannot be read, or has too many pixels.
    """
    return _decode(lambda: open_read(path), path, views)


def decode_bytes(content: bytes, name: object, views: ViewsSettings) -> NDArray[np.uint8]:
    """The same of the content of an image file; `name` says in messages which it is."""
    return _decode(lambda: io.BytesIO(content), name, views)


def open_image(opened: Callable[[], IO[bytes]], name: object) -> Image.Image:
    """The image of a file, its pixels as they are stored: of the formats that are decoded alone. `opened` opens it, and
    `name` says in messages which it is. Raises DataError as `decode` does.
    """

    def loaded(image: Image.Image) -> Image.Image:
        image.load()
        return image.copy()

    return _opened(opened, name, loaded)


def _decode(opened: Callable[[], IO[bytes]], path: object, views: ViewsSettings) -> NDArray[np.uint8]:
    return _opened(opened, path, lambda image: _pixels(fit(_in_colours(image, views.channels or 3), views)))


def _opened(opened: Callable[[], IO[bytes]], path: object, use: Callable[[Image.Image], T]) -> T:
    """What `use` makes of an image file. Raises DataError, naming it, for whatever is wrong with it."""
    try:
        with opened() as file, Image.open(file, formats=readable_formats()) as image:
            _require_pixels(path, image)
            if image.format in _ANIMATED and getattr(image, "is_animated", False):
                say_once(
                    f"{path}: has several frames or pages; the first is taken, here and of other files",
                    "frames",
                )
            return use(image)
    except MemoryError:
        raise DataError(
            f"{path}: out of memory while it was decoded; scale the image down, or set views.size lower"
        ) from None
    except DataError:
        raise
    except OSError as error:
        if error.errno in _OF_SYSTEM:
            what = f"; {hint}" if (hint := remedy(error)) else ""
            raise DataError(f"{path}: cannot be read ({os.strerror(error.errno)}){what}") from None
        raise DataError(f"{path}: not a readable image ({_reason(opened, error)})") from None
    except Exception as error:  # a damaged file ends in any error of what decodes it
        raise DataError(f"{path}: not a readable image ({_reason(opened, error)})") from None


def decoder() -> str:
    """The version of `decode` and of the libraries that it uses: others may give other pixels of the same file."""
    names = ["jpg", "libjpeg_turbo", "webp", "libtiff", "jpg_2000"] + ["avif"] * ("avif" in features.modules)
    libraries = [f"{name} {features.version(name)}" for name in names]
    return ", ".join([f"Pillow {__version__}", *libraries, platform.machine(), f"decoding {DECODING}"])


def fit(image: Image.Image, views: ViewsSettings) -> Image.Image:
    """Scaled, then the middle of `views.size` cut out: a square after the shorter side was brought to `views.resize`,
    a rectangle (H, W) from the smallest image of the same shape that covers it.
    """
    if views.size is None:
        return image
    height, width = (views.size, views.size) if isinstance(views.size, int) else views.size
    if height * width > _MOST_PIXELS:
        raise ValueError(f"views.size: {height:,} × {width:,} pixels are more than {_MOST_PIXELS:,}")
    short = views.resize or min(height, width)
    if isinstance(views.size, int):
        scale = short / min(image.size)
        scaled = max(short, round(image.width * scale)), max(short, round(image.height * scale))
    else:
        scale = max(width / image.width, height / image.height)
        scaled = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if scaled[0] * scaled[1] > _MOST_PIXELS:
        return _middle(image, (width, height), scaled)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
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


def to_array(value: Any, views: ViewsSettings, axes: str | None = None) -> NDArray[Any]:
    """(C, H, W) uint8 of an image, upright; float32 of floats.

    axes: the order of an array's axes, "CHW" or "HWC"; None refuses arrays that look like the second.
    """
    if isinstance(value, Image.Image):
        grey = value.mode in ("1", "L", "LA") or value.mode.startswith("I")
        return _pixels(fit(_in_colours(value, views.channels or (1 if grey else 3)), views))
    array = np.asarray(as_values(value))
    floats = np.issubdtype(array.dtype, np.floating)
    if (not floats and array.dtype != np.uint8) or not array.ndim or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"inputs must be images, uint8 or float arrays, found {_kind_of(value, array)}")
    if array.ndim == 3 or (array.ndim == 2 and axes == "HWC"):
        array = _channels_first(array, axes)
    if floats and views.channels is not None and array.ndim == 3 and len(array) != views.channels:
        raise ValueError(
            f"views.channels = {views.channels}: is for images of uint8, found floats of {array.shape}"
        )
    if floats:
        return array.astype(np.float32)
    return resized(array[None], views)[0] if array.ndim == 3 else array


def _kind_of(value: object, array: NDArray[Any]) -> str:
    """What is no input, in words, and what to do about it."""
    if isinstance(value, str | bytes | Path):
        return f"{type(value).__name__} {textwrap.shorten(str(value), 60)}: open the image in the dataset, as with PIL"
    if isinstance(value, np.ma.MaskedArray):
        return "a masked array: give what is to stand in its place, as with filled()"
    if array.dtype.kind in "OUSV":
        return type(value).__name__
    if not array.ndim:
        return "a single number"
    pixels = array.ndim == 3 and array.dtype.kind in "iub"
    return f"{array.dtype}{'; give pixels of 0 to 255 as uint8' if pixels else ''}"


def alike(value: NDArray[Any], first: NDArray[Any], name: object) -> NDArray[Any]:
    """The input. Raises DataError where shape or dtype differ from those of the first."""
    if (value.shape, value.dtype) != (first.shape, first.dtype):
        other_channels = value.ndim == first.ndim == 3 and len(value) != len(first)
        setting = (
            "views.channels brings images to one number of channels"
            if other_channels
            else "views.size brings images to one size"
        )
        raise DataError(
            f"{name}: {value.dtype} {value.shape}, where the first is {first.dtype} {first.shape}; all must be "
            f"alike ({setting})"
        )
    return value


def resized(images: NDArray[np.uint8], views: ViewsSettings) -> NDArray[np.uint8]:
    """Images (N, C, H, W) at `views.size`, in `views.channels`. Raises ValueError where they have no colours to bring
    to those.
    """
    images = _recoloured(images, views.channels)
    size = (views.size, views.size) if isinstance(views.size, int) else views.size
    if size is None or images.shape[-2:] == size:
        return images
    channels = images.reshape(-1, *images.shape[-2:])
    fitted = np.stack([np.asarray(fit(Image.fromarray(channel), views)) for channel in channels])
    return fitted.reshape(*images.shape[:2], *fitted.shape[-2:])


def _recoloured(images: NDArray[np.uint8], channels: int | None) -> NDArray[np.uint8]:
    """(N, C, H, W) → (N, channels, H, W): grey three times over, or colours as grey."""
    found = images.shape[1]
    if channels is None or channels == found:
        return images
    if found == 1:
        return np.repeat(images, channels, axis=1)
    if found != 3:
        raise ValueError(f"views.channels = {channels}: is for grey and RGB images, found {found} channels")
    grey = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).convert("L"))
        for image in images
    ]
    return np.stack(grey)[:, None]


def _channels_first(array: NDArray[Any], axes: str | None) -> NDArray[Any]:
    """(C, H, W). Raises ValueError where `axes` is not given and the channels seem to come last."""
    if axes == "HWC":
        return np.ascontiguousarray(array.transpose(2, 0, 1) if array.ndim == 3 else array[None])
    if axes is None and array.shape[2] in (1, 3, 4) and array.shape[0] > 4:
        raise ValueError(
            f"an array of shape {array.shape} seems to be (H, W, C), and inputs are (C, H, W): set "
            'data.axes = "HWC", or "CHW" where this is what it is'
        )
    return array


def _in_colours(image: Image.Image, channels: int) -> Image.Image:
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


def _require_pixels(path: object, image: Image.Image) -> None:
    """Raises DataError for an image that by its header has no pixels, or so many that they would fill the memory: a
    file of a few hundred bytes can say so.
    """
    count = image.width * image.height
    if not count:
        raise DataError(f"{path}: not a readable image (it has no pixels)")
    if count > _MOST_PIXELS or max(image.size) > _LONGEST:
        raise DataError(
            f"{path}: {image.width:,} × {image.height:,} pixels, and at most {_MOST_PIXELS:,} are decoded, "
            f"{_LONGEST:,} in a line; scale the image down"
        )


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _reason(opened: Callable[[], IO[bytes]], error: Exception) -> str:
    """Why a file cannot be read, in one line: what it is instead, where that can be told."""
    try:
        with opened() as file:
            begin = file.read(512)
    except OSError:
        return str(error)
    if not begin:
        return "an empty file"
    if begin.startswith(_POINTER):
        return "a Git LFS pointer, whose file was not fetched: run git lfs pull"
    if begin.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if isinstance(error, UnidentifiedImageError):  # whose message names an object of Python
        return "its content is of no image format that is read"
    return " ".join(str(error).split())
