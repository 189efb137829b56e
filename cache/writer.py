"""LogitCacheWriter: rows in, sealed file out."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache import layout
from cache.blocks import Blocks
from cache.errors import CacheError, FormatError, IncompleteError, StorageError, ValueRefusedError
from cache.files import reserve, storage_error, sync_folder, write_all
from cache.manifest import Manifest, require_same

PARTIAL = ".partial"


class LogitCacheWriter:
    """Writes the rows of one cache, in any order, into `PATH.partial`; `publish` turns that into `PATH`.

    Opening it again after a kill goes on where it was. The invariant that makes this safe: a block's entry in `blocks`
    is written only after all of the block's rows are in the file, and `PATH` comes to be, in one step, only after every
    block has been read back, agrees with its entry and is synced. One writer at a time has a file (see `Store.build`);
    several may share it if they write disjoint blocks.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest) -> None:
        """Creates `PATH.partial` with all its space reserved, or goes on with the one that is there.

        Raises StorageError where the space is missing, MismatchError where the partial file answers another question.
        """
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            raise CacheError(f"{self.path}: already published; a published cache is never written again")
        self.layout = self._resume(manifest) if self.partial.exists() else self._create(manifest)
        self.manifest = self.layout.manifest
        self.blocks = Blocks(self.layout)
        self._fd = os.open(self.partial, os.O_RDWR | os.O_CLOEXEC)
        self._entries = self._read_blocks()
        self._filled = self._filled_rows()

    def __enter__(self) -> LogitCacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; what is written stays for the next writer."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def is_written(self, view: int = 0) -> NDArray[np.bool_]:
        """(N,) bool: the rows of `view` that are stored; a resumed pass skips them."""
        return self._filled[view].copy()

    def write(
        self,
        indices: ArrayLike,
        logits: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        input_crc32: ArrayLike | None = None,
        view: int = 0,
    ) -> None:
        """Stores rows of raw teacher outputs.

        indices (B,) int, each in 0..N−1; logits (B, C) float; labels (B,) int, or (B, T) float for regression, −1 or NaN
        where there is none (the default); input_crc32 (B,) uint32, 0 where it is not recorded (the default).
        Raises ValueRefusedError, naming sample and view, for NaN, Inf, float16 overflow, a wrong shape, an index out of
        range, or an index that is stored already with other values; StorageError where the disk refuses.
        """
        rows = self._check_indices(indices, view)
        columns = {
            "logits": self._check_logits(rows, logits, view),
            "labels": self._check_labels(rows, labels),
            "input_crc32": self._check_column(
                rows, 0 if input_crc32 is None else input_crc32, "input_crc32", ()
            ),
        }
        fresh = self._drop_repeats(rows, columns, view)
        for first, end in _runs(rows, fresh):
            for table, column in columns.items():
                data = np.ascontiguousarray(column[first:end])
                write_all(self._fd, data.data, self._offset(table, view, int(rows[first])), self.partial)
        self._filled[view, rows[fresh]] = True
        for block in np.unique(rows[fresh] >> self.blocks.shift).tolist():
            first, end = self.blocks.bounds(block)
            if self._filled[view, first:end].all():
                self._write_entry(view, block)

    def publish(self) -> Path:
        """Checks every block, syncs the file and gives it its published name; returns that path.

        Raises IncompleteError, naming the first missing block, while rows are missing; StorageError where a block does not
        read back as it was written, or the sync fails: then nothing is published, and a failed sync is not tried again.
        """
        self._entries = self._read_blocks()  # other ranks may have written into the same file
        missing = np.argwhere(self._entries == 0)
        if len(missing):
            raise IncompleteError(
                f"{self.partial}: {len(missing):,} of {self._entries.size:,} blocks are not written, "
                f"the first is {self.blocks.name(*missing[0].tolist())}"
            )
        self._sync()
        for view, block in self.blocks.damaged(self._read, self._entries):
            self._write_at("blocks", (view, block), np.zeros((), "<u8"))
            raise StorageError(
                f"{self.partial}: {self.blocks.name(view, block)} does not read back as written; run it again"
            )
        os.fchmod(self._fd, 0o444)
        self.close()
        self._link()
        return self.path

    def _create(self, manifest: Manifest) -> layout.Layout:
        draft = self.partial.with_name(f"{self.partial.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        try:
            created = layout.create(draft, manifest)
            fd = os.open(draft, os.O_RDWR)
            try:
                reserve(fd, created.size, self.partial)
            finally:
                os.close(fd)
            os.replace(draft, self.partial)
        except OSError as error:
            raise storage_error(error, self.partial, "creating") from error
        finally:
            draft.unlink(missing_ok=True)
        return created

    def _resume(self, manifest: Manifest) -> layout.Layout:
        with open(self.partial, "rb") as file:
            try:
                found = layout.check(file, str(self.partial))
            except FormatError as error:
                raise FormatError(f"{error}; delete it and run the command again") from None
        require_same(
            manifest.identity,
            found.manifest.identity,
            what=f"{self.partial}: was begun for another question",
            mend="Delete it, or go on with what it was begun for.",
        )
        return found

    def _filled_rows(self) -> NDArray[np.bool_]:
        """(V, N) bool: the rows of every block that is written and sound; a damaged block is written again."""
        for view, block in self.blocks.damaged(self._read, self._entries):
            self._entries[view, block] = 0
            self._write_at("blocks", (view, block), np.zeros((), "<u8"))
        return np.repeat(self._entries != 0, self.blocks.rows, axis=1)[:, : self.blocks.num_samples].copy()

    def _check_indices(self, indices: ArrayLike, view: int) -> NDArray[np.int64]:
        rows = np.asarray(indices)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise ValueRefusedError(f"indices: expected (B,) integers, found {rows.shape} {rows.dtype}")
        if not 0 <= view < self.manifest.num_views:
            raise ValueRefusedError(f"view: expected 0 to {self.manifest.num_views - 1}, found {view}")
        rows = rows.astype(np.int64)
        outside = rows[(rows < 0) | (rows >= self.manifest.num_samples)]
        if len(outside):
            raise ValueRefusedError(
                f"sample {outside[0]}, view {view}: the cache has samples 0 to {self.manifest.num_samples - 1:,}"
            )
        if len(np.unique(rows)) != len(rows):
            values, counts = np.unique(rows, return_counts=True)
            raise ValueRefusedError(f"sample {values[counts > 1][0]}, view {view}: given twice in one write")
        return rows

    def _check_logits(self, rows: NDArray[np.int64], logits: ArrayLike, view: int) -> NDArray[np.floating]:
        given = np.asarray(logits)
        if given.shape != (len(rows), self.manifest.num_outputs) or given.dtype.kind != "f":
            raise ValueRefusedError(
                f"logits: expected ({len(rows)}, {self.manifest.num_outputs}) floats, found {given.shape} {given.dtype}"
            )
        with np.errstate(over="ignore"):
            stored = given.astype(self.manifest.dtype)
        bad = ~np.isfinite(stored).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            value = given[row][~np.isfinite(stored[row])][0]
            why = f"overflows {self.manifest.dtype.name}" if np.isfinite(value) else "is not finite"
            raise ValueRefusedError(f"sample {rows[row]}, view {view}: logit {value} {why}")
        return stored

    def _check_labels(self, rows: NDArray[np.int64], labels: ArrayLike | None) -> NDArray[np.generic]:
        targets = self.manifest.num_targets
        none = -1 if targets is None else np.nan
        return self._check_column(
            rows, none if labels is None else labels, "labels", () if targets is None else (targets,)
        )

    def _check_column(
        self, rows: NDArray[np.int64], given: ArrayLike, table: str, inner: tuple[int, ...]
    ) -> NDArray[np.generic]:
        """`given` as the table stores it, one row a sample; a scalar fills every row."""
        found, dtype = np.asarray(given), self.layout.tables[table].dtype
        shape = (len(rows), *inner)
        if found.ndim and (found.shape != shape or (dtype.kind in "iu" and found.dtype.kind not in "iu")):
            raise ValueRefusedError(
                f"{table}: expected {shape} {dtype.name}, found {found.shape} {found.dtype}"
            )
        return np.broadcast_to(found, shape).astype(dtype)

    def _drop_repeats(
        self, rows: NDArray[np.int64], columns: dict[str, NDArray[np.generic]], view: int
    ) -> NDArray[np.intp]:
        """Places in `rows` that are not stored yet; one that is stored must have the very same bytes."""
        for place in np.flatnonzero(self._filled[view, rows]).tolist():
            row = int(rows[place])
            for table, column in columns.items():
                if self._read(table, view, row, row + 1) != column[place : place + 1].tobytes():
                    raise ValueRefusedError(f"sample {row}, view {view}: already stored with other {table}")
        self._check_shared_labels(rows, columns["labels"], view)
        return np.flatnonzero(~self._filled[view, rows])

    def _check_shared_labels(self, rows: NDArray[np.int64], labels: NDArray[np.generic], view: int) -> None:
        """All views share one label a sample, so another view's label must not be overwritten by a different one."""
        for place in np.flatnonzero(np.delete(self._filled, view, axis=0)[:, rows].any(axis=0)).tolist():
            row = int(rows[place])
            if self._read("labels", view, row, row + 1) != labels[place : place + 1].tobytes():
                raise ValueRefusedError(
                    f"sample {row}, view {view}: another view of it is stored with another label"
                )

    def _offset(self, table: str, view: int, row: int) -> int:
        place = self.layout.tables[table]
        inner = place.shape[1:] if table == "labels" else place.shape[2:]
        first = row if table == "labels" else view * self.manifest.num_samples + row
        return place.offset + first * int(np.prod(inner, dtype=np.int64)) * place.dtype.itemsize

    def _read(self, table: str, view: int, first: int, end: int) -> bytes:
        start = self._offset(table, view, first)
        return os.pread(self._fd, self._offset(table, view, end) - start, start)

    def _read_blocks(self) -> NDArray[np.uint64]:
        table = self.layout.tables["blocks"]
        return (
            np.frombuffer(os.pread(self._fd, table.nbytes, table.offset), table.dtype)
            .reshape(table.shape)
            .copy()
        )

    def _write_entry(self, view: int, block: int) -> None:
        entry = np.array(self.blocks.entry(self._read, view, block), "<u8")
        self._write_at("blocks", (view, block), entry)
        self._entries[view, block] = entry

    def _write_at(self, table: str, place: tuple[int, int], value: NDArray[np.generic]) -> None:
        found = self.layout.tables[table]
        offset = found.offset + int(np.ravel_multi_index(place, found.shape)) * found.dtype.itemsize
        write_all(self._fd, value.tobytes(), offset, self.partial)

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            # After a failed sync nobody knows which pages are on the disk, and a second one would not tell.
            self.close()
            self.partial.unlink(missing_ok=True)
            raise storage_error(
                error, self.partial, "syncing; what was written cannot be trusted and is dropped"
            ) from error

    def _link(self) -> None:
        """The step that publishes: `PATH` comes to be whole or not at all, and never replaces another's file."""
        try:
            os.link(self.partial, self.path)
        except FileExistsError:
            pass  # another builder of the same key was first; its file answers the same question
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise storage_error(error, self.path, "publishing") from error
            os.rename(self.partial, self.path)  # a file system without hard links
        self.partial.unlink(missing_ok=True)
        sync_folder(self.path.parent)


def _runs(rows: NDArray[np.int64], places: NDArray[np.intp]) -> list[tuple[int, int]]:
    """`places` as [first, end) ranges over which both the places and their rows go up by one."""
    if not len(places):
        return []
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(rows[places]) != 1)) + 1
    starts, ends = np.r_[0, breaks], np.r_[breaks, len(places)]
    return [(int(places[start]), int(places[end - 1]) + 1) for start, end in zip(starts, ends, strict=True)]
