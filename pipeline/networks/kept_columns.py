"""A network of more classes than the data, of whose logits only the columns of the data's classes are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError


class OtherOutputsError(ModelError):
    """A network that gives another number of outputs than it should."""

    outputs = 0
    """How many it gives."""


class KeepsColumns(nn.Module):
    """A classifier that may leave out columns of its logits. They are no part of its state dict.

    >>> network = KeepsColumns()
    >>> network.kept(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2., 3.]])
    >>> network.keep([2, 0])
    >>> network.kept(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1.]])
    """

    columns: Tensor | None
    described = ""
    """How messages speak of it: by its name in the recipe."""
    num_outputs: int | None = None
    """C of its outputs (B, C), which each batch is checked for; None where it was not built from a spec."""
    untrained_head = ""
    """Why the last layer of pretrained weights was replaced; empty where it was not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("columns", None, persistent=False)

    def keep(self, columns: Sequence[int]) -> None:
        """From now on gives these columns alone, in this order."""
        self.columns = torch.tensor(list(columns), dtype=torch.int64)

    def kept(self, logits: Tensor) -> Tensor:
        """(B, C) → (B, number of columns that are kept)."""
        return logits if self.columns is None else logits.index_select(1, self.columns)


def check_outputs(logits: object, num_classes: int, of: str) -> None:
    """Raises ModelError where what a network gave for two inputs is not of shape (2, num_classes): OtherOutputsError
    where the number of classes alone is wrong.
    """
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found == (2, num_classes):
        return
    reason = f"must give logits of shape (2, {num_classes}) {of}, got {found}"
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        raise ModelError(reason)
    if found == (2, 1) and num_classes == 2:
        reason += '; for one logit of two classes set data.task = "binary"'
    elif logits.shape[1] > num_classes > 1:
        reason += "; of a teacher, teacher.classes keeps those of the data"
    error = OtherOutputsError(reason)
    error.outputs = int(logits.shape[1])
    raise error
