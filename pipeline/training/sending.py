"""What a worker process sends of a batch: small tensors by value, larger ones in memory that is shared.

Each tensor in shared memory costs a file that one process makes and another maps, some 0.1 ms whatever its size. Labels
and logits of a batch are a few KiB, which take a twentieth of that in the message itself: as bytes, since an array is
pickled by calls of Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import default_convert

_SMALL = 1 << 16
"""Bytes; what is larger is quicker to map than to copy."""
_OF_NUMPY = (torch.int64, torch.float32, torch.int32, torch.float16, torch.uint8, torch.bool)


class Packed:
    """A batch as it is sent. A DataLoader leaves it as it is."""

    __slots__ = ("parts",)

    def __init__(self, parts: Any) -> None:
        """parts: lists and dictionaries as in the batch; a tuple (dtype, shape, bytes) is a tensor that is sent by
        value.
        """
        self.parts = parts

    def __reduce__(self) -> tuple[type[Packed], tuple[Any]]:
        return Packed, (self.parts,)


def pack(batch: Any) -> Packed:
    """A batch as it is sent, once what a DataLoader makes tensors of are tensors.

    >>> packed = pack((torch.zeros(99, 99, 99), np.arange(3)))
    >>> type(packed.parts[0]).__name__, packed.parts[1][:2]
    ('Tensor', ('<i8', (3,)))
    >>> [part.shape for part in unpack(packed)]
    [torch.Size([99, 99, 99]), torch.Size([3])]
    """
    usual = type(batch) is tuple and set(map(type, batch)) == {torch.Tensor}
    return Packed(_by_value(batch if usual else default_convert(batch)))


def _by_value(part: Any) -> Any:
    """A part of a batch as it is sent: each small tensor in it, or in a dictionary in it, is replaced."""
    if type(part) is torch.Tensor:
        if not _is_small(part):
            return part
        array = part.numpy()
        return array.dtype.str, array.shape, array.tobytes()
    if isinstance(part, tuple | list):
        return [_by_value(each) for each in part]
    if type(part) is dict:
        return {name: _by_value(each) for name, each in part.items()}
    return part


def _is_small(tensor: torch.Tensor) -> bool:
    """Whether a tensor is its values and no more, and few of them."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    return plain and tensor.dtype in _OF_NUMPY and tensor.nbytes <= _SMALL


def unpack(batch: Packed) -> Any:
    """The batch that was packed; a tuple is a list then, as it is of any DataLoader."""
    return _received(batch.parts)


def _received(part: Any) -> Any:
    if type(part) is tuple:
        dtype, shape, content = part
        return torch.from_numpy(np.ndarray(shape, dtype, bytearray(content)))
    if type(part) is list:
        return [_received(each) for each in part]
    return {name: _received(each) for name, each in part.items()} if type(part) is dict else part
