"""What a dataset returns for a key: (input, label), or that out of a dictionary or a longer tuple."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decant.cache.inputs import is_tensor

ItemKey = str | int
"""The key of a value in an item that is a dictionary, its place in a tuple, or its name in a named one."""

ItemKeys = tuple[ItemKey | Sequence[str], ItemKey | None]
"""Where the input and the label of an item are. Several names are an input that is a dictionary of these; a label at
None is in no item.
"""

_LABELS = ("label", "labels", "target", "targets", "fine_label", "label_ids", "y")
"""What fields of labels are called, the most usual first."""


def is_pair(item: object) -> bool:
    """Whether an item is (input, label). The two fields of a named tuple may be the other way round.

    >>> is_pair(("pixels", 3)), is_pair("ab")
    (True, False)
    """
    return (type(item) is tuple or (_is_tuple(item) and not _is_named(item))) and len(item) == 2  # type: ignore[arg-type]


def recognise(item: Any) -> ItemKeys | None:
    """Where input and label of an item are, if that can be told: a pair, an input alone in a tuple of one, or a
    dictionary or named tuple with one field of a usual name for labels, and tensors, arrays or images in others. None
    where it cannot.

    >>> import numpy as np
    >>> recognise({"image": np.zeros((2, 2)), "label": 3, "path": "3.png"})
    ('image', 'label')
    >>> recognise({"input_ids": np.zeros(2), "attention_mask": np.ones(2), "labels": 1})
    (('attention_mask', 'input_ids'), 'labels')
    >>> from collections import namedtuple
    >>> recognise(namedtuple("Sample", "label, image")(3, np.zeros((2, 2)))), recognise((np.zeros((2, 2)),))
    ((1, 0), (0, None))
    >>> recognise(namedtuple("Line", "label, text")(3, "good"))
    (1, 0)
    """
    if is_pair(item):
        return 0, 1
    if isinstance(item, Mapping):
        return _by_names(item)
    if not _is_tuple(item):
        return None
    if _is_named(item):
        labels = [place for place, name in enumerate(item._fields) if name in _LABELS]
        if len(item) == 2 and len(labels) == 1:  # the other field is the input, a text too
            return 1 - labels[0], labels[0]
        found = _by_names(item._asdict())
        if found is not None and isinstance(found[0], str) and isinstance(found[1], str):
            return item._fields.index(found[0]), item._fields.index(found[1])
    return {1: (0, None), 2: (0, 1)}.get(len(item))


def _by_names(item: Mapping[Any, Any]) -> ItemKeys | None:
    """Where input and label of a dictionary are, by the names and kinds of its values."""
    labels = [name for name in _LABELS if name in item]
    inputs = sorted(
        name
        for name, value in item.items()
        if name not in labels and (is_tensor(value) or hasattr(value, "__array_interface__"))
    )
    if len(labels) > 1 or not inputs:
        return None
    return inputs[0] if len(inputs) == 1 else tuple(inputs), labels[0] if labels else None


def pick(item: Any, keys: ItemKeys | None) -> tuple[Any, Any]:
    """(input, label) of an item. Raises TypeError, naming what the item has, where it does not have them.

    >>> pick({"image": "pixels", "label": 3, "path": "3.png"}, ("image", "label"))
    ('pixels', 3)
    >>> pick(("pixels", 3, 17), (0, 1))
    ('pixels', 3)
    >>> pick(("pixels", 3, 17), None)
    Traceback (most recent call last):
    ...
    TypeError: items of the dataset must be (input, label), found a tuple of 3; give ...keys=(0, 1)...
    """
    if keys is None and _is_tuple(item):
        keys = recognise(item)
    if keys is None:
        raise TypeError(
            f"items of the dataset must be (input, label), found {kind_of_item(item)}; {_advice(item)}"
        )
    try:
        return _value(item, keys[0]), None if keys[1] is None else _value(item, keys[1])
    except (KeyError, IndexError, TypeError):
        advice = f"; {_advice(item)}" if item is None else ""
        raise TypeError(f"keys: expected an item with {keys!r}, found {kind_of_item(item)}{advice}") from None


def read_item(dataset: Any, index: Any) -> Any:
    """Sample `index` of a dataset, also of one that has `__getitems__` alone. An error of the dataset's own is raised
    as it is, with a note that names the sample.

    >>> read_item([("pixels", 3)], 0)
    ('pixels', 3)
    """
    try:
        try:
            return dataset[index]
        except NotImplementedError:
            several = getattr(dataset, "__getitems__", None)
            if several is None:
                raise
            return several([index])[0]
    except Exception as error:
        name_sample(error, dataset, index)
        raise


def name_sample(error: Exception, dataset: Any, index: Any) -> None:
    """Adds a note to an error, by which its traceback names the sample that was read.

    >>> error = OSError("image file is truncated")
    >>> name_sample(error, [], 17)
    >>> error.__notes__
    ['while sample 17 of list was read']
    """
    error.add_note(f"while sample {index} of {type(dataset).__name__} was read")


def _value(item: Any, key: ItemKey | Sequence[str]) -> Any:
    if isinstance(key, (tuple, list)):
        return {name: _value(item, name) for name in key}
    if isinstance(key, str) and _is_named(item):
        return item[item._fields.index(key)] if key in item._fields else item[key]
    return item[key]


def _is_tuple(item: object) -> bool:
    return isinstance(item, (tuple, list))


def _is_named(item: object) -> bool:
    return isinstance(item, tuple) and hasattr(item, "_fields")


def kind_of_item(item: object) -> str:
    """What an item is, for a message."""
    if isinstance(item, Mapping):
        return f"a dictionary of {', '.join(map(str, item))}"
    if isinstance(item, (tuple, list)):
        return f"a {type(item).__name__} of {len(item):,}"
    return "None" if item is None else f"a {type(item).__name__}"


def _advice(item: object) -> str:
    if item is None:
        return (
            "each sample has a row in the cache: leave those that cannot be read out of the dataset, as "
            "torch.utils.data.Subset does"
        )
    if is_tensor(item) or hasattr(item, "__array_interface__"):
        return (
            "of an array of inputs and one of labels make a torch.utils.data.TensorDataset(inputs, labels); without "
            "labels give (input,), as TensorDataset(inputs) does, or a label of −1"
        )
    values = list(item.values()) if isinstance(item, Mapping) else []
    if any(isinstance(value, list) for value in values) and not any(map(is_tensor, values)):
        return 'its values are lists: make tensors of them, as with_format("torch") of a Hugging Face dataset does'
    if not isinstance(item, (Mapping, tuple, list)):
        as_dictionary = ", as vars(sample) is" if hasattr(item, "__dict__") else ""
        return f"let the dataset give a tuple of the two, or a dictionary of both{as_dictionary}"
    return (
        f"give decant.Views or SoftLabelDataset keys={_suggestion(item)}, where the input and the label are"
    )


def _suggestion(item: object) -> str:
    names = list(map(str, item)) if isinstance(item, Mapping) else []
    if len(names) < 2:
        return "(0, 1)" if not isinstance(item, Mapping) else '("image", "label")'
    label = next((name for name in names if "label" in name or "target" in name), names[-1])
    value = next(name for name in names if name != label)
    return f'("{value}", "{label}")'
