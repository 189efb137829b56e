"""Whether an input holds the values that the teacher saw, in another layout or dtype.

The checksum of a cache is of bytes, and the same picture has other bytes as a uint8 array (H, W, C), as a tensor
(C, H, W), or as floats of `ToTensor`. What is taken as the same input:

- channels first or last, (C, H, W) or (H, W, C), with 1, 3 or 4 channels;
- pixels 0 to 255 as uint8, as any dtype with these whole numbers, or as floats that are exactly k / 255;
- floats of another precision, and token ids of another integer dtype, whose values are all the same.

Anything else is another input: a picture that was resized, cropped, mirrored, normalised or rounded is not the one that
the teacher saw. Each form is compared by its checksum, so another picture is taken with a probability of 2⁻³² a form.
A mismatch costs a few passes over one input; an input with the recorded bytes costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.inputs import as_values, input_crc32

_CHANNELS = (1, 3, 4)
_TURNED: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "its channels are in the reverse order, as BGR for RGB": lambda image: image[..., ::-1],
    "it is mirrored left to right": lambda image: image[:, ::-1],
    "it is mirrored top to bottom": lambda image: image[::-1],
    "its rows and columns are exchanged": lambda image: image.swapaxes(0, 1),
}
"""What may have happened to an image (H, W, C)."""


def matching_form(value: object, crc32: int, likely: str | None = None) -> str | None:
    """The name of the form of `value` that has this checksum, None where there is none. `likely` is tried first.

    >>> image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    >>> matching_form(np.float32(image.transpose(2, 0, 1)) / np.float32(255), input_crc32(image))
    'pixels, channels last'
    >>> matching_form(image[:, ::-1], input_crc32(image)) is None
    True
    """
    forms = dict(_forms(value))
    names = sorted(forms, key=lambda name: name != likely)
    return next((name for name in names if input_crc32(forms[name]()) == crc32), None)


def difference(value: object, crc32: int) -> str | None:
    """How `value` differs from the input with this checksum, in words, where its pixels show it."""
    array = _array(value)
    image = None if array is None or array.ndim not in (2, 3) else _channels_last(array)
    if image is not None:
        for words, turn in _TURNED.items():
            if matching_form(np.ascontiguousarray(turn(image)), crc32) is not None:
                return words
    return None


def unlike_pixels(value: object) -> str | None:
    """What an image that holds no pixels is, in words; None of any other input.

    >>> unlike_pixels(np.linspace(-2, 2, 48, dtype="f4").reshape(3, 4, 4))
    'it is float32 from -2 to 2, which are no pixels: normalised or resized after the teacher saw it (normalise in ...'
    """
    array = _array(value)
    if array is None or array.ndim not in (2, 3):
        return None
    if array.dtype.kind == "f" and array.size and not any(_pixels(array)):
        return (
            f"it is {array.dtype} from {array.min():.3g} to {array.max():.3g}, which are no pixels: normalised or "
            "resized after the teacher saw it (normalise in the training loop, after the dataset)"
        )
    return None


def _forms(value: object) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every other form of the same values, computed when it is called for."""
    if isinstance(value, Mapping):
        yield from _named_forms(value)
        return
    array = _array(value)
    if array is None:
        return
    for source, pixels in _pixels(array).items():
        for layout, image in _layouts(pixels):
            yield f"{source}, {layout}", partial(np.asarray, image)
            yield f"{source} / 255, {layout}", partial(_share, image, np.dtype("f4"))
            yield f"{source} / 255 in float64, {layout}", partial(_share, image, np.dtype("f8"))
            for name in ("f4", "f8", "i8"):
                yield f"{source} as {name}, {layout}", partial(image.astype, name)
    if array.dtype.kind == "f":
        for layout, image in _layouts(array):
            for name in ("f2", "f4", "f8"):
                with np.errstate(over="ignore"):
                    cast = image.astype(name)
                if np.array_equal(cast, image):
                    yield f"{name}, {layout}", partial(np.asarray, cast)


def _named_forms(named: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    arrays = {name: _array(value) for name, value in named.items()}
    found = {name: array for name, array in arrays.items() if array is not None}
    if len(found) < len(arrays):
        return
    for dtype in ("i8", "i4"):
        cast = {
            name: array.astype(dtype) if array.dtype.kind in "iub" else array for name, array in found.items()
        }
        if all(np.array_equal(array, cast[name]) for name, array in found.items()):
            yield f"ids as {dtype}", partial(dict, cast)


def _share(pixels: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    """Pixels as floats 0 to 1, as `ToTensor` makes them."""
    return np.asarray(pixels.astype(dtype) / dtype.type(255))


def _pixels(array: NDArray[Any]) -> dict[str, NDArray[np.uint8]]:
    """The values as whole numbers 0 to 255, by how they are read; empty where they are none."""
    if not array.size or array.dtype.kind not in "iuf":
        return {}
    if array.dtype == np.uint8:
        return {"pixels": array}
    least, most = array.min(), array.max()
    if not (least >= 0 and most <= 255):
        return {}
    found = {}
    if array.dtype.kind == "f" and most <= 1:
        share = np.rint(array.astype("f8") * 255)
        if np.array_equal(
            (share.astype("f4") / np.float32(255)).astype(array.dtype), array
        ) or np.array_equal((share / 255).astype(array.dtype), array):
            found["pixels"] = share.astype(np.uint8)
    whole = array.astype(np.uint8)
    if np.array_equal(whole, array):
        found["whole numbers"] = whole
    return found


def _layouts(image: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The image as it is, with channels last, and with channels first; both only where it can be such an image."""
    yield "as it is", image
    if image.ndim == 3 and image.shape[0] in _CHANNELS:
        yield "channels last", image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] in _CHANNELS:
        yield "channels first", image.transpose(2, 0, 1)


def _channels_last(array: NDArray[Any]) -> NDArray[Any] | None:
    """An image as (H, W, C)."""
    if array.ndim == 2:
        return array[..., None]
    if array.shape[0] in _CHANNELS:
        return array.transpose(1, 2, 0)
    return array if array.shape[2] in _CHANNELS else None


def _array(value: Any) -> NDArray[Any] | None:
    found = as_values(value)
    return np.asarray(found) if hasattr(found, "__array_interface__") else None
