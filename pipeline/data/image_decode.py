"""An image file → its pixels (C, H, W): decoded by Pillow, whatever its format, and refused by its name."""

from __future__ import annotations

import errno
import io
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, __version__, features

from decant.cache.io.files import remedy
from decant.cache.io.opening import open_at_once
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.found_images import readable_formats
from decant.pipeline.data.image_pixels import MOST_PIXELS, fit, in_colours, pixels_of
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

DECODING = 2
"""Counted up when `decode` makes other pixels of the same file; 2 turns images as their orientation says."""

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
    return _decode(lambda: open_at_once(path), path, views)


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
    return _opened(opened, path, lambda image: pixels_of(fit(in_colours(image, views.channels or 3), views)))


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


def _require_pixels(path: object, image: Image.Image) -> None:
    """Raises DataError for an image that by its header has no pixels, or so many that they would fill the memory: a
    file of a few hundred bytes can say so.
    """
    count = image.width * image.height
    if not count:
        raise DataError(f"{path}: not a readable image (it has no pixels)")
    if count > MOST_PIXELS or max(image.size) > _LONGEST:
        raise DataError(
            f"{path}: {image.width:,} × {image.height:,} pixels, and at most {MOST_PIXELS:,} are decoded, "
            f"{_LONGEST:,} in a line; scale the image down"
        )


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
