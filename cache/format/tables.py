"""Which tables a cache has, how large they are, and where they lie in a file.

logits (or the tables of another encoding) | labels | input_crc32 | blocks | seal

Where samples have several positions each, a row of an encoding's table is of a position, and more tables say which rows
are whose: see `columns` and `expected_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import AxisName, Column, Encoding
from decant.cache.lengths import Even, Lengths
from decant.cache.manifest import Manifest
from decant.cache.positions import Axis

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
    offsets: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """(N + 1,) by the name of their table: where the rows of each sample begin."""
    bound: Encoding | None = None
    """The encoding with the tables that all rows share; None where it was not given these."""

    @property
    def encoding(self) -> Encoding:
        """How rows are stored."""
        return self.manifest.encoding if self.bound is None else self.bound

    @cached_property
    def axes(self) -> dict[AxisName, Lengths]:
        """How many rows each sample has in tables of each axis."""
        samples = self.manifest.num_samples
        found: dict[AxisName, Lengths] = {"sample": Even(samples)}
        about = self.manifest.positions
        if about is not None:
            found["position"] = about.axis.lengths(samples, self.offsets.get("offsets"))
            own = about.token_axis
            found["token"] = (
                found["position"] if own is None else own.lengths(samples, self.offsets.get("token_offsets"))
            )
        return found

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
    targets, about = manifest.num_targets, manifest.positions
    shape, dtype = ((), np.dtype("<i8")) if targets is None else ((targets,), np.dtype("<f4"))
    encoded = manifest.encoding.columns(manifest.num_outputs)
    beside: dict[str, Column] = {}
    if about is not None:
        encoded = {name: replace(column, axis="position") for name, column in encoded.items()}
        if about.predicts == "next":
            beside["next_log_prob"] = Column((), np.dtype("<f2"), axis="position")
        if about.places_sha256 is not None:
            beside["places"] = Column((), np.dtype("<u4"), per_view=False, axis="position", given=False)
        if about.token_dtype is not None:
            beside["tokens"] = Column((), about.token_dtype, per_view=False, axis="token", given=False)
    return {
        **encoded,
        **beside,
        "labels": Column(shape, dtype, per_view=False),
        "input_crc32": Column((), np.dtype("<u4")),
    }


def expected_tables(manifest: Manifest) -> dict[str, TableSpec]:
    """Shape and dtype of each table, in the order in which they lie in the file."""
    views, samples, about = manifest.num_views, manifest.num_samples, manifest.positions
    counts: dict[AxisName, int] = {"sample": samples}
    if about is not None:
        counts |= {"position": about.axis.count, "token": (about.token_axis or about.axis).count}
    tables = {
        name: TableSpec(
            (*((views,) if column.per_view else ()), counts[column.axis], *column.shape), column.dtype
        )
        for name, column in columns(manifest).items()
    }
    for name, column in manifest.encoding.once(manifest.num_outputs).items():
        tables[name] = TableSpec(column.shape, column.dtype)
    for name in offset_axes(manifest):
        tables[name] = TableSpec((samples + 1,), np.dtype("<u8"))
    tables["blocks"] = TableSpec((views, -(-manifest.num_rows // rows_per_block(manifest))), np.dtype("<u8"))
    tables["seal"] = TableSpec((SEAL_BYTES,), np.dtype("u1"))
    return tables


def offset_axes(manifest: Manifest) -> dict[str, Axis]:
    """The tables that say where the rows of each sample begin, with what the identity says of them: none where all
    samples have equally many.
    """
    about = manifest.positions
    axes = {} if about is None else {"offsets": about.axis, "token_offsets": about.token_axis}
    return {name: axis for name, axis in axes.items() if axis is not None and axis.sha256 is not None}


def expected_size(manifest: Manifest) -> int:
    """Bytes of the tables of a cache with this manifest, without its header of some tens of KiB.

    >>> expected_size(Manifest.build(num_samples=50_000, num_outputs=100, num_views=4))
    41206312
    """
    return sum(Table(0, *spec).nbytes for spec in expected_tables(manifest).values())


def rows_per_block(manifest: Manifest) -> int:
    """The power of two of samples, or of positions, whose encoded rows come nearest below or at 64 KiB; at least 1.

    >>> rows_per_block(Manifest.build(num_samples=50_000, num_outputs=100))
    256
    """
    row = manifest.encoding.row_bytes(manifest.num_outputs)
    return 1 << max(0, (BLOCK_BYTES // row).bit_length() - 1)
