"""An item of a dataset of the user's → its input and its label."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from decant.cache import pick, recognise

Keys = tuple[str | int, str | int]
"""Where input and label lie in an item: names in a dictionary, places in a tuple."""


def split_item(item: Any, keys: Keys | None = None) -> tuple[Any, Any]:
    """Input and label: of a pair, of `keys`, of a named tuple by its names; the label of an input alone in a tuple is
    None. Raises TypeError where it is not known where they are.

    >>> split_item(("pixels", 3)), split_item({"image": "pixels", "label": 3}, ("image", "label"))
    (('pixels', 3), ('pixels', 3))
    >>> split_item(("pixels",))
    ('pixels', None)
    >>> split_item({"image": "pixels", "label": 3})
    Traceback (most recent call last):
        ...
    TypeError: items must be (input, label), found a dictionary of image, label; set data.keys = ["image", "label"]
    """
    if keys is not None:
        try:
            return pick(item, keys)
        except TypeError:
            raise TypeError(f"data.keys = {list(keys)}: the item is {_described(item)}") from None
    if isinstance(item, tuple | list) and (where := recognise(item)) is not None:
        return pick(item, where)
    raise TypeError(f"items must be (input, label), found {_described(item)}{_hint(item)}")


def _described(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"a dictionary of {textwrap.shorten(', '.join(map(str, item)), 80) or 'nothing'}"
    if isinstance(item, tuple | list):
        kinds = ", ".join(type(value).__name__ for value in item[:5])
        return f"{len(item)} values ({kinds}{', …' if len(item) > 5 else ''})"
    shape = getattr(item, "shape", None)
    return f"{type(item).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"


def _hint(item: Any) -> str:
    """The end of a message: the keys that are likely meant."""
    if isinstance(item, Mapping) or hasattr(item, "_fields"):
        names = list(getattr(item, "_fields", item))
        inputs = [name for name in names if str(name).lower() in _INPUTS]
        labels = [name for name in names if str(name).lower() in _LABELS]
        if inputs and labels:
            return f'; set data.keys = ["{inputs[0]}", "{labels[0]}"]'
        return '; set data.keys = ["INPUT", "LABEL"] to the names of the two'
    if isinstance(item, tuple | list) and len(item) > 2:
        return "; set data.keys = [0, 1] to the places of the two"
    if hasattr(item, "shape"):
        return (
            "; of an array of inputs and one of labels make a torch.utils.data.TensorDataset(inputs, labels); without "
            "labels give (input,)"
        )
    if hasattr(item, "__dict__"):
        return "; give a tuple of the two, or vars(sample) with data.keys"
    return "; leave samples that cannot be read out of the dataset" if item is None else ""


_INPUTS = ("image", "img", "pixel_values", "input", "inputs", "x", "data", "features", "pixels", "jpg", "png")
_LABELS = ("label", "labels", "target", "targets", "y", "class", "cls", "fine_label", "category", "label_ids")
