"""Calls a transform as its library wants to be called, and puts its result where the value was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from decant.pipeline.errors import DataError
from decant.pipeline.own_loop.operations import ViewOperation
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import in_words

OneTransform: TypeAlias = Callable[[Any], Any]
"""Any callable of one value: a transform of torchvision or timm, a function of one's own."""

Transform: TypeAlias = (
    OneTransform
    | ViewOperation
    | Sequence[OneTransform | ViewOperation]
    | Mapping[str, Any]
    | Mapping[int, Any]
    | None
)
"""One transform, several that are applied in turn, {field: transform} of dictionaries or tuples, or none."""

Field: TypeAlias = str | int | None
"""The field of a dictionary or the place in a tuple that a transform takes; None for the input of a tuple, and for a
dictionary as a whole.
"""


def steps_of(transform: Transform) -> dict[Field, tuple[Any, ...]]:
    """The steps of a transform, by the field that they take.

    >>> steps_of({"image": abs}), steps_of([abs, int]), steps_of(None)
    ({'image': (<built-in function abs>,)}, {None: (<built-in function abs>, <class 'int'>)}, {})
    """
    if transform is None:
        return {}
    if isinstance(transform, Mapping):
        fields = (
            (field if isinstance(field, int) else str(field), inner) for field, inner in transform.items()
        )
        return {field: steps_of(inner).get(None, ()) for field, inner in fields}
    steps = tuple(transform) if isinstance(transform, list | tuple) else (transform,)
    wrong = next((step for step in steps if not callable(step) and not isinstance(step, ViewOperation)), None)
    if wrong is not None:
        raise TypeError(
            f"transform: expected a callable, a list of them or {{field: callable}}, found {wrong!r}"
        )
    return {None: steps}


def caller(transform: Any) -> OneTransform:
    """A function of one value that calls a transform of torchvision, timm, albumentations or transformers."""
    if is_of(transform, "albumentations"):
        return _Albumentations(transform)
    if is_of(transform, "transformers") and hasattr(transform, "preprocess"):
        return _ImageProcessor(transform)
    return transform


def is_of(value: object, library: str) -> bool:
    """Whether an object's class, or a class above it, is of a library; nothing is imported."""
    return any(kind.__module__.partition(".")[0] == library for kind in type(value).__mro__)


class _Albumentations:
    """`transform(image=array)["image"]`; images of PIL are given as arrays."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self.transform(**value)
        return self.transform(image=np.array(value))["image"]  # a copy: the array of an image is read-only


class _ImageProcessor:
    """`processor(image)["pixel_values"][0]`."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, value: Any) -> Any:
        return self.transform(value, return_tensors="pt")["pixel_values"][0]


def value_of(item: Any, field: Field) -> Any:
    """What a transform of `field` takes of an item. Raises DataError where there is no such field."""
    if field is None:
        return item[0] if isinstance(item, tuple | list) else item
    if isinstance(item, tuple | list):
        return item[_place_of(field, item)]
    if not isinstance(item, Mapping) or field not in item:
        found = f"fields {', '.join(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
        raise DataError(f"transform: no field {field!r} in the items of the dataset, which are {found}")
    return item[field]


def with_value(item: Any, field: Field, value: Any) -> Any:
    """The item with another value of `field`. Tuples stay tuples, named ones too."""
    if isinstance(item, tuple | list):
        place = 0 if field is None else _place_of(field, item)
        values = (*item[:place], value, *item[place + 1 :])
        return type(item)(*values) if hasattr(item, "_fields") else values
    if field is not None:
        return {**item, field: value}
    if isinstance(item, Mapping) and not isinstance(value, Mapping):
        raise DataError(
            f"transform: items of the dataset are dictionaries of {', '.join(map(str, item))}, and a transform of a "
            f"whole one must give a dictionary, gave {type(value).__name__}; {{field: transform}} takes one field"
        )
    return value


def _place_of(field: str | int, item: Any) -> int:
    """The place of a field in a tuple. Raises DataError where it has none."""
    names = getattr(item, "_fields", ())
    if field in names:
        return int(names.index(field))
    if isinstance(field, int) and 0 <= field < len(item):
        return field
    found = f"fields {', '.join(names)}" if names else f"a {type(item).__name__} of {len(item)}"
    raise DataError(f"transform: no field {field!r} in the items of the dataset, which are {found}")


def with_copy(item: Any, field: Field) -> Any:
    """The item with a copy of what a transform of `field` takes, where that can be changed in place.

    >>> pixels = np.zeros(2)
    >>> with_copy((pixels, 3), None)[0] is pixels, with_copy({"image": pixels}, "image")["image"] is pixels
    (False, False)
    """
    return with_value(item, field, _copied(value_of(item, field)))


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping) and type(value) is not dict:
        with contextlib.suppress(*RAISED):  # as of a mapping proxy, or of what is part of a graph
            return copy.deepcopy(value)  # of its own class, whose attributes a transform may ask for
    if isinstance(value, Mapping):
        return {name: _copied(inner) for name, inner in value.items()}
    if isinstance(value, Tensor):
        return value.clone()
    return value.copy() if isinstance(value, np.ndarray) or hasattr(value, "getbands") else value


def applied(function: OneTransform, item: Any, field: Field, name: str) -> Any:
    """The item after a callable of one of its values. Raises DataError, as `call` does."""
    if field is None and type(item) is tuple:  # the usual case, at the cost of the call
        return (call(function, item[0], name), *item[1:])
    return with_value(item, field, call(function, value_of(item, field), name))


def call(function: OneTransform, value: Any, name: str) -> Any:
    """`function(value)`. Raises DataError, naming the transform and the line of the user's code, where it fails."""
    try:
        return function(value)
    except DataError:
        raise
    except RAISED as error:  # a transform may raise anything
        hint = ""
        if isinstance(value, Mapping):
            hint = f"; the items are dictionaries of {', '.join(map(str, value))}: {{field: transform}} takes one field"
        raise DataError(f"transform {name}: failed on {_kind(value)} ({in_words(error)}){hint}") from error


def name_of(transform: Any) -> str:
    """How messages speak of a transform: the first line of its repr, or the name of a function."""
    name = getattr(transform, "__qualname__", None)
    text = str(name) if name else _first_line(repr(transform)).partition(" object at 0x")[0].lstrip("<")
    return text if len(text) <= 60 else f"{text[:59]}…"


def _first_line(text: str) -> str:
    """Of a container of several lines, as Compose, its name alone."""
    return text.partition("\n")[0].removesuffix("(")


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} {tuple(shape)}"
    return (
        f"{type(value).__name__} {value.size}"
        if hasattr(value, "getbands")
        else (f"a value of type {type(value).__name__}")
    )
