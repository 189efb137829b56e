"""Which tables a cache has, how large they are, and where they lie in a file.

logits (or the tables of another encoding) | labels | input_crc32 | blocks | seal
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from decant.cache.encodings import Column
from decant.cache.manifest import Manifest

BLOCK_BYTES = 1 << 16  # the size that the encoded rows of a block come near
SEAL_BYTES = 40  # length of the header as uint64, its SHA-256


class TableSpec(NamedTuple):
    """Shape and little-endian dtype that a table must have."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Table:
    """Where one dataset lies: byte offset in the file, shape, little-endian dtype."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole table."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.offset + self.nbytes


@dataclass(frozen=True)
class Layout:
    """A checked file: what it says it holds, and where its tables lie."""

    manifest: Manifest
    tables: Mapping[str, Table]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.tables["seal"].end

    @property
    def encoded(self) -> list[str]:
        """The tables of the encoding; they lie one after the other, before all others."""
        return list(self.manifest.encoding.columns(self.manifest.num_outputs))


def columns(manifest: Manifest) -> dict[str, Column]:
    """The tables whose rows belong to samples, in the order of the file: the encoding's, then what the teacher's pass
    saw of each sample.
    """
    targets = manifest.num_targets
    shape, dtype = ((), np.dtype("<i8")) if targets is None else ((targets,), np.dtype("<f4"))
    return {
        **manifest.encoding.columns(manifest.num_outputs),
        "labels": Column(shape, dtype, per_view=False),
        "input_crc32": Column((), np.dtype("<u4")),
    }


def expected_tables(manifest: Manifest) -> dict[str, TableSpec]:
    """Shape and dtype of each table, in the order in which they lie in the file."""
    views, samples = manifest.num_views, manifest.num_samples
    tables = {
        name: TableSpec((*((views, samples) if column.per_view else (samples,)), *column.shape), column.dtype)
        for name, column in columns(manifest).items()
    }
    tables["blocks"] = TableSpec((views, -(-samples // rows_per_block(manifest))), np.dtype("<u8"))
    tables["seal"] = TableSpec((SEAL_BYTES,), np.dtype("u1"))
    return tables


def expected_size(manifest: Manifest) -> int:
    """Bytes of the tables of a cache with this manifest, without its header of some tens of KiB.

    >>> expected_size(Manifest.build(num_samples=50_000, num_outputs=100, num_views=4))
    41206312
    """
    return sum(Table(0, *spec).nbytes for spec in expected_tables(manifest).values())


def rows_per_block(manifest: Manifest) -> int:
    """The power of two of samples whose encoded rows come nearest below or at 64 KiB; at least 1."""
    row = manifest.encoding.row_bytes(manifest.num_outputs)
    return 1 << max(0, (BLOCK_BYTES // row).bit_length() - 1)
