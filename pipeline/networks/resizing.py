"""`size` and `interpolation`: the arguments of any network that has images resized for it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.builders import Shape
from decant.pipeline.support.signatures import signature

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


class Resize(NamedTuple):
    """The size (H, W) that a network's images are resized to, None where they stay as they are, and how."""

    size: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def of(self, input_shape: Shape) -> Shape:
        """The shape that the network itself is given, of inputs of `input_shape`.

        >>> Resize((64, 64)).of((3, 16, 16))
        (3, 64, 64)
        """
        return input_shape if self.size is None else (input_shape[0], *self.size)


def takes_size(function: Callable[..., Any]) -> bool:
    """Whether a function has a meaning of its own for `size`, or takes any argument.

    >>> takes_size(lambda num_classes, input_shape: None), takes_size(lambda **more: None)
    (False, True)
    """
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.name == "size" or one.kind is one.VAR_KEYWORD for one in parameters)


def split_resize(args: dict[str, Any], input_shape: Shape) -> tuple[Resize, dict[str, Any]]:
    """What `size` (a number, or [H, W]) and `interpolation` among a network's arguments say, and the other arguments.
    Raises ModelError for what is no size or interpolation, and for inputs that are no images.

    >>> split_resize({"size": 64, "width": 8}, (3, 16, 16))
    (Resize(size=(64, 64), interpolation='bilinear'), {'width': 8})
    """
    rest = dict(args)
    size, interpolation = rest.pop("size", None), rest.pop("interpolation", None)
    if size is None and interpolation is None:
        return Resize(), rest
    if len(input_shape) != 3:
        given = "interpolation" if size is None else "size"
        raise ModelError(f"{given}: resizes images, and the data has inputs of shape {input_shape}")
    if size is None and not (rest.get("weights") or rest.get("pretrained")):
        raise ModelError("interpolation: says how images are resized, to `size`, which is missing")
    if interpolation not in (None, *INTERPOLATIONS):
        raise ModelError(f"interpolation: must be one of {', '.join(INTERPOLATIONS)}, got {interpolation!r}")
    return Resize(None if size is None else _size(size), interpolation or "bilinear"), rest


def _size(value: object) -> tuple[int, int]:
    sides = [value, value] if type(value) is int else value
    if isinstance(sides, list | tuple) and len(sides) == 2:
        height, width = sides
        if type(height) is int and type(width) is int and min(height, width) > 0:
            return height, width
    raise ModelError(f"size: must be a number of pixels, or [height, width], got {value!r}")
