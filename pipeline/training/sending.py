"""What a worker process sends of a batch: small tensors by value, larger ones in memory that is shared and used again.

Each tensor in shared memory of its own costs a file that one process makes and another maps, some 0.1 ms whatever its
size, and new pages, which are filled with zeros first. Labels and logits of a batch are a few KiB, which take a
twentieth of that in the message itself: as bytes, since an array is pickled by calls of Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_convert

from decant.pipeline.training.lent_memory import Lent, LentMemory

_SMALL = 1 << 16
"""Bytes; what is larger is quicker to map than to copy."""
_OF_NUMPY = (torch.int64, torch.float32, torch.int32, torch.float16, torch.uint8, torch.bool)
_ALIGNED = 64


class Packed:
    """Batches as they are sent. A DataLoader leaves them as they are."""

    __slots__ = ("_lent", "_parts")

    def __init__(self, parts: list[Any], lent: Lent | None = None) -> None:
        """parts: of each batch, lists and dictionaries as in it; a tuple (dtype, shape, content) is a tensor. Its
        content is sent as bytes, or lies in the memory that is lent, from that place on.
        """
        self._parts, self._lent = parts, lent

    def __reduce__(self) -> tuple[type[Packed], tuple[Any, ...]]:
        return Packed, ((self._parts,) if self._lent is None else (self._parts, self._lent))

    def __iter__(self) -> Iterator[Any]:
        """The batches that were packed, one after another; a tuple is a list then, as it is of any DataLoader."""
        content = None if self._lent is None else self._lent.content
        return (_received(part, content) for part in self._parts)


def pack(batches: Iterable[Any], count: int = 1, memory: LentMemory | None = None) -> Packed:
    """Batches as they are sent, once what a DataLoader makes tensors of are tensors. Where they are large, or `count`
    of them as large as the first, they lie in `memory`, if that has room: each is copied when it has just been made.

    >>> packed = pack([(torch.zeros(99, 99, 99), np.arange(3))])
    >>> [[part.shape for part in batch] for batch in packed]
    [[torch.Size([99, 99, 99]), torch.Size([3])]]
    """
    parts, lent, start = list[Any](), None, 0
    for number, batch in enumerate(batches):
        usual = type(batch) is tuple and set(map(type, batch)) == {torch.Tensor}
        made = batch if usual else default_convert(batch)
        found = () if memory is None else tensors_of(made)
        tensors = [tensor for tensor in found if tensor.nbytes and _is_plain(tensor)]
        ends = list(accumulate((_padded(tensor.nbytes) for tensor in tensors), initial=start))
        if memory is not None and not number and count * ends[-1] > _SMALL:
            lent = memory.lend(count * ends[-1])
        if lent is None or not tensors or ends[-1] > len(lent.content):
            parts.append(_sent(made, {}))
            continue
        for tensor, place in zip(tensors, ends[:-1], strict=True):
            array = tensor.numpy()
            np.copyto(np.ndarray(array.shape, array.dtype, lent.content, place), array)
        parts.append(_sent(made, dict(zip(map(id, tensors), ends[:-1], strict=True))))
        start = ends[-1]
    return Packed(parts, lent)


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def tensors_of(part: Any) -> Iterator[torch.Tensor]:
    """The dense ones of a batch, also within lists, tuples and dictionaries."""
    if type(part) is torch.Tensor:
        if part.layout is torch.strided:  # others have no number of bytes
            yield part
    elif isinstance(part, tuple | list):
        for each in part:
            yield from tensors_of(each)
    elif type(part) is dict:
        for each in part.values():
            yield from tensors_of(each)


def _sent(part: Any, places: dict[int, int]) -> Any:
    """A part of a batch as it is sent: each tensor in it that has a place in lent memory, or is small, is replaced."""
    if type(part) is torch.Tensor:
        start = places.get(id(part))
        if start is None:
            part = part.resolve_conj().resolve_neg()  # PyTorch would send its memory without these marks
            if not (_is_plain(part) and part.nbytes <= _SMALL):
                return part
        array = part.numpy()
        return array.dtype.str, array.shape, array.tobytes() if start is None else start
    if isinstance(part, tuple | list):
        return [_sent(each, places) for each in part]
    if type(part) is dict:
        return {name: _sent(each, places) for name, each in part.items()}
    return part


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is its values and no more."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    plain = plain and not tensor.is_neg()  # whose memory has the opposite sign
    return plain and tensor.dtype in _OF_NUMPY and (tensor.is_contiguous() or tensor.nbytes <= _SMALL)


def _received(part: Any, lent: memoryview | None) -> Any:
    if type(part) is tuple:
        dtype, shape, content = part
        if type(content) is int:
            count = math.prod(shape)
            return torch.frombuffer(lent, dtype=_TORCH[dtype], count=count, offset=content).view(shape)
        return torch.from_numpy(np.ndarray(shape, dtype, bytearray(content)))
    if type(part) is list:
        return [_received(each, lent) for each in part]
    return {name: _received(each, lent) for name, each in part.items()} if type(part) is dict else part


_TORCH = {torch.zeros((), dtype=dtype).numpy().dtype.str: dtype for dtype in _OF_NUMPY}
