"""Memory that worker processes share with the process that reads their batches, and use again once nobody there holds
what lay in it.

New shared memory for every batch costs a file, a connection between the two processes to pass it on, and a fault for
every page. A batch of 256 images of 3 × 32 × 32 is then made in half of the time that it takes to be sent.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any
from weakref import ReferenceType, WeakValueDictionary, ref

import numpy as np
import torch
from numpy.typing import NDArray

_MOST = 4
"""Pieces that a worker lends at once: two batches that wait, and those that the reader holds. Where it holds more, as a
list of all batches, others are sent in memory of their own.
"""
_ROOM = 1 << 30
"""For all workers, where the system does not say how much there is."""
_HEADER = 64
"""Bytes before the content; the first is 1 while the piece is lent."""

_numbers = itertools.count()
_known = WeakValueDictionary[int, "LentMemory"]()
"""Of this process, by number: what is lent to it finds its pieces here."""


def room_for_workers(workers: int) -> int:
    """Bytes that each of so many workers may lend: a quarter of the shared memory that is free goes to all of them, as
    a container may have little; what does not fit is sent as PyTorch sends it.

    >>> 0 < room_for_workers(4) <= room_for_workers(2)
    True
    """
    try:
        found = os.statvfs("/dev/shm")
    except OSError:  # not Linux
        return _ROOM // workers
    return found.f_bavail * found.f_frsize // (4 * workers)


class LentMemory:
    """The pieces of the workers of one loader. A worker lends a piece, and sends what `lend` returns; the reader gets
    the same bytes, and gives the piece back when it drops the last object that reads them.

    >>> memory = LentMemory()
    >>> lent = memory.lend(1_000)
    >>> lent.content[:2] = b"ab"
    >>> import pickle, io
    >>> from multiprocessing.reduction import ForkingPickler
    >>> received = pickle.loads(ForkingPickler.dumps(lent))
    >>> tensor = torch.frombuffer(received.content, dtype=torch.uint8)
    >>> del received
    >>> tensor[:2].tolist(), memory.is_lent(0)
    ([97, 98], True)
    >>> del tensor
    >>> memory.is_lent(0)
    False
    """

    def __init__(self, most_bytes: int = 1 << 30, number: int | None = None) -> None:
        """most_bytes: of all pieces of one worker. number: that of the same memory in the process of the reader; None
        makes a new one, in that process.
        """
        self.number, self.most_bytes = next(_numbers) if number is None else number, most_bytes
        self._own: list[tuple[torch.Tensor, NDArray[np.uint8]]] = []
        self._pid: int | None = None
        self._received: dict[tuple[int, int], _Received] = {}
        if number is None:
            _known[self.number] = self

    def __reduce__(self) -> tuple[Callable[..., LentMemory], tuple[int, int]]:
        return LentMemory, (self.most_bytes, self.number)

    def lend(self, size: int) -> Lent | None:
        """A piece of `size` bytes or more, which nobody reads; None where all are being read, it would be too large, or
        there is no more memory. Called in a worker.
        """
        if self._pid != os.getpid():  # a copy of another process: its pieces are not those of this one
            self._own, self._pid = [], os.getpid()
        free = [place for place, (_, content) in enumerate(self._own) if not content[0]]
        number = next((place for place in free if len(self._own[place][1]) >= _HEADER + size), None)
        is_new = number is None
        if number is None:
            kept = self._own if not free else self._own[: free[0]] + self._own[free[0] + 1 :]
            held = sum(len(content) for _, content in kept)
            if len(kept) == _MOST or held + _HEADER + size > self.most_bytes:
                return None
            try:
                storage = torch.UntypedStorage._new_shared(_HEADER + size)
            except RuntimeError:
                # Other programs have filled it; small tensors need none, and are sent all the same.
                self.most_bytes = 0  # as each failure of PyTorch leaves an empty file
                return None
            tensor = torch.empty(0, dtype=torch.uint8).set_(storage)
            number = free[0] if free else len(self._own)  # one that is free is too small
            self._own[number : number + 1] = [(tensor, tensor.numpy())]
        tensor, content = self._own[number]
        content[0] = 1
        return Lent(self.number, (self._pid, number), content.data[_HEADER:], tensor if is_new else None)

    def is_lent(self, number: int) -> bool:
        """Whether the piece of this worker is."""
        return bool(self._own[number][1][0])

    def receive(self, piece: tuple[int, int], tensor: torch.Tensor | None) -> memoryview:
        """The content of a piece that a worker has lent to this process. tensor: its memory, the first time."""
        if tensor is not None:
            self._received[piece] = _Received(tensor.numpy())
        return self._received[piece].content()


class Lent:
    """A piece that is lent, as it is sent."""

    __slots__ = ("_memory", "_piece", "_tensor", "content")

    def __init__(
        self, memory: int, piece: tuple[int, int], content: memoryview, tensor: torch.Tensor | None
    ) -> None:
        self._memory, self._piece, self.content, self._tensor = memory, piece, content, tensor

    def __reduce__(self) -> tuple[Callable[..., Lent], tuple[Any, ...]]:
        return _lent, (self._memory, self._piece, self._tensor)


def _lent(memory: int, piece: tuple[int, int], tensor: torch.Tensor | None) -> Lent:
    """In the process of the reader, at once: so that a batch that it never looks at is given back too."""
    return Lent(memory, piece, _known[memory].receive(piece, tensor), None)


class _Received:
    """A piece in the process that reads it."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._lease: ReferenceType[memoryview] | None = None

    def content(self) -> memoryview:
        """Bytes that are given back when the last object that reads them is gone."""
        memory, pid = self._memory, os.getpid()

        def give_back(_: object) -> None:
            # A process that was forked meanwhile has copies of what this one still reads.
            if os.getpid() == pid:
                memory[0] = 0

        content = memory.data[_HEADER:]
        self._lease = ref(content, give_back)
        return content
