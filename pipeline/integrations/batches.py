"""What a batch of a `SoftLabelDataset` holds, and the loss of a student on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives import (
    Terms,
    binary_cross_entropy,
    cross_entropy,
    regression,
    sigmoid_kd,
    sigmoid_mse,
    squared_error,
)
from decant.pipeline.objectives.hard_labels import labelled, likeliest_label, require_shares

Objective = Callable[[Tensor, Tensor, Tensor], Terms | Tensor]
"""(student_logits (B, C), teacher_logits (B, C), labels) → the terms, or the loss alone, as of `decant.objectives`."""

SOFT_LABELS = "teacher_logits"
"""The key of the teacher's logits in samples that are dictionaries."""


def split_batch(batch: Any, keys: tuple[str, str] = ("image", "label")) -> tuple[Any, Tensor, Tensor]:
    """(inputs, labels, teacher_logits) of a batch: a tuple of these three, or a dictionary with `keys` and
    "teacher_logits".

    Raises DataError for a batch without the teacher's logits.

    >>> inputs, labels, teacher_logits = split_batch({"image": 1, "label": 2, "teacher_logits": 3})
    >>> inputs, labels, teacher_logits
    (1, 2, 3)
    """
    if isinstance(batch, Mapping):
        if missing := [key for key in (*keys, SOFT_LABELS) if key not in batch]:
            raise DataError(
                f"the batch has {', '.join(map(str, batch))}, and no {', '.join(missing)}: {_HINT}"
            )
        return batch[keys[0]], batch[keys[1]], batch[SOFT_LABELS]
    if not isinstance(batch, (tuple, list)) or len(batch) != 3:
        found = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise DataError(f"the batch is {found}, and must be (input, label, teacher_logits): {_HINT}")
    inputs, labels, teacher_logits = batch
    return inputs, labels, teacher_logits


_HINT = (
    "train from decant.SoftLabelDataset, with a collate function that keeps what it gives (the default one of "
    "torch.utils.data does)"
)


def terms_of(objective: Objective, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Terms:
    """The terms of an objective; one that returns a tensor has the total alone.

    Raises RecipeError where rows of student and teacher differ in number: some samples of the batch were dropped or
    repeated after the dataset gave them.

    >>> import torch
    >>> from decant.pipeline.objectives import kd
    >>> terms_of(kd, torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0])).soft
    tensor(0.)
    """
    if len(student_logits) != len(teacher_logits):
        raise RecipeError(
            f"the student gave {len(student_logits):,} rows for {len(teacher_logits):,} rows of teacher logits: "
            "samples were dropped or repeated after the dataset gave them"
        )
    found = objective(student_logits, teacher_logits, labels)
    return Terms(found) if isinstance(found, Tensor) else found


def loss_of_labels(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of labels alone, by which samples without the teacher's logits are evaluated: the cross-entropy; of an
    objective of sigmoids the binary one, and of a regression the mean squared error.

    Raises DataError for labels that it is not of, as several classes a sample where the objective is one of the user's.

    >>> import torch
    >>> from decant.pipeline.objectives import Regression
    >>> loss_of_labels(Regression(), torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    tensor(4.)
    """
    if is_of(objective, sigmoid_kd, sigmoid_mse):
        return binary_cross_entropy(logits, labels)
    if is_of(objective, regression):
        return squared_error(logits, labels)
    if labels.is_floating_point():
        require_shares(labels, logits)
    return cross_entropy(logits, labels)


def known_labels(objective: Objective, labels: Tensor) -> Tensor:
    """Which labels are known: of class ids and shares (B,), of labels of sigmoids and of a regression one by one.

    >>> import torch
    >>> from decant.pipeline.objectives import kd
    >>> known_labels(kd, torch.tensor([0, -1])), known_labels(regression, torch.tensor([[0.5, float("nan")]]))
    (tensor([ True, False]), tensor([[ True, False]]))
    """
    return labelled(labels) if is_of_classes(objective) else ~labels.isnan()


def right_answers(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor | None:
    """Of each label that is known whether the logits answer so, (K,): the likeliest class, or, of sigmoids, yes or no.
    None of a regression, which has no such answers.

    >>> import torch
    >>> from decant.pipeline.objectives import kd
    >>> right_answers(kd, torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1, -1]))
    tensor([ True, False])
    """
    if is_of(objective, regression):
        return None
    if is_of(objective, sigmoid_kd, sigmoid_mse):
        right = (logits > 0) == (labels > 0.5)
    else:
        right = logits.argmax(dim=1) == likeliest_label(labels)
    return right[known_labels(objective, labels)]


def is_of_classes(objective: Objective) -> bool:
    """Whether labels are classes, or shares of them, as of every objective but those of sigmoids and of a regression.

    >>> is_of_classes(sigmoid_kd), is_of_classes(lambda student, teacher, labels: student.sum())
    (False, True)
    """
    return not is_of(objective, regression, sigmoid_kd, sigmoid_mse)


def is_of(objective: Objective, *functions: Callable[..., Terms]) -> bool:
    """Whether an objective is one of these functions: itself, as a module, or with settings by `functools.partial`.

    >>> from functools import partial
    >>> from decant.pipeline.objectives import SigmoidKD
    >>> is_of(partial(sigmoid_kd, alpha=0.5), sigmoid_kd), is_of(SigmoidKD(), sigmoid_kd), is_of(regression, sigmoid_kd)
    (True, True, False)
    """
    inner: Any = objective
    while isinstance(inner, functools.partial):
        inner = inner.func
    return getattr(inner, "function", inner) in functions


def logits_of(outputs: Any) -> Tensor:
    """The logits of a network's output: a tensor, or what has them as `logits`.

    Raises DataError for anything else.

    >>> import torch
    >>> logits_of({"logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return outputs
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(found, Tensor):
        return found
    raise DataError(
        f"the student returned a {type(outputs).__name__}: expected a tensor, or an output with `logits`"
    )
