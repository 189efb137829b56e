"""What a worker process sends of a batch: small tensors by value, larger ones in memory that is shared.

Each tensor in shared memory costs a file that one process makes and another maps, some 0.1 ms whatever its size. Labels
and logits of a batch are a few KiB, which take a tenth of that in the message itself.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

_SMALL = 1 << 16
"""Bytes; what is larger is quicker to map than to copy."""
_OF_NUMPY = (torch.int64, torch.float32, torch.int32, torch.float16, torch.uint8, torch.bool)


class ByValue:
    """A tensor as an array. No tuple, as a DataLoader would make a tensor of it again."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __reduce__(self) -> tuple[type[ByValue], tuple[NDArray[Any]]]:
        return ByValue, (self.array,)


def pack(batch: Any) -> Any:
    """A batch as it is sent: each small tensor in it, or in a dictionary in it, is replaced.

    >>> images, labels = pack((torch.zeros(99, 99, 99), torch.arange(3)))
    >>> type(images).__name__, labels.array
    ('Tensor', array([0, 1, 2]))
    >>> [part.shape for part in unpack((images, labels))]
    [torch.Size([99, 99, 99]), torch.Size([3])]
    """
    if isinstance(batch, tuple | list):
        return [pack(part) for part in batch]
    if type(batch) is dict:
        return {name: pack(part) for name, part in batch.items()}
    if type(batch) is torch.Tensor and _is_small(batch):
        return ByValue(batch.numpy())
    return batch


def _is_small(tensor: torch.Tensor) -> bool:
    """Whether a tensor is its values and no more, and few of them."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    return plain and tensor.dtype in _OF_NUMPY and tensor.numel() * tensor.element_size() <= _SMALL


def unpack(batch: Any) -> Any:
    """The batch that was packed; a tuple is a list then, as it is of any DataLoader."""
    if isinstance(batch, tuple | list):
        return [unpack(part) for part in batch]
    if type(batch) is dict:
        return {name: unpack(part) for name, part in batch.items()}
    return torch.from_numpy(batch.array) if type(batch) is ByValue else batch
