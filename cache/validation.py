"""Checks rows, and casts and encodes them as the tables have them, before a byte is written."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.errors import ValueRefusedError
from decant.cache.format.tables import columns
from decant.cache.inputs import as_values
from decant.cache.manifest import Manifest


@dataclass(frozen=True)
class Batch:
    """Rows that can be stored, of some samples of one view: an array for each table."""

    samples: NDArray[np.int64]
    """(B,), all different."""
    view: int
    columns: Mapping[str, NDArray[Any]]

    def rows(self, places: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """The rows of samples[places], of every table."""
        return {table: column[places] for table, column in self.columns.items()}

    def part(self, table: str, first: int, end: int) -> NDArray[Any]:
        """The rows of samples[first:end]."""
        return self.columns[table][first:end]


def check_batch(
    manifest: Manifest,
    indices: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
) -> Batch:
    """Makes rows of the tables from the arguments of `LogitCacheWriter.write`. Raises ValueRefusedError."""
    view = check_view(manifest, view)
    samples = check_indices(manifest, indices, view)
    given = check_logits(manifest, samples, logits)
    encoded = manifest.encoding.encode(given, samples, view)
    return _batch(manifest, samples, encoded, labels, input_crc32, view)


def check_encoded_batch(
    manifest: Manifest,
    indices: ArrayLike,
    rows: Mapping[str, ArrayLike],
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
) -> Batch:
    """The same from rows that are encoded already. Raises ValueRefusedError."""
    view = check_view(manifest, view)
    samples = check_indices(manifest, indices, view)
    expected = manifest.encoding.columns(manifest.num_outputs)
    if rows.keys() != expected.keys():
        raise ValueRefusedError(f"rows: expected {', '.join(expected)}, found {', '.join(rows)}")
    encoded = {name: as_array(name, rows[name]) for name in expected}
    for name, column in expected.items():
        shape, found = (len(samples), *column.shape), encoded[name]
        if (found.shape, found.dtype) != (shape, column.dtype):
            raise ValueRefusedError(
                f"{name}: expected {shape} {column.dtype.name}, found {found.shape} {found.dtype}"
            )
    manifest.encoding.check(encoded, samples, view, manifest.num_outputs)
    return _batch(manifest, samples, encoded, labels, input_crc32, view)


def _batch(
    manifest: Manifest,
    samples: NDArray[np.int64],
    encoded: Mapping[str, NDArray[Any]],
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
) -> Batch:
    columns = {
        **encoded,
        "labels": check_labels(manifest, samples, labels, view),
        "input_crc32": check_input_crc32(manifest, samples, input_crc32, view),
    }
    return Batch(samples, view, columns)


def check_view(manifest: Manifest, view: int) -> int:
    """Returns `view` as an integer in 0..V−1. Raises ValueRefusedError."""
    try:
        found = operator.index(view)
    except TypeError:
        raise ValueRefusedError(f"view: expected an integer, found {view!r}") from None
    if not 0 <= found < manifest.num_views:
        raise ValueRefusedError(f"view: expected 0 to {manifest.num_views - 1}, found {view}")
    return found


def check_indices(manifest: Manifest, indices: ArrayLike, view: int) -> NDArray[np.int64]:
    """Returns the indices as (B,) integers, all different and in 0..N−1. Raises ValueRefusedError."""
    rows = as_array("indices", indices)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueRefusedError(f"indices: expected (B,) integers, found {rows.shape} {rows.dtype}")
    outside = rows[(rows < 0) | (rows >= manifest.num_samples)]
    if len(outside):
        raise ValueRefusedError(
            f"sample {outside[0]}, view {view}: the cache has samples 0 to {manifest.num_samples - 1:,}"
        )
    values, counts = np.unique(rows, return_counts=True)
    if len(values) != len(rows):
        raise ValueRefusedError(f"sample {values[counts > 1][0]}, view {view}: given twice in one write")
    return rows.astype(np.int64)


def check_logits(manifest: Manifest, samples: NDArray[np.int64], logits: ArrayLike) -> NDArray[np.floating]:
    """Returns the logits as (B, C) floats, whose values the encoding checks. Raises ValueRefusedError."""
    if isinstance(logits, Mapping) or hasattr(logits, "logits"):
        raise ValueRefusedError(
            f"logits: expected a tensor or an array, found {type(logits).__name__}, as some models return; "
            "give its logits"
        )
    given, shape = as_array("logits", logits), (len(samples), manifest.num_outputs)
    if given.shape != shape or given.dtype.kind != "f":
        raise ValueRefusedError(f"logits: expected {shape} floats, found {given.shape} {given.dtype}")
    return given


def check_labels(
    manifest: Manifest, rows: NDArray[np.int64], labels: ArrayLike | None, view: int
) -> NDArray[Any]:
    """Returns the labels as (B,) int64, or (B, T) float32 for regression; −1 or NaN where there is none."""
    if labels is None:
        labels = -1 if manifest.num_targets is None else np.nan
    return _column(manifest, rows, labels, "labels", view)


def check_input_crc32(
    manifest: Manifest, rows: NDArray[np.int64], crc32: ArrayLike | None, view: int
) -> NDArray[Any]:
    """Returns the checksums as (B,) uint32, 0 where none is recorded."""
    return _column(manifest, rows, 0 if crc32 is None else crc32, "input_crc32", view)


def _column(
    manifest: Manifest, rows: NDArray[np.int64], given: ArrayLike, table: str, view: int
) -> NDArray[Any]:
    """`given` in shape and dtype of the table, a row for each sample; a scalar fills all rows.

    Raises ValueRefusedError where the cast would change a value.
    """
    column = columns(manifest)[table]
    shape, dtype = (len(rows), *column.shape), column.dtype
    found = as_array(table, given)
    if found.shape not in (shape, ()) or found.dtype.kind not in ("iu" if dtype.kind in "iu" else "fiu"):
        raise ValueRefusedError(f"{table}: expected {shape} {dtype.name}, found {found.shape} {found.dtype}")
    with np.errstate(over="ignore"):
        stored = np.broadcast_to(found, shape).astype(dtype)
    changed = np.isinf(stored) if dtype.kind == "f" else stored != found
    if changed.any():
        place = tuple(np.argwhere(changed)[0])
        value = np.broadcast_to(found, shape)[place]
        raise ValueRefusedError(f"sample {rows[place[0]]}, view {view}: {table} {value} is no {dtype.name}")
    return stored


def as_array(name: str, given: Any) -> NDArray[Any]:
    try:
        return np.asarray(as_values(given))
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor that NumPy cannot hold
        raise ValueRefusedError(f"{name}: {error}") from None
