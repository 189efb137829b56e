"""Labels of outputs that have a sigmoid each: one 0 or 1 of a binary task, a row of them of a multi-label task.

They are floats (N, T), in which NaN is an unknown label; −1 is one too where a dataset is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.tasks import SIGMOID, Task
from decant.pipeline.data.samples import NO_LABEL, LabelledData, task_of
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once


def apply_task(data: LabelledData, task: Task | None) -> None:
    """Gives the data the task that the recipe says, and its labels the form that they have there. Raises DataError for
    labels that are of another task.
    """
    if task is None:
        return
    where, labels = f"{data.name}: {data.split}", data.labels
    integers = labels.dtype.kind != "f"
    if task == "multilabel" and integers and (labels != NO_LABEL).any():
        raise DataError(
            f'{where}: labels are one integer a sample; of data.task = "multilabel" they are rows of 0 and 1, one '
            "entry a class"
        )
    if integers != (task == "classification") and task not in SIGMOID:
        found = "integers" if integers else f"floats ({len(labels)}, {labels.shape[1]})"
        raise DataError(f'{where}: labels are {found}, which are no labels of data.task = "{task}"')
    if task == "multilabel" and integers:  # none of them is known
        labels = np.full((len(labels), len(data.classes) or 1), NO_LABEL)
    if task in SIGMOID:
        data.labels = unknown_as_nan(labels.reshape(len(labels), -1))
    data.task = task


def unknown_as_nan(labels: NDArray[Any]) -> NDArray[np.float32]:
    """The labels as float32, NaN where they are −1.

    >>> unknown_as_nan(np.array([1, 0, -1]))
    array([ 1.,  0., nan], dtype=float32)
    """
    floats = labels.astype(np.float32)
    floats[floats == NO_LABEL] = np.nan
    return floats


def as_sigmoid_labels(labels: NDArray[Any], num_outputs: int, where: str) -> NDArray[np.float32]:
    """Labels of an imported table, (N, C) or for one output (N,), as float32 (N, C). Raises DataError for others.

    >>> as_sigmoid_labels(np.array([1, 0, -1]), 1, "labels.npy").tolist()
    [[1.0], [0.0], [nan]]
    """
    rows = unknown_as_nan(labels[:, None] if labels.ndim == 1 else labels)
    if rows.ndim != 2 or rows.shape[1] != num_outputs:
        raise DataError(
            f"{where}: labels of {num_outputs:,} sigmoids are (N, {num_outputs}), found {labels.shape}"
        )
    odd = np.flatnonzero(~(np.isnan(rows) | (rows == 0) | (rows == 1)).all(axis=1))
    if len(odd):
        raise DataError(
            f"{where}: row {odd[0]}: labels of sigmoids are 0 or 1 (−1 or NaN where they are unknown)"
        )
    return rows


def check_sigmoid_labels(data: LabelledData, where: str) -> None:
    """Raises DataError for labels that are not 0, 1 or unknown, or do not go with the class names."""
    task, labels = task_of(data), data.labels
    if task == "binary" and labels.shape[1] != 1:
        raise DataError(
            f'{where}: a label is a row of {labels.shape[1]}; of data.task = "binary" it is one number, 0 or 1: '
            'set data.task = "multilabel"'
        )
    odd = np.flatnonzero(~(np.isnan(labels) | (labels == 0) | (labels == 1)).all(axis=1))
    if len(odd):
        found = labels[odd[0]]
        raise DataError(
            f"{where}: sample {odd[0]}: its label is {found.tolist() if len(found) > 1 else found[0]:}; of "
            f'data.task = "{task}" every entry is 0 or 1 (−1 or NaN where it is unknown)'
        )
    count = 2 if task == "binary" else labels.shape[1]
    if data.classes and len(data.classes) != count:
        raise DataError(
            f'{where}: {len(data.classes)} class names; of data.task = "{task}" with labels of '
            f"{labels.shape[1]} there are {count}"
        )
    if np.isnan(labels).any() and (labels == 1).any() and not (labels == 0).any():
        raise DataError(
            f"{where}: labels are 1 or unknown, and none is 0, so that nothing shows what a class is not; −1 and NaN "
            "are unknown: write 0 where a class is absent"
        )


def warn_of_zeros_and_ones(data: LabelledData, task: Task | None) -> None:
    """Says on stderr that the targets of a regression, which the recipe does not name, look like classes."""
    labels = data.labels
    if task is not None or labels.dtype.kind != "f" or not (labels == 1).any():
        return
    if not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
        return
    meant = "binary" if labels.shape[1] == 1 else "multilabel"
    say_once(
        f"warning: {data.name}: every label is 0.0 or 1.0, and floats are taken for the targets of a regression; set "
        f'data.task = "{meant}" if they are classes, or data.task = "regression" to say that they are not'
    )
