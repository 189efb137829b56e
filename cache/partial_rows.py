"""The rows of a partial file: which are there, how more come in, and how those of other builders are taken over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import validation
from decant.cache.beginning import Known, check_begun
from decant.cache.errors import FormatError, IncompleteError, StorageError, ValueRefusedError
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.format.known import bound_layout, known_positions, restore_known
from decant.cache.format.row_marks import RowMarks, marked_rows, read_batch, read_marks, row_crc32
from decant.cache.format.shared_tables import check_shared_tables
from decant.cache.format.tables import Layout
from decant.cache.io import joint, locks, partial
from decant.cache.io.files import close_written, is_closed, reserve
from decant.cache.io.opening import NotAFileError, open_read
from decant.cache.io.synced import SyncedBlocks, read_synced
from decant.cache.io.system import close_quietly, start_writing_out
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions

_ROUNDING = 2**-5
"""Of a row's largest logit: how far two passes over one input may be apart, as bfloat16 rounds them."""


class PartialRows:
    """The rows of one partial file, as one of its writers knows them.

    The invariant: the entry of a block in `blocks` is written after all rows of the block are in the file. Rows of
    blocks that are not whole yet are marked one by one, in a file beside the partial one. Every 64 MiB the file is
    synced, and what is on the disk is recorded: who goes on reads the other blocks back, not these.
    """

    layout: Layout
    """With what all rows share, as a head."""
    positions: Positions | None

    def __init__(self, path: Path, fd: int, manifest: Manifest) -> None:
        """Takes a partial file, its descriptor and its expected manifest. Raises FormatError, MismatchError."""
        self.path, self.fd = path, fd
        checked = check_begun(path, manifest)
        self.manifest: Manifest = checked.manifest
        self.stored = StoredRows(fd, checked, path)
        self.positions, self.layout = known_positions(self.stored), bound_layout(self.stored)
        self.blocks: Blocks = self.stored.blocks
        self._entries = self.stored.read_entries()
        filled = self.blocks.of_every_sample(self._entries != 0)
        self.filled: NDArray[np.bool_] = np.ascontiguousarray(filled)
        """(V, N): the rows that are in the file."""
        self._member = joint.Member(path) if joint.is_joint(path) else None
        self._marks, self._synced = RowMarks(path), SyncedBlocks(path)

    @classmethod
    def go_on(
        cls, path: Path, fd: int, manifest: Manifest, known: Known, *, published: Path, check: bool
    ) -> PartialRows:
        """Takes up what a partial file of the cache at `published` holds; reads it back to `check` it, and takes the
        rows of other builders over, unless others write it already. What is `known` of it beforehand is written anew
        where it is no longer what it was. Closes the file where that fails.
        """
        rows = None
        try:
            try:
                rows = cls(path, fd, manifest)
            except FormatError:
                if not known:
                    raise
                restore_known(fd, path, manifest, known)
                rows = cls(path, fd, manifest)
            if check:
                # Where others write into the file too, some systems would write into what those have written.
                reserve(fd, rows.layout.size, path)
                rows.forget_damaged(read_synced(path, rows._entries.reshape(-1)))
            rows.recall()
            if check:
                rows.take_over_others(published)
        except BaseException:
            if rows is not None:
                rows.leave()
            close_quietly(fd)
            raise
        return rows

    @property
    def is_joint(self) -> bool:
        """Whether others may write into the file too."""
        return self._member is not None

    def close(self) -> None:
        """Closes the file; what is written stays for the next writer."""
        if self.fd >= 0:
            self._marks.close()
            self._synced.close()
            self.leave()
            fd, self.fd = self.fd, -1
            self.stored.file.fd = -1
            close_written(fd, self.path)

    def leave(self) -> None:
        """Gives up this writer's part in the file: closing it is not enough where forked workers have it open too."""
        if self._member is not None:
            self._member.close()
            self._member = None
        locks.give_up(self.fd)

    def become_the_only_writer(self, published: Path) -> bool:
        """See `joint.become_the_only_writer`. Opens the file anew, as another machine's writes are seen by who opens it
        after they were closed.
        """
        self.leave()
        try:
            fd = joint.open_joint(self.path)
        except (FileNotFoundError, NotAFileError):
            # It was published just now, or taken over by who could not see this one.
            if published.exists():
                raise FileExistsError(published) from None
            return False
        self.stored.file.fd, old, self.fd = fd, self.fd, fd
        close_written(old, self.path)
        return joint.become_the_only_writer(fd, self.path, published)

    def encoded(self, sample: int, view: int) -> dict[str, NDArray[Any]]:
        """The encoded rows of a sample that is stored, by table."""
        columns = read_batch(self.stored, view, sample, sample + 1).columns
        return {name: columns[name] for name in self.layout.encoded}

    def next_log_prob(self, sample: int, view: int) -> NDArray[np.float32]:
        """(q,) what was noted of the tokens that follow the positions of a sample that is stored. Raises TypeError
        where nothing is.
        """
        columns = read_batch(self.stored, view, sample, sample + 1).columns
        if "next_log_prob" not in columns:
            raise TypeError(f"{self.path}: notes nothing of the tokens that follow")
        found: NDArray[np.float32] = columns["next_log_prob"].astype(np.float32)
        return found

    def store(self, batch: Batch) -> None:
        """Writes the rows that are not stored yet, and then the entries of the blocks that are whole with them. Raises
        ValueRefusedError where a row is stored already with other values.
        """
        view, rows = batch.view, batch.samples
        if self._member is not None and len(rows):
            first, last = self.blocks.of(np.array([rows.min(), rows.max()])).tolist()
            blocks = slice(first, last + 1)
            entries = self.stored.read_some_entries(view, blocks.start, blocks.stop)
            self._see_entries(slice(view, view + 1), entries[None], blocks)
        self._check_repeats(batch)
        fresh = np.flatnonzero(~self.filled[view, rows])
        runs = _runs(rows, fresh)
        for first, end in runs:
            for table in batch.columns:
                self.stored.write(table, view, int(rows[first]), batch.part(table, first, end))
        self.filled[view, rows[fresh]] = True
        self._finish(batch, fresh, runs)
        if self._member is not None:
            self._member.add(len(fresh))

    def sync(self) -> None:
        """Makes what was written durable, and records that. Raises StorageError, and then removes the file."""
        self.make_durable()
        self._synced.append()

    def make_durable(self) -> None:
        """The same, and nothing is recorded: the file is published or removed next."""
        with self._removed_where_that_fails():
            self.stored.file.sync()

    def read_back_and_sync(self) -> list[tuple[int, int]]:
        """Reads every block back, and what all rows share, while the disk takes what was written; see `forget_damaged`
        and `make_durable`. Raises FormatError where what they share is not what the identity says.
        """
        with ThreadPoolExecutor(2) as threads:
            syncing = threads.submit(self.stored.file.sync)
            shared = threads.submit(check_shared_tables, self.layout, self.stored.file.read)
            damaged = self.forget_damaged()
        with self._removed_where_that_fails():
            syncing.result()
        shared.result()
        return damaged

    @contextlib.contextmanager
    def _removed_where_that_fails(self) -> Iterator[None]:
        """Closes and removes the file where it cannot be synced: nobody knows then which rows are on the disk."""
        try:
            yield
        except StorageError:
            with contextlib.suppress(StorageError):
                self.close()
            with contextlib.suppress(OSError):  # a disk that fails may often only be read from then on
                partial.remove(self.path)
            raise

    def refresh(self) -> None:
        """Takes up the blocks that others have written into the same file since."""
        self._see_entries(slice(None), self.stored.read_entries())

    def in_file(self, view: int, samples: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(B,): which rows are in the file; of those of others, which are in whole blocks. Changes nothing here, so any
        thread may ask.
        """
        found: NDArray[np.bool_] = self.filled[view, samples]
        if self._member is not None and not found.all():
            of_block = self.blocks.of(np.asarray(samples))
            first = int(of_block.min())
            entries = self.stored.read_some_entries(view, first, int(of_block.max()) + 1)
            found = found | (entries[of_block - first] != 0)
        return found

    def recall(self) -> None:
        """Takes up rows that this or another process has written into the file, and the blocks that are whole so."""
        self.filled |= self.blocks.of_every_sample(self._entries != 0)
        for found in marked_rows(self.stored, read_marks(self.path), ~self.filled):
            self.filled[found.view, found.samples] = True
        for view in range(self.blocks.num_views):
            whole = self.blocks.whole(self.filled[view]) & (self._entries[view] == 0)
            self._finish_blocks(
                view,
                {block: self.stored.expected_entry(view, block) for block in np.flatnonzero(whole).tolist()},
            )

    def require_whole(self, published: Path) -> None:
        """Raises IncompleteError while blocks are missing, when what others have written is taken up."""
        self._entries = self.stored.read_entries()  # other ranks may have written into the same file
        if (self._entries == 0).any():
            self.recall()
            self.take_over_others(published)
        missing = np.argwhere(self._entries == 0)
        if len(missing):
            rows = np.argwhere(~self.filled)
            first = (
                f"; {len(rows):,} rows are missing, the first is view {rows[0][0]} of sample {rows[0][1]:,}"
            )
            closed = [found.name for found in partial.begun(published) if is_closed(found)]
            others = f"; what may have them cannot be read, as it is another user's: {', '.join(closed[:2])}"
            raise IncompleteError(
                f"{self.path}: {len(missing):,} of {self._entries.size:,} blocks are not written, the first is "
                f"{self.blocks.name(*missing[0].tolist())}{first if len(rows) else ''}{others if closed else ''}"
            )

    def forget_damaged(self, trusted: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
        """Marks every block that is not as it was written as unwritten; returns those (view, block). The `trusted` ones
        (V·⌈N/R⌉,) are not read.
        """
        damaged = self.stored.forget_damaged(self._entries, trusted)
        for view, block in damaged:
            first, end = self.blocks.bounds(block)
            self.filled[view, first:end] = False
        return damaged

    def take_over_others(self, published: Path) -> None:
        """Copies the rows of every other partial file of the cache at `published`."""
        for other in partial.begun(published):
            if other != self.path:
                self._take_over(other)

    def copy(self, source: StoredRows) -> None:
        """Copies the rows that are written in `source` and not here: of whole blocks, and those that are marked."""
        theirs = source.read_entries()
        for view, block in np.argwhere((theirs != 0) & (self._entries == 0)).tolist():
            first, end = self.blocks.bounds(block)
            if source.expected_entry(view, block) == theirs[view, block]:  # not damaged there
                self._adopt(read_batch(source, view, first, end))
        for found in marked_rows(source, read_marks(source.file.path), ~self.filled):
            self._adopt(found)

    def _take_over(self, other: Path) -> None:
        """Copies the sound rows of another builder's file, and removes that file unless its builder still runs."""
        unusable = (FormatError, PermissionError, FileNotFoundError, NotAFileError)
        with contextlib.suppress(*unusable), open_read(other, follow=False) as file:
            self.copy(StoredRows(file.fileno(), check_begun(other, self.manifest), other))
            may_go_on = any(member.living is not False for member in joint.members(other))
            if not locks.in_use(file.fileno()) and not may_go_on:  # without locks, only the latter tells
                partial.remove(other)

    def _adopt(self, batch: Batch) -> None:
        """Stores rows of another builder's file that are not here yet; where both have a row, that here stays."""
        chosen = batch.pick(np.flatnonzero(~self.filled[batch.view, batch.samples]))
        with contextlib.suppress(ValueRefusedError):  # which `encode` never returns
            validation.check_rows(self.layout, chosen)
            self.store(chosen)

    def _see_entries(self, views: slice, entries: NDArray[np.uint64], blocks: slice = slice(None)) -> None:
        """Takes up entries that others may have written: what is whole is not written again."""
        theirs = (self._entries[views, blocks] == 0) & (entries != 0)
        for view, block in np.argwhere(theirs).tolist():
            first, end = self.blocks.bounds(block + (blocks.start or 0))
            self.filled[view + (views.start or 0), first:end] = True
        self._entries[views, blocks] = np.where(theirs, entries, self._entries[views, blocks])

    def _finish(self, batch: Batch, fresh: NDArray[np.intp], runs: list[tuple[int, int]]) -> None:
        """Marks rows that are in the file: by the entry of their block where that is whole, or else one by one."""
        view, of_block = batch.view, self.blocks.of(batch.samples[fresh])
        touched = np.unique(of_block)
        entries = self._entries_of(batch, runs)
        for block in touched.tolist():
            if block not in entries and self._is_filled(view, block):
                entries[block] = self.stored.expected_entry(view, block)
        if len(entries) < len(touched):
            rest = fresh[~np.isin(of_block, list(entries))]
            self._marks.append(view, batch.samples[rest], row_crc32(self.blocks, batch.pick(rest)))
        self._finish_blocks(view, entries)
        if self._synced.are_due():
            self.sync()
        elif self._synced.start_is_due():
            start_writing_out(self.fd)

    def _entries_of(self, batch: Batch, runs: list[tuple[int, int]]) -> dict[int, int]:
        """The entries of blocks that are whole with one run of a batch: of them nothing is read back."""
        entries: dict[int, int] = {}
        for first, end in runs:
            if end - first > 1:
                blocks, found = self.stored.entries_of(batch, first, end)
                entries |= zip(blocks.tolist(), found.tolist(), strict=True)
        return entries

    def _finish_blocks(self, view: int, entries: dict[int, int]) -> None:
        """Writes the entries of blocks whose rows are all in the file: of those that lie together at once."""
        blocks = np.array(sorted(entries), np.int64)
        values = np.array([entries[block] for block in blocks.tolist()], np.uint64)
        for some in np.split(np.arange(len(blocks)), np.flatnonzero(np.diff(blocks) != 1) + 1):
            if len(some):
                self.stored.write_entries(view, int(blocks[some[0]]), values[some])
        self._entries[view, blocks] = values
        for block in blocks.tolist():
            number = view * self.blocks.per_view + block
            self._synced.finished(number, entries[block], self.blocks.nbytes(block))

    def _is_filled(self, view: int, block: int) -> bool:
        first, end = self.blocks.bounds(block)
        return bool(self.filled[view, first:end].all())

    def _check_repeats(self, batch: Batch) -> None:
        """Raises ValueRefusedError where a row is stored already with other bytes, or its label for another view."""
        view, filled = batch.view, self.filled[:, batch.samples]
        for place in np.flatnonzero(filled.any(axis=0)).tolist():
            row = int(batch.samples[place])
            for table in batch.columns if filled[view, place] else self.blocks.shared:
                given = batch.part(table, place, place + 1)
                stored = self.stored.read_array(table, view, row, row + 1)
                if stored.tobytes() != given.tobytes() and not self._is_rounding(batch, place):
                    where = (
                        ""
                        if filled[view, place]
                        else ", for another view, and a sample has one label in all views"
                    )
                    raise ValueRefusedError(
                        f"sample {row}, view {view}: already stored with other {table}{where}"
                    )

    def _is_rounding(self, batch: Batch, place: int) -> bool:
        """Whether a row that is stored already is given again with logits of the same input, rounded otherwise, as a
        device may round them in another batch: what was written first stays.
        """
        row, given = int(batch.samples[place]), batch.rows([place])
        stored = {table: self.stored.read_array(table, batch.view, row, row + 1) for table in batch.columns}
        if not given["input_crc32"].any() or any(
            given[table].tobytes() != stored[table].tobytes() for table in ("labels", "input_crc32")
        ):
            return False
        return validation.are_close(self.layout, stored, given, _ROUNDING)


def _runs(rows: NDArray[np.int64], places: NDArray[np.intp]) -> list[tuple[int, int]]:
    """`places` as [first, end) ranges over which both the places and their rows go up by one."""
    if not len(places):
        return []
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(rows[places]) != 1)) + 1
    starts, ends = np.r_[0, breaks], np.r_[breaks, len(places)]
    return [(int(places[start]), int(places[end - 1]) + 1) for start, end in zip(starts, ends, strict=True)]
