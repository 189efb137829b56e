"""The items of a dataset that has no key but its content, as one of the user's own: the ranks of a job read each item
once, into a file that they fill together, and which is removed when all have read it.

A row of that file is an item: its input, the kind of its label, and the label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache import StorageError, Store
from decant.cache.io.locks import lock_path
from decant.pipeline.data.image_pack import FOLDER, SUFFIX, Layout
from decant.pipeline.data.labels import Label
from decant.pipeline.data.pack_filling import find_or_build
from decant.pipeline.data.pack_room import require_room
from decant.pipeline.ranks.job import Job, joined
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.progress import track

_NONE, _CLASS, _TARGETS, _ODD = range(4)
"""Kinds of labels; an odd one, unlike the first, is not in the file."""
_AT_ONCE = 1024

ReadItem = Callable[[int], tuple[NDArray[np.generic], Label]]
"""Index → (input, label)."""


class _Row(NamedTuple):
    """What a row of the file holds."""

    input_bytes: int
    label_bytes: int

    def pack(self, value: NDArray[np.generic], label: Label) -> NDArray[np.uint8]:
        row = np.zeros(sum(self) + 1, np.uint8)
        row[: self.input_bytes] = np.frombuffer(value.tobytes()[: self.input_bytes], np.uint8)
        kind, content = _NONE, b""
        if isinstance(label, int) and abs(label) < 1 << 63:
            kind, content = _CLASS, np.array(label, "<i8").tobytes()
        elif isinstance(label, np.ndarray):
            kind, content = _TARGETS, label.astype("<f4").tobytes()
        elif label is not None:
            kind = _ODD
        if len(content) > self.label_bytes or (kind == _TARGETS and len(content) < self.label_bytes):
            kind, content = _ODD, b""
        row[self.input_bytes] = kind
        row[self.input_bytes + 1 :][: len(content)] = np.frombuffer(content, np.uint8)
        return row

    def label(self, row: NDArray[np.uint8]) -> Label:
        kind, content = row[self.input_bytes], row[self.input_bytes + 1 :].tobytes()
        if kind == _CLASS:
            return int.from_bytes(content[:8], "little", signed=True)
        return None if kind == _NONE else np.frombuffer(content, "<f4").astype(np.float32)


def read_items(read: ReadItem, count: int, name: str, inputs: NDArray[np.generic] | None) -> list[Label]:
    """The labels of all items; their inputs go into `inputs` (N, …), where these are wanted. The ranks of a job divide
    the reading. Raises what `read` raises, and RankError.
    """
    job = joined()
    if job is not None:
        try:
            return _read_together(job, read, count, name, inputs)
        except (OSError, StorageError) as error:
            say_once(f"{error}; each rank reads all of {name}")
    labels = []
    for index in track(range(count), f"reading {name}"):
        value, label = read(index)
        labels.append(label)
        if inputs is not None:
            inputs[index] = value
    return labels


def _read_together(
    job: Job,
    read: ReadItem,
    count: int,
    name: str,
    inputs: NDArray[np.generic] | None,
) -> list[Label]:
    value, label = read(0)
    row = _Row(0 if inputs is None else value.nbytes, label.nbytes if isinstance(label, np.ndarray) else 8)
    question = f"{name} {count} {value.dtype.str} {value.shape} {row}"
    call = job.number(f"items/{question}")
    key = hashlib.sha256(f"{job.session} {question} {call}".encode()).hexdigest()
    layout = Layout(key, count, (sum(row) + 1,))
    path = Store().root / FOLDER / f"items-{key[:16]}{SUFFIX}"

    def rows(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        return np.stack([row.pack(*read(index)) for index in indices.tolist()])

    if not path.exists():
        require_room(path, layout.size)
    made = find_or_build(path, layout, rows, lambda: None, f"reading {name}", threads=1)
    labels: list[Label] = []
    for start in range(0, count, _AT_ONCE):
        some = made.images(np.arange(start, min(count, start + _AT_ONCE)))
        for index, found in enumerate(some, start):
            odd = found[row.input_bytes] == _ODD
            labels.append(read(index)[1] if odd else row.label(found))
        if inputs is not None:
            content = np.ascontiguousarray(some[:, : row.input_bytes])
            inputs[start : start + len(some)] = content.view(value.dtype).reshape(len(some), *value.shape)
    if job.count(f"items/{key}/read") == job.size:
        path.unlink(missing_ok=True)
        lock_path(path).unlink(missing_ok=True)
    return labels
