"""The epoch of a dataset that may be a part of another one."""

from __future__ import annotations

from typing import Any

from torch.utils.data import ConcatDataset, Subset


def set_epoch(dataset: Any, epoch: int) -> None:
    """Sets the epoch of `dataset`, or of what it is a Subset or a concatenation of; other datasets have none.

    >>> class Counted(list):
    ...     def set_epoch(self, epoch):
    ...         self.epoch = epoch
    >>> data = Counted("abc")
    >>> set_epoch(ConcatDataset([Subset(data, [2]), Subset(data, [0])]), 3)
    >>> data.epoch
    3
    """
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    elif isinstance(dataset, Subset):
        set_epoch(dataset.dataset, epoch)
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            set_epoch(part, epoch)
