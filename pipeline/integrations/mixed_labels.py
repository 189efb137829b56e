"""Notices a collate function that mixes samples: the teacher has not seen a mixed batch, and its logits stay those of
the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decant.pipeline.errors import DataError

LABELS = ("label", "labels", "label_ids")
"""What labels are called in samples and batches that are dictionaries."""
_ROUNDING = 1e-4


class Unmixed:
    """A collate function of the user's, whose batches are refused where it has mixed the labels of their samples.

    >>> import torch
    >>> from torch.utils.data import default_collate
    >>> batch = [(torch.zeros(2), 0, torch.zeros(3)), (torch.zeros(2), 2, torch.zeros(3))]
    >>> Unmixed(default_collate)(batch)[1]
    tensor([0, 2])
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        """Raises DataError for labels that were mixed."""
        given = [labels_in(sample) for sample in samples]
        batch = self.collate(samples)
        require_unmixed(given, labels_in(batch))
        return batch


def labels_in(found: Any) -> Any:
    """The label of a sample, or the labels of a batch; None where it is not known which they are."""
    if isinstance(found, Mapping):
        return next((found[name] for name in LABELS if name in found), None)
    return found[1] if isinstance(found, (tuple, list)) and len(found) == 3 else None


def require_unmixed(given: Sequence[Any], labels: Any) -> None:
    """Raises DataError where samples were given with class ids, and the labels (B, C) of their batch are shares of
    several classes. Smoothed ones, of which each row has one largest share and the same for all others, pass.

    >>> import torch
    >>> require_unmixed([0, 1], torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    >>> require_unmixed([0, 1], torch.tensor([[0.7, 0.3], [1.0, 0.0]]))
    Traceback (most recent call last):
    ...
    decant.pipeline.errors.DataError: the collate function has mixed the labels, ...
    """
    if not isinstance(labels, Tensor) or not labels.is_floating_point() or labels.ndim != 2:
        return
    if not labels.numel() or not all(map(_is_class_id, given)):
        return  # the views have mixed them, or samples have several labels
    others = labels.sort(dim=1).values[:, :-1]
    if ((others - others[0, :1]).abs() > _ROUNDING).any():
        raise DataError(
            "the collate function has mixed the labels, and with them inputs that the teacher saw one by one: each row "
            "of teacher logits would be of another input; mix in the views, by decant.views.mixup() or cutmix(); "
            "shares that follow from a sample's own class let the dataset give"
        )


def _is_class_id(label: Any) -> bool:
    if isinstance(label, Tensor):  # of dtypes that NumPy lacks too
        return label.numel() == 1 and not label.is_floating_point() and label.dtype != torch.bool
    try:
        found = np.asarray(label)
    except (TypeError, ValueError, RuntimeError):  # as of a list of tensors of several lengths
        return False
    return found.size == 1 and found.dtype.kind in "iu"
