"""Small caches to test with: what a teacher would have said, and the files that hold it."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, Manifest
from decant.cache.format.hdf5 import create
from decant.cache.format.tables import Layout

HEADER = 32_768  # bytes before the first table of a small cache


def manifest(
    num_samples: int = 50, num_outputs: int = 1000, num_views: int = 2, dtype: str = "float16", **more: Any
) -> Manifest:
    """With 1,000 outputs a block has 32 rows, so 50 samples are two blocks, the second not full."""
    teacher = {"network": {"name": "conv"}, "sha256": "ab" * 32, **more.pop("teacher", {})}
    data = {"name": "digits", "split": "train", **more.pop("data", {})}
    return Manifest.build(
        num_samples=num_samples,
        num_outputs=num_outputs,
        num_views=num_views,
        dtype=dtype,
        teacher=teacher,
        data=data,
        **more,
    )


def answers(of: Manifest, view: int = 0) -> dict[str, NDArray[Any]]:
    """What the teacher says of every sample of a view: logits (N, C), labels (N,) or (N, T), input_crc32 (N,)."""
    shape = (of.num_samples, of.num_outputs, of.num_targets, of.dtype.name)
    return _answers(*shape, view)


@cache
def _answers(
    samples: int, outputs: int, targets: int | None, dtype: str, view: int
) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(view)
    labels: NDArray[Any] = np.arange(samples) % min(10, outputs)
    if targets is not None:
        labels = np.random.default_rng(99).normal(size=(samples, targets)).astype("f4")
    logits = random.normal(size=(samples, outputs)).astype(dtype)
    if targets is None:
        logits[np.arange(samples), labels] += 5  # as a teacher that knows them
    return {
        "logits": logits,
        "labels": labels,
        "input_crc32": np.arange(samples, dtype="u4") + 7 * view,
    }


def write(writer: LogitCacheWriter, view: int, rows: NDArray[Any] | range) -> None:
    """Writes these rows of a view as the teacher answers them."""
    given = {name: column[rows] for name, column in answers(writer.manifest, view).items()}
    writer.write(rows, **given, view=view)


def write_missing(writer: LogitCacheWriter, batch: int = 7) -> int:
    """Writes what is not written yet, as a pass over the data does; how many rows those were."""
    total = 0
    for view in range(writer.manifest.num_views):
        missing = np.flatnonzero(~writer.is_written(view))
        for start in range(0, len(missing), batch):
            write(writer, view, missing[start : start + batch])
        total += len(missing)
    return total


def create_empty(path: Path, of: Manifest) -> Layout:
    """A file with no row written."""
    layout, fd = create(path, of)
    os.close(fd)
    return layout


def build(path: Path, of: Manifest | None = None) -> Path:
    """A published cache."""
    with LogitCacheWriter(path, of or manifest()) as writer:
        write_missing(writer, batch=1000)
        return writer.publish()


def holds_the_answers(cache: LogitCache) -> bool:
    """Whether every row of every view is what the teacher said."""
    for view in range(cache.num_views):
        expected = answers(cache.manifest, view)
        if not np.array_equal(cache.logits(slice(None), view), expected["logits"]):
            return False
        if not np.array_equal(cache.labels, expected["labels"]):
            return False
        if not np.array_equal(cache.input_crc32[view], expected["input_crc32"]):
            return False
    return True


def reseal(content: bytearray, length: int = HEADER) -> None:
    """Makes the seal agree with whatever the header now is, as somebody who means harm would."""
    digest = hashlib.sha256(bytes(content[:length])).digest()
    content[-40:] = struct.pack("<Q32s", length, digest)


def repair_checksums(content: bytearray, length: int = HEADER) -> None:
    """Makes the HDF5 checksums of the superblock and of every object header agree with their content."""
    length = min(length, len(content))
    if length < 48:
        return
    struct.pack_into("<I", content, 44, lookup3(bytes(content[:44])))
    at = content.find(b"OHDR", 0, length)
    while at >= 0:
        flags = content[min(at + 5, length - 1)]
        start = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = start + width + int.from_bytes(content[start : start + width], "little")
        if end + 4 <= length:
            struct.pack_into("<I", content, end, lookup3(bytes(content[at:end])))
        at = content.find(b"OHDR", at + 1, length)


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash (2006) with initial value 0: the checksum of HDF5's metadata."""
    mask = 0xFFFFFFFF

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    words = np.frombuffer(data.ljust(-(-len(data) // 12) * 12, b"\0"), "<u4").tolist()
    for place in range(0, len(words) - 3, 3):
        a, b, c = (a + words[place]) & mask, (b + words[place + 1]) & mask, (c + words[place + 2]) & mask
        a, c = (a - c) & mask ^ rotated(c, 4), (c + b) & mask
        b, a = (b - a) & mask ^ rotated(a, 6), (a + c) & mask
        c, b = (c - b) & mask ^ rotated(b, 8), (b + a) & mask
        a, c = (a - c) & mask ^ rotated(c, 16), (c + b) & mask
        b, a = (b - a) & mask ^ rotated(a, 19), (a + c) & mask
        c, b = (c - b) & mask ^ rotated(b, 4), (b + a) & mask
    if not data:
        return c
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    c = (c ^ b) - rotated(b, 14) & mask
    a = (a ^ c) - rotated(c, 11) & mask
    b = (b ^ a) - rotated(a, 25) & mask
    c = (c ^ b) - rotated(b, 16) & mask
    a = (a ^ c) - rotated(c, 4) & mask
    b = (b ^ a) - rotated(a, 14) & mask
    return (c ^ b) - rotated(b, 24) & mask


def leftovers(folder: Path) -> list[str]:
    """Names in a folder that are not published caches."""
    return sorted(found.name for found in folder.iterdir() if found.suffix != ".h5")


def identity_with(of: Manifest, section: str, changes: Mapping[str, Any]) -> Manifest:
    """The same manifest with some fields of one section changed."""
    return Manifest({**of.identity, section: {**of.identity[section], **changes}}, of.info)
