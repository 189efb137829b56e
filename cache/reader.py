"""LogitCache: rows out."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.errors import CorruptError, FormatError, IncompleteError, MismatchError
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.format.tables import Layout
from decant.cache.io.blockfile import BlockChecks, ReadBytes
from decant.cache.io.partial import PARTIAL
from decant.cache.manifest import Manifest
from decant.cache.placement import Placement, advise, read_whole, resolve

_INTP = np.dtype(np.intp)

Verify = Literal["open", "lazy", "off"]
"""When block checksums are checked: all on opening, each when it is first read, or never."""


class LogitCache:
    """A published cache, mapped into memory: reading a row costs what indexing an array costs.

    Holds no HDF5 handle. Forked workers share its pages; a pickled one maps the same
    path again and refuses another file that has taken its place.
    """

    def __init__(
        self,
        path: Path,
        checked: Layout,
        mapped: mmap.mmap,
        verify: Verify,
        held: NDArray[np.uint8] | None = None,
    ) -> None:
        """`held` are the bytes of the encoding's tables where they are read from memory."""
        self.path = path
        self.manifest: Manifest = checked.manifest
        self.verify_mode = verify
        self._mapped = mapped  # kept: its address tells two mappings apart, its life is that of the tables
        self._tables = _arrays(checked, mapped, held)
        self._blocks = Blocks(checked)
        self._encoding = checked.manifest.encoding
        encoded = {name: self._tables[name] for name in checked.encoded}
        self._views = [
            {name: table[view] for name, table in encoded.items()} for view in range(self.num_views)
        ]
        self._all_views = {name: table.reshape(-1, *table.shape[2:]) for name, table in encoded.items()}
        entries = self._tables["blocks"]
        if not entries.all():
            missing = np.argwhere(entries == 0)
            raise IncompleteError(
                f"{path}: {len(missing):,} of {entries.size:,} blocks are not written, "
                f"the first is {self._blocks.name(*missing[0].tolist())}; it was never published"
            )
        read = _reader(checked, mapped, held)
        self._checks = BlockChecks(self._blocks, read, trusted=verify == "off")
        if verify == "open":
            problems = self.verify()
            if problems:
                raise CorruptError(f"{path}: {problems[0]}")

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, verify: Verify = "lazy", table: Placement = "mapped"
    ) -> LogitCache:
        """Checks the file, then maps it, or reads the logits into memory with `table="ram"`; rows are the same
        bytes. Raises FormatError for a file that is not a sound cache, IncompleteError for one that is not
        wholly written, CorruptError with `verify="open"` for altered blocks, FileNotFoundError.
        """
        if verify not in get_args(Verify):
            raise ValueError(f"verify: expected open, lazy or off, found {verify!r}")
        if table not in get_args(Placement):
            raise ValueError(f"table: expected auto, mapped or ram, found {table!r}")
        path = Path(path)
        if path.name.endswith(PARTIAL):
            raise IncompleteError(
                f"{path}: a partial file; run the command that builds it again to finish it"
            )
        if not path.is_file():
            problem = FormatError if path.exists() else FileNotFoundError
            raise problem(f"{path}: {'not a file' if path.exists() else 'no such cache'}")
        with open(path, "rb") as file:
            checked = hdf5.check(file, str(path))
            mapped = mmap.mmap(file.fileno(), checked.size, prot=mmap.PROT_READ)
            start, end = _encoded_bytes(checked)
            if resolve(table, path, end - start) == "ram":
                return cls(path, checked, mapped, verify, read_whole(file.fileno(), start, end - start))
        advise(mapped)
        return cls(path, checked, mapped, verify)

    @property
    def members(self) -> tuple[LogitCache, ...]:
        """The cache itself; an `Ensemble` has several."""
        return (self,)

    @property
    def num_samples(self) -> int:
        """N."""
        return self.manifest.num_samples

    @property
    def num_views(self) -> int:
        """V."""
        return self.manifest.num_views

    @property
    def num_outputs(self) -> int:
        """C: classes, or outputs of a regression."""
        return self.manifest.num_outputs

    @property
    def num_classes(self) -> int:
        """C."""
        return self.manifest.num_outputs

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int64, −1 where there is none; or (N, T) float32 regression targets. Read-only.

        Their blocks are checked by `verify` and as `logits` reads them, not here.
        """
        return self._tables["labels"]

    @property
    def input_crc32(self) -> NDArray[np.uint32]:
        """(V, N) uint32: CRC-32 of the bytes of each view that the teacher saw, 0 where it was not recorded.
        Read-only.
        """
        return self._tables["input_crc32"]

    def logits(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.floating]:
        """Rows of raw teacher outputs, a copy in the stored dtype.

        indices (B,): numpy's rules (integers, negative ones from the end, a boolean mask (N,), a slice);
        view: one for all, or (B,) integers. Returns (B, C) float16 or float32; (C,) for a single integer.
        Raises IndexError out of range, and CorruptError when a block that is read for the first time is not
        as it was written.
        """
        if type(indices) is np.ndarray and indices.dtype is _INTP:
            rows = cast("NDArray[np.intp]", indices)  # the usual case, at the cost of `take`
        else:
            rows = _as_rows(indices, self.num_samples)
        if not isinstance(view, int):
            rows, one_view, tables = self._in_all_views(rows, view), None, self._all_views
        elif 0 <= view < len(self._views):
            one_view, tables = view, self._views[view]
        else:
            raise IndexError(f"view {view}: the cache has {len(self._views)}")
        if not self._checks.all_sound:
            self._verify_rows(rows, one_view)
        try:
            encoded = {name: table.take(rows, axis=0) for name, table in tables.items()}
        except IndexError:
            raise _outside(rows, self.num_samples) from None
        return self._encoding.decode(encoded)

    def verify(self) -> list[str]:
        """Checks every block; a list of problems, empty when the cache is sound."""
        damaged = [self._name(number) for number in self._checks.check_all()]
        return [f"{name} is not as it was written" for name in damaged]

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        shape = f"{self.num_views} views × {self.num_samples:,} samples × {self.num_outputs:,} outputs"
        return f"LogitCache({str(self.path)!r}: {shape}, {self.manifest.dtype}, key {self.manifest.key[:16]})"

    def __reduce__(self) -> tuple[Callable[..., LogitCache], tuple[Path, str, Verify]]:
        return _reopen, (self.path.absolute(), self.manifest.key, self.verify_mode)

    def _in_all_views(self, rows: NDArray[Any], view: ArrayLike) -> NDArray[np.intp]:
        """Row numbers in tables of all views, (V·N, …), for a view a row."""
        views = np.asarray(view)
        if views.dtype.kind not in "iu" or views.shape not in ((), rows.shape):
            raise IndexError(f"view: expected an integer or {rows.shape}, found {views.shape} {views.dtype}")
        if views.size and not 0 <= views.min() <= views.max() < self.num_views:
            raise IndexError(f"view {views.min()} to {views.max()}: the cache has {self.num_views}")
        return _from_start(rows, self.num_samples) + views.astype(np.intp, copy=False) * self.num_samples

    def _verify_rows(self, rows: NDArray[np.intp], view: int | None) -> None:
        """Checks the blocks of rows that were not read before; with no view, of rows of all views' table."""
        if view is None:
            views, samples = np.divmod(rows, self.num_samples)
        else:
            samples = _from_start(rows, self.num_samples)
            views = np.full_like(samples, view)
        number = self._checks.first_damaged(views * self._blocks.per_view + (samples >> self._blocks.shift))
        if number is not None:
            raise CorruptError(
                f"{self.path}: {self._name(number)} is not as it was written; "
                "`decant cache verify` lists all damage; fetch or build the file again"
            )

    def _name(self, number: int) -> str:
        return self._blocks.name(*divmod(number, self._blocks.per_view))


def _encoded_bytes(layout: Layout) -> tuple[int, int]:
    """First byte and end of the encoding's tables in the file."""
    tables = [layout.tables[name] for name in layout.encoded]
    return tables[0].offset, tables[-1].end


def _arrays(layout: Layout, mapped: mmap.mmap, held: NDArray[np.uint8] | None) -> dict[str, NDArray[Any]]:
    """Every table as an array over the mapped file, or over `held` where the table is among the encoding's."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, table in layout.tables.items():
        content: mmap.mmap | NDArray[np.uint8] = mapped
        offset, count = table.offset, table.nbytes // table.dtype.itemsize
        if held is not None and name in layout.encoded:
            content, offset = held, offset - _encoded_bytes(layout)[0]
        arrays[name] = np.frombuffer(content, table.dtype, count, offset).reshape(table.shape)
    return arrays


def _reader(layout: Layout, mapped: mmap.mmap, held: NDArray[np.uint8] | None) -> ReadBytes:
    """Reads bytes of the file where its rows are read from: from the mapped file, or `held`."""
    content = memoryview(mapped)
    if held is None:
        return lambda first, end: content[first:end]
    (start, stop), encoded = _encoded_bytes(layout), held.data
    return lambda first, end: (
        encoded[first - start : end - start] if start <= first < stop else content[first:end]
    )


def _as_rows(indices: ArrayLike | slice, samples: int) -> NDArray[Any]:
    """Integers, not yet known to be in range, from whatever numpy indexes with."""
    if isinstance(indices, slice):
        return np.arange(*indices.indices(samples))
    rows = np.asarray(indices)
    if rows.dtype == bool:
        if rows.shape != (samples,):
            raise IndexError(f"a boolean index must have shape ({samples},), found {rows.shape}")
        return np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" and rows.size:
        raise IndexError(f"indices must be integers, found {rows.dtype}")
    if rows.dtype.kind == "u" and rows.size and rows.max() >= samples:
        raise _outside(rows, samples)
    return rows.astype(np.intp)


def _from_start(rows: NDArray[np.intp], samples: int) -> NDArray[np.intp]:
    """Rows in 0..N−1; negative ones count from the end."""
    if rows.size and not -samples <= rows.min() <= rows.max() < samples:
        raise _outside(rows, samples)
    return np.where(rows < 0, rows + samples, rows)


def _outside(rows: NDArray[Any], samples: int) -> IndexError:
    return IndexError(f"sample {rows.min()} to {rows.max()}: the cache has 0 to {samples - 1:,}")


def _reopen(path: Path, key: str, verify: Verify) -> LogitCache:
    cache = LogitCache.open(path, verify=verify)
    if cache.manifest.key != key:
        raise MismatchError(
            f"{path}: another cache has taken its place: key expected {key}, found {cache.manifest.key}"
        )
    return cache
