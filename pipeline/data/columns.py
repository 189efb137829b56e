"""Which columns of a table are input and label."""

from __future__ import annotations

from collections.abc import Sequence

from decant.pipeline.data.items import Keys
from decant.pipeline.data.part_names import listed
from decant.pipeline.errors import DataError

LABELS = ("label", "labels", "target", "targets", "class", "y")
"""What columns of labels are usually called."""


def pick_columns(
    where: str, columns: Sequence[str], inputs: Sequence[str], labels: Sequence[str], keys: Keys | None
) -> tuple[str, str]:
    """The columns of input and label: those of `data.keys`, or the only one of `inputs`, and of `labels` or of a usual
    name. Raises DataError where there is none, or more than one.

    >>> pick_columns("a.parquet", ["id", "image", "label"], ["image"], [], None)
    ('image', 'label')
    >>> pick_columns("cifar100", ["img", "fine_label", "coarse_label"], ["img"], ["fine_label", "coarse_label"], None)
    Traceback (most recent call last):
    ...
    decant.pipeline.errors.DataError: cifar100: which column is the label? fine_label, coarse_label could be; set ...
    """
    if keys is not None:
        for key in keys:
            if key not in columns:
                raise DataError(f"{where}: data.keys: has no column {key!r}; it has {listed(columns)}")
        return str(keys[0]), str(keys[1])
    labels = labels or [name for name in columns if name.lower() in LABELS]
    for what, found in (("input", inputs), ("label", labels)):
        if len(found) != 1:
            could = f"{listed(found)} could be" if found else f"the columns are {listed(columns)}"
            example = f'["{(inputs or columns)[0]}", "{(labels or columns[-1:])[0]}"]'
            raise DataError(f"{where}: which column is the {what}? {could}; set data.keys = {example}")
    return inputs[0], labels[0]
