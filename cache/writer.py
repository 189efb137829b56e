"""LogitCacheWriter: takes rows in any order, and publishes a whole, checked file."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache import validation
from decant.cache.encodings import Head, Hidden
from decant.cache.errors import (
    CacheError,
    CacheWarning,
    FormatError,
    IncompleteError,
    StorageError,
    ValueRefusedError,
)
from decant.cache.format import hdf5
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.format.known import (
    bound_layout,
    known_positions,
    require_head,
    require_positions,
    restore_known,
)
from decant.cache.format.row_marks import RowMarks, marked_rows, read_batch, read_marks, row_crc32
from decant.cache.format.tables import Layout
from decant.cache.inputs import input_checksums
from decant.cache.io import joint, locks, partial
from decant.cache.io.files import drafting, reserve, storage_error, sync_folder
from decant.cache.io.opening import NotAFileError, create_new, open_read, open_write, require_file
from decant.cache.io.synced import SyncedBlocks, read_synced
from decant.cache.manifest import Manifest, require_equal
from decant.cache.plausibility import doubts, doubts_of_rows
from decant.cache.positions import Positions
from decant.cache.reader import LogitCache

_ENOUGH_ROWS = 8
"""Rows that are looked at before a teacher's outputs are doubted."""
_SOME_POSITIONS = 64
"""Positions that are looked at."""
_ROUNDING = 2**-5
"""Of a row's largest logit: how far two passes over one input may be apart, as bfloat16 rounds them."""


class LogitCacheWriter:
    """Writes the rows of one cache, in any order, into a partial file beside `path`; `publish` turns that into `path`.

    A writer that is opened again after a kill goes on where it was. The invariant behind that: the entry of a block in
    `blocks` is written after all rows of the block are in the file, and `path` appears, in one step, after every block
    was read back, agrees with its entry and is synced. Two builders never write into one file (`cache.io.partial`), so
    they need not exclude each other; `Store.building` does so to save the second one the work.

    Ranks of one job write any rows, each with a writer of its own: of the same path, with a file of its own until one
    of them publishes, or of the same file, where they `join` or the writer was sent to them by pickle. When all rows
    are written, whoever calls `publish` joins them; until then it raises IncompleteError. Rows of blocks that are not
    whole yet are marked one by one, in a file beside the partial one (`cache.format.row_marks`). Every 64 MiB a writer
    syncs, and records which blocks are on the disk (`cache.io.synced`): a writer that goes on reads the others back,
    not these.

    >>> import tempfile
    >>> from decant.cache import LogitCache
    >>> folder = tempfile.TemporaryDirectory()
    >>> manifest = Manifest.build(num_samples=3, num_outputs=2)
    >>> with LogitCacheWriter(Path(folder.name, "toy.h5"), manifest) as writer:
    ...     writer.write([2, 0], np.ones((2, 2)), labels=[1, 0])
    ...     print(writer.is_written())
    ...     writer.write([1], np.zeros((1, 2)), labels=[1])
    ...     path = writer.publish()
    [ True False  True]
    >>> LogitCache.open(path).logits(slice(None)).tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    >>> folder.cleanup()
    """

    layout: Layout
    manifest: Manifest
    _member: joint.Member | None = None
    _positions: Positions | None = None
    _looked = _warned = False  # at a batch of rows, and whether something was doubtful

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        *,
        positions: Positions | None = None,
        lengths: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        head: Head | None = None,
    ) -> None:
        """Begins a partial file and reserves all its space, or goes on with the partial file that is there.

        positions: where samples have several positions each, what the manifest was built with; left out, a partial file
        that is there is gone on with. lengths and tokens: the same where they alone are known, as `Positions.of` takes
        them. head: where hidden states are stored, what makes logits of them; left out likewise.

        Raises StorageError where the disk lacks the space, MismatchError where the partial file has another identity,
        FormatError where it is damaged, CacheError where `path` is published already.
        """
        self.path = Path(path)
        known = require_positions(manifest, positions, lengths, tokens)
        require_head(manifest, head)
        try:
            self._prepare(manifest)
            self.partial, self._fd = partial.hold(self.path) or self._begin(
                manifest, known, head, partial.new_name(self.path)
            )
        except OSError as error:
            raise storage_error(error, self.path, "opening its partial file") from error
        self._go_on(manifest, _known_tables(known, head))

    @classmethod
    def join(
        cls,
        path: str | os.PathLike[str],
        manifest: Manifest,
        *,
        positions: Positions | None = None,
        head: Head | None = None,
        partial_file: Path | None = None,
    ) -> LogitCacheWriter:
        """A writer into one partial file that others write at the same time: each of them whole blocks of its own,
        from any machine that sees the folder, started at any time. The first makes the file.

        Whoever calls `publish` when all rows are there publishes the file; while another still writes into it,
        `publish` raises IncompleteError, and that one publishes. partial_file: the `partial` of a writer that has
        joined, to join that very file. Raises as `LogitCacheWriter` does, and FileNotFoundError where there is no
        `partial_file`.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> manifest = Manifest.build(num_samples=3, num_outputs=2)
        >>> writers = [LogitCacheWriter.join(Path(folder.name, "toy.h5"), manifest) for _ in range(2)]
        >>> writers[0].partial == writers[1].partial
        True
        >>> writers[0].write([0, 1, 2], np.eye(3, 2))
        >>> writers[0].close()
        >>> writers[1].publish().name
        'toy.h5'
        >>> folder.cleanup()
        """
        if partial_file is not None:
            return _join(Path(path), partial_file, manifest)
        writer = cls.__new__(cls)
        writer.path = Path(path)
        known = require_positions(manifest, positions, None, None)
        require_head(manifest, head)
        try:
            writer._prepare(manifest)
            with locks.in_turn(writer.path.parent):
                found = joint.join_one(writer.path)
                if found is None and writer.path.exists():
                    writer._refuse_published()
                begin = joint.new_joint_name(writer.path)
                writer.partial, writer._fd, alone = found or (
                    *writer._begin(manifest, known, head, begin),
                    True,
                )
        except OSError as error:
            raise storage_error(error, writer.path, "opening its partial file") from error
        writer._go_on(manifest, _known_tables(known, head), check=alone)
        return writer

    def _prepare(self, manifest: Manifest) -> None:
        """Raises where `path` is published, or unfinished files of it are of another identity."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(self.path):
            require_file(self.path)
            partial.finish_publishing(self.path)
            self._refuse_published()
        for other in partial.begun(self.path):
            with contextlib.suppress(FormatError, PermissionError, FileNotFoundError):
                _check_begun(other, manifest)

    def _refuse_published(self) -> NoReturn:
        raise CacheError(f"{self.path}: already published; a published cache is never written again")

    def _go_on(self, manifest: Manifest, known: Mapping[str, NDArray[Any]], check: bool = True) -> None:
        """Takes up what the partial file holds; reads it back to `check` it, unless others write it already. What is
        `known` of it beforehand is written anew where it is no longer what it was.
        """
        try:
            try:
                found = self._read_known(manifest)
            except FormatError:
                if not known:
                    raise
                restore_known(self._fd, self.partial, manifest, known)
                found = self._read_known(manifest)
            checked, self._positions, bound = found
            self._open(checked)
            self.layout = bound
            reserve(self._fd, self.layout.size, self.partial)
            if check:
                self._forget_damaged(read_synced(self.partial, self._entries.reshape(-1)))
            self._recall()
            if check:
                self._take_over_others()
        except BaseException:
            self._leave()
            os.close(self._fd)
            raise

    def _read_known(self, manifest: Manifest) -> tuple[Layout, Positions | None, Layout]:
        """The checked layout of the partial file, its positions, and the layout with what all rows share. Raises
        FormatError.
        """
        checked = _check_begun(self.partial, manifest)
        stored = StoredRows(self._fd, checked, self.partial)
        return checked, known_positions(stored), bound_layout(stored)

    def _leave(self) -> None:
        """Gives up this writer's part in a file that others write too."""
        if self._member is not None:
            self._member.close()
            locks.give_up(self._fd)
            self._member = None

    def __enter__(self) -> LogitCacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., LogitCacheWriter], tuple[Path, Path, Manifest]]:
        return _join, (self.path.absolute(), self.partial.absolute(), self.manifest)

    def close(self) -> None:
        """Closes the file; what is written stays for the next writer."""
        if self._fd >= 0:
            self._marks.close()
            self._synced.close()
            self._leave()
            os.close(self._fd)
            self._fd = self._stored.file.fd = -1

    def is_written(self, view: int = 0) -> NDArray[np.bool_]:
        """(N,) bool: which rows of `view` are stored; a resumed pass over the data skips those."""
        written: NDArray[np.bool_] = self._filled[view]
        return written.copy()

    def sync(self) -> None:
        """Makes what was written durable: whoever goes on with the file does not read it back. Raises StorageError, and
        then removes the partial file: after a failed sync nobody knows which rows are on the disk.
        """
        self._sync()
        self._synced.append()

    def refresh(self) -> None:
        """Takes up the blocks that others have written into the same partial file since."""
        self._see_entries(slice(None), self._stored.read_entries())

    def write(
        self,
        indices: ArrayLike,
        logits: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        inputs: Any = None,
        input_crc32: ArrayLike | None = None,
        next_tokens: ArrayLike | None = None,
        view: int = 0,
    ) -> None:
        """Stores rows of raw teacher outputs.

        indices: (B,) integers in 0..N−1. logits: (B, C) floats; where samples have several positions each, (Q, C), all
        positions of the first of these samples, then those of the second. labels: (B,) integers, or (B, T) floats for
        regression; −1 or NaN where there is none, the default. Tensors of any device and dtype are taken as they are.

        inputs: what the teacher saw, a batch (B, …), a list of images, or a dictionary {name: (B, …)}. Their checksums
        are stored, with which `SoftLabelDataset` notices other data or another order. input_crc32: (B,) uint32, the
        checksums themselves, see `decant.input_crc32`; 0 where none is recorded, the default.

        next_tokens: (Q,) the token that follows each position, −1 where none does, of a cache that predicts "next".
        Left out, they are those of the stored tokens.

        Raises ValueRefusedError, naming sample and view, for NaN, Inf, float16 overflow, a wrong shape, an index out of
        range, or an index that is stored already with other values; StorageError where the disk fails. Warns once where
        the rows look like probabilities. A row of the same input whose logits are only rounded otherwise, as those that
        a distributed sampler pads with, is left as it was written first.
        """
        if inputs is not None:
            if input_crc32 is not None:
                raise ValueError("inputs and input_crc32: give one of them, they say the same")
            input_crc32 = input_checksums(inputs, np.size(validation.as_array("indices", indices)))
        if next_tokens is None and self._positions is not None:
            next_tokens = self._next_tokens(indices, view)
        batch = validation.check_batch(self.layout, indices, logits, labels, input_crc32, view, next_tokens)
        if not self._looked and len(batch.samples) >= _ENOUGH_ROWS:
            self._looked = True
            self._warn(doubts_of_rows(self.manifest, self._decode_some(batch)))
        self._store(batch)

    def write_encoded(
        self,
        indices: ArrayLike,
        rows: Mapping[str, ArrayLike],
        *,
        labels: ArrayLike | None = None,
        input_crc32: ArrayLike | None = None,
        next_log_prob: ArrayLike | None = None,
        view: int = 0,
    ) -> None:
        """Stores rows as `LogitCache.encoded` returns them, from a cache with the same encoding: not a bit changes.

        next_log_prob: (Q,) floats, what the teacher gave to the token that follows each position, NaN where none does;
        of a cache that predicts "next". Takes and raises what `write` does.
        """
        self._store(
            validation.check_encoded_batch(
                self.layout, indices, rows, labels, input_crc32, view, next_log_prob
            )
        )

    def _next_tokens(self, indices: ArrayLike, view: int) -> NDArray[np.int64] | None:
        """(Q,): the tokens that follow the positions of these samples. Raises ValueRefusedError where no tokens are
        stored.
        """
        about = self.manifest.positions
        if about is None or about.predicts != "next" or self._positions is None:
            return None
        if self._positions.tokens is None:
            raise ValueRefusedError(
                "next_tokens: (Q,) integers are needed, as the cache has no tokens: give these to Positions.of"
            )
        return self._positions.next_tokens(validation.check_indices(self.manifest, indices, view))

    def _decode_some(self, batch: Batch) -> NDArray[np.floating]:
        """Rows of a batch as logits: all, or the first positions."""
        rows: Mapping[str, NDArray[Any]] = batch.columns
        if self._positions is not None:
            rows = {name: rows[name][:_SOME_POSITIONS] for name in self.layout.encoded}
        return self.layout.encoding.decode(rows, self.manifest.num_outputs)

    def publish(self) -> Path:
        """Syncs the file, checks every block and gives the file its published name; returns that path.

        Raises IncompleteError, naming the first missing block, while rows are missing; StorageError where a block does
        not read back as it was written, or the sync fails: then nothing is published, and a failed sync is not tried
        again. Where another builder of the same cache was first, its file stays and this one is dropped.

        Warns where the rows cannot be a trained teacher's logits of these labels: no better than chance, one class for
        all samples, probabilities. For that it reads at most 4,096 rows.
        """
        self._require_whole()
        self._sync()
        if self._member is not None:
            try:
                alone = self._become_the_only_writer()
            except FileExistsError:
                self.close()
                return self.path
            if not alone:
                return self._publish_copy()
            self._require_whole()
        damaged = self._forget_damaged()
        if damaged:
            raise StorageError(
                f"{self.partial}: {self.blocks.name(*damaged[0])} does not read back as written; run it again"
            )
        with contextlib.suppress(PermissionError):  # another person's file, in a folder that several write to
            os.fchmod(self._fd, stat.S_IMODE(os.fstat(self._fd).st_mode) & ~0o222)
        if not partial.publish(self.partial, self.path):
            return self._publish_copy()
        self.close()
        _check_begun(self.path, self.manifest)
        partial.remove_all(self.path)
        sync_folder(self.path.parent)
        self._warn(doubts(LogitCache.open(self.path, verify="off")))
        return self.path

    def _require_whole(self) -> None:
        """Raises IncompleteError while blocks are missing, when what others have written is taken up."""
        self._entries = self._stored.read_entries()  # other ranks may have written into the same file
        if (self._entries == 0).any():
            self._recall()
            self._take_over_others()
        missing = np.argwhere(self._entries == 0)
        if len(missing):
            raise IncompleteError(
                f"{self.partial}: {len(missing):,} of {self._entries.size:,} blocks are not written, "
                f"the first is {self.blocks.name(*missing[0].tolist())}"
            )

    def _become_the_only_writer(self) -> bool:
        """See `joint.become_the_only_writer`. Opens the file anew, as another machine's writes are seen by who opens it
        after they were closed.
        """
        self._leave()
        try:
            fd = joint.open_joint(self.partial)
        except (
            FileNotFoundError,
            NotAFileError,
        ):  # published just now; or taken over by who could not see this one
            if self.path.exists():
                raise FileExistsError(self.path) from None
            return False
        self._stored.file.fd, old, self._fd = fd, self._fd, fd
        os.close(old)
        return joint.become_the_only_writer(fd, self.partial, self.path)

    def _publish_copy(self) -> Path:
        """Publishes a copy in a file that nobody else can write."""
        encoding = self.layout.encoding
        head = encoding.head if isinstance(encoding, Hidden) else None
        with LogitCacheWriter(self.path, self.manifest, positions=self._positions, head=head) as again:
            again._copy(self._stored)
            again.publish()
        self.close()
        return self.path

    def _warn(self, found: list[str]) -> None:
        """Says once what is doubtful about the rows."""
        if found and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.path}: likely not a trained teacher's logits: {'; '.join(found)}",
                CacheWarning,
                stacklevel=3,
            )

    def _begin(
        self, manifest: Manifest, positions: Positions | None, head: Head | None, name: Path
    ) -> tuple[Path, int]:
        """A new partial file: its header is whole, and this process has its lock, before it has its name; so is what is
        known of positions, and a head.
        """
        if head is None and isinstance(manifest.encoding, Hidden):
            raise ValueRefusedError(f"{self.path}: head: needed to begin it, as it is to hold hidden states")
        if manifest.positions is not None and positions is None:
            raise ValueRefusedError(
                f"{self.path}: positions: needed to begin it, as its manifest has positions"
            )
        fd = -1
        try:
            with drafting(name) as draft:
                _require_room(draft, hdf5.header_room(manifest), name)
                created, fd = hdf5.create(draft, manifest, _known_tables(positions, head))
                locks.claim(fd)
                reserve(fd, created.size, name)
                StoredRows(fd, created, name).mark_empty_blocks()
                os.fsync(fd)
        except RuntimeError as error:  # what h5py raises where a file cannot grow to its size on closing
            raise StorageError(f"{name}: creating: {error}; free some space and run it again") from error
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return name, fd

    def _open(self, checked: Layout) -> None:
        self.layout, self.manifest = checked, checked.manifest
        self._stored: StoredRows = StoredRows(self._fd, checked, self.partial)
        self.blocks: Blocks = self._stored.blocks
        self._entries = self._stored.read_entries()
        filled = self.blocks.of_every_sample(self._entries != 0)
        self._filled: NDArray[np.bool_] = np.ascontiguousarray(filled)
        self._member = joint.Member(self.partial) if joint.is_joint(self.partial) else None
        self._marks, self._synced = RowMarks(self.partial), SyncedBlocks(self.partial)

    def _store(self, batch: Batch) -> None:
        """Writes the rows that are not stored yet, and then the entries of the blocks that are whole with them."""
        view, rows = batch.view, batch.samples
        if self._member is not None and len(rows):
            first, last = self.blocks.of(np.array([rows.min(), rows.max()])).tolist()
            blocks = slice(first, last + 1)
            entries = self._stored.read_some_entries(view, blocks.start, blocks.stop)
            self._see_entries(slice(view, view + 1), entries[None], blocks)
        self._check_repeats(batch)
        fresh = np.flatnonzero(~self._filled[view, rows])
        for first, end in _runs(rows, fresh):
            for table in batch.columns:
                self._stored.write(table, view, int(rows[first]), batch.part(table, first, end))
        self._filled[view, rows[fresh]] = True
        self._finish(batch, fresh)
        if self._member is not None:
            self._member.add(len(fresh))

    def _see_entries(self, views: slice, entries: NDArray[np.uint64], blocks: slice = slice(None)) -> None:
        """Takes up entries that others may have written: what is whole is not written again."""
        theirs = (self._entries[views, blocks] == 0) & (entries != 0)
        for view, block in np.argwhere(theirs).tolist():
            first, end = self.blocks.bounds(block + (blocks.start or 0))
            self._filled[view + (views.start or 0), first:end] = True
        self._entries[views, blocks] = np.where(theirs, entries, self._entries[views, blocks])

    def _finish(self, batch: Batch, fresh: NDArray[np.intp]) -> None:
        """Marks rows that are in the file: by the entry of their block where that is whole, or else one by one."""
        of_block = self.blocks.of(batch.samples[fresh])
        whole = {block for block in np.unique(of_block).tolist() if self._is_filled(batch.view, block)}
        rest = fresh[[block not in whole for block in of_block.tolist()]]
        if len(rest):
            self._marks.append(batch.view, batch.samples[rest], row_crc32(self.blocks, batch.pick(rest)))
        for block in sorted(whole):
            self._finish_block(batch.view, block)
        if self._synced.are_due():
            self._sync()
            self._synced.append()

    def _finish_block(self, view: int, block: int) -> None:
        """Writes the entry of a block whose rows are all in the file."""
        entry = self._stored.finish_block(view, block)
        self._entries[view, block] = entry
        self._synced.finished(view * self.blocks.per_view + block, entry, self.blocks.nbytes(block))

    def _sync(self) -> None:
        """Makes what was written durable. Raises StorageError, and then removes the file."""
        try:
            self._stored.file.sync()
        except StorageError:
            self.close()
            partial.remove(self.partial)
            raise

    def _is_filled(self, view: int, block: int) -> bool:
        first, end = self.blocks.bounds(block)
        return bool(self._filled[view, first:end].all())

    def _recall(self) -> None:
        """Takes up rows that this or another process has written into the file, and the blocks that are whole so."""
        self._filled |= self.blocks.of_every_sample(self._entries != 0)
        for found in marked_rows(self._stored, read_marks(self.partial), ~self._filled):
            self._filled[found.view, found.samples] = True
        for view in range(self.blocks.num_views):
            whole = self.blocks.whole(self._filled[view]) & (self._entries[view] == 0)
            for block in np.flatnonzero(whole).tolist():
                self._finish_block(view, block)

    def _take_over_others(self) -> None:
        for other in partial.begun(self.path):
            if other != self.partial:
                self._take_over(other)

    def _forget_damaged(self, trusted: NDArray[np.bool_] | None = None) -> list[tuple[int, int]]:
        """Marks every block that is not as it was written as unwritten; returns those (view, block). The `trusted` ones
        (V·⌈N/R⌉,) are not read.
        """
        damaged = self._stored.forget_damaged(self._entries, trusted)
        for view, block in damaged:
            first, end = self.blocks.bounds(block)
            self._filled[view, first:end] = False
        return damaged

    def _take_over(self, other: Path) -> None:
        """Copies the sound rows of another builder's file, and removes that file unless its builder still runs."""
        unusable = (FormatError, PermissionError, FileNotFoundError, NotAFileError)
        with contextlib.suppress(*unusable), open_read(other, follow=False) as file:
            self._copy(StoredRows(file.fileno(), _check_begun(other, self.manifest), other))
            if not locks.in_use(file.fileno()):
                partial.remove(other)

    def _copy(self, source: StoredRows) -> None:
        """Copies the rows that are written in `source` and not here: of whole blocks, and those that are marked."""
        theirs = source.read_entries()
        for view, block in np.argwhere((theirs != 0) & (self._entries == 0)).tolist():
            first, end = self.blocks.bounds(block)
            if source.expected_entry(view, block) == theirs[view, block]:  # not damaged there
                self._adopt(read_batch(source, view, first, end))
        for found in marked_rows(source, read_marks(source.file.path), ~self._filled):
            self._adopt(found)

    def _adopt(self, batch: Batch) -> None:
        """Stores rows of another builder's file that are not here yet; where both have a row, that here stays."""
        chosen = batch.pick(np.flatnonzero(~self._filled[batch.view, batch.samples]))
        with contextlib.suppress(ValueRefusedError):  # which `encode` never returns
            validation.check_rows(self.layout, chosen)
            self._store(chosen)

    def _check_repeats(self, batch: Batch) -> None:
        """Raises ValueRefusedError where a row is stored already with other bytes, or its label for another view."""
        view, filled = batch.view, self._filled[:, batch.samples]
        for place in np.flatnonzero(filled.any(axis=0)).tolist():
            row = int(batch.samples[place])
            for table in batch.columns if filled[view, place] else self.blocks.shared:
                given = batch.part(table, place, place + 1)
                stored = self._stored.read_array(table, view, row, row + 1)
                if stored.tobytes() != given.tobytes() and not self._is_rounding(batch, place):
                    where = "" if filled[view, place] else ", for another view"
                    raise ValueRefusedError(
                        f"sample {row}, view {view}: already stored with other {table}{where}"
                    )

    def _is_rounding(self, batch: Batch, place: int) -> bool:
        """Whether a row that is stored already is given again with logits of the same input, rounded otherwise, as a
        device may round them in another batch: what was written first stays.
        """
        row, given = int(batch.samples[place]), batch.rows([place])
        stored = {table: self._stored.read_array(table, batch.view, row, row + 1) for table in batch.columns}
        if not given["input_crc32"].any() or any(
            given[table].tobytes() != stored[table].tobytes() for table in ("labels", "input_crc32")
        ):
            return False
        return validation.are_close(self.layout, stored, given, _ROUNDING)


def _known_tables(positions: Positions | None, head: Head | None) -> dict[str, NDArray[Any]]:
    """The tables that are given when a cache is begun."""
    known = {} if positions is None else positions.tables()
    return known if head is None else {**known, **head.tables()}


def _require_room(draft: Path, size: int, path: Path) -> None:
    """Raises StorageError where the disk has no room for a file of `size` bytes, the header of `path`. HDF5 would fail
    in the middle of it, and keep the file open.
    """
    fd = create_new(draft)
    try:
        reserve(fd, size, path)
    finally:
        os.close(fd)
        draft.unlink()


def _check_begun(path: Path, manifest: Manifest) -> Layout:
    """The layout of a file that must have the same identity. Raises FormatError, MismatchError."""
    with open_read(path) as file:
        try:
            found = hdf5.check(file, str(path))
        except FormatError as error:
            raise type(error)(f"{error}; delete it and run the command again") from None
    require_equal(
        manifest.identity,
        found.manifest.identity,
        subject=f"{path}: was begun with another identity",
        hint="Delete it, or go on with the settings that it was begun with.",
    )
    return found


def _join(path: Path, name: Path, manifest: Manifest) -> LogitCacheWriter:
    """A writer into a partial file that another process of the same job has."""
    writer = LogitCacheWriter.__new__(LogitCacheWriter)
    writer.path, writer.partial = path, name
    writer._fd = open_write(name)
    try:
        locks.join(writer._fd)
        writer._open(_check_begun(name, manifest))
        writer._positions, writer.layout = known_positions(writer._stored), bound_layout(writer._stored)
        writer._recall()
    except BaseException:
        writer._leave()
        os.close(writer._fd)
        raise
    return writer


def _runs(rows: NDArray[np.int64], places: NDArray[np.intp]) -> list[tuple[int, int]]:
    """`places` as [first, end) ranges over which both the places and their rows go up by one."""
    if not len(places):
        return []
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(rows[places]) != 1)) + 1
    starts, ends = np.r_[0, breaks], np.r_[breaks, len(places)]
    return [(int(places[start]), int(places[end - 1]) + 1) for start, end in zip(starts, ends, strict=True)]
