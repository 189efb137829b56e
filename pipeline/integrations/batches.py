"""What a batch of a `SoftLabelDataset` holds, and the loss of a student on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives import Terms

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
