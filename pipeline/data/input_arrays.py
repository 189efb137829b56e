"""What a dataset returns as an input, a PIL image or an array → an array (C, H, W), alike in all samples."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decant.cache import as_values
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.image_pixels import fit, in_colours, pixels_of
from decant.pipeline.errors import DataError


def to_array(value: Any, views: ViewsSettings, axes: str | None = None) -> NDArray[Any]:
    """(C, H, W) uint8 of an image, upright; float32 of floats.

    axes: the order of an array's axes, "CHW" or "HWC"; None refuses arrays that look like the second.
    """
    if isinstance(value, Image.Image):
        grey = value.mode in ("1", "L", "LA") or value.mode.startswith("I")
        return pixels_of(fit(in_colours(value, views.channels or (1 if grey else 3)), views))
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
