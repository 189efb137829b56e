"""LogitCacheWriter: takes rows in any order, and publishes a whole, checked file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache import validation
from decant.cache.beginning import check_begun, hold_or_begin, join_or_begin, known_tables, named_failure
from decant.cache.encodings import Head, Hidden
from decant.cache.errors import FormatError, StorageError, ValueRefusedError, warn
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks
from decant.cache.format.known import require_head, require_positions
from decant.cache.format.tables import Layout
from decant.cache.inputs import input_checksums
from decant.cache.io import locks, partial
from decant.cache.io.files import sync_folder, user_path
from decant.cache.io.opening import open_write
from decant.cache.io.system import close_quietly, protect
from decant.cache.manifest import Manifest
from decant.cache.partial_rows import PartialRows
from decant.cache.positions import Positions
from decant.cache.reader import LogitCache
from decant.cache.statistics.plausibility import doubts, doubts_of_rows

_ENOUGH_ROWS = 8
"""Rows that are looked at before a teacher's outputs are doubted."""
_SOME_ROWS, _SOME_POSITIONS = 1024, 64
"""How many of a first batch are looked at."""


class LogitCacheWriter:
    """Writes the rows of one cache, in any order, into a partial file beside `path`; `publish` turns that into `path`.

    A writer that is opened again after a kill goes on where it was (`cache.partial_rows`). `path` appears, in one step,
    after every block was read back, agrees with its entry and is synced. Two builders never write into one file
    (`cache.io.partial`), so they need not exclude each other; `Store.building` does so to save the second one the work.

    Ranks of one job write any rows, each with a writer of its own. Writers of the same path have a file each, until one
    of them publishes. They have one file together where they `join`, or where the writer was sent to them by pickle.
    When all rows are written, whoever calls `publish` joins them; until then it raises IncompleteError. Rows of
    blocks that are not whole yet are marked one by one, in a file beside the partial one
    (`cache.format.row_marks`).

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
        self.path = user_path(path)
        known = require_positions(manifest, positions, lengths, tokens)
        require_head(manifest, head)
        with named_failure(self.path):
            name, fd = hold_or_begin(self.path, manifest, known, head)
            given = known_tables(known, head)
            self._rows = PartialRows.go_on(name, fd, manifest, given, published=self.path, check=True)

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
            return _joined(user_path(path), partial_file, manifest)
        writer = cls.__new__(cls)
        writer.path = user_path(path)
        known = require_positions(manifest, positions, None, None)
        require_head(manifest, head)
        with named_failure(writer.path):
            name, fd, alone = join_or_begin(writer.path, manifest, known, head)
            given = known_tables(known, head)
            writer._rows = PartialRows.go_on(name, fd, manifest, given, published=writer.path, check=alone)
        return writer

    def __enter__(self) -> LogitCacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., LogitCacheWriter], tuple[Path, Path, Manifest]]:
        return _joined, (self.path.absolute(), self.partial.absolute(), self.manifest)

    def close(self) -> None:
        """Closes the file; what is written stays for the next writer."""
        self._rows.close()

    @property
    def partial(self) -> Path:
        """The partial file."""
        return self._rows.path

    @property
    def layout(self) -> Layout:
        """Where the tables of the file lie."""
        return self._rows.layout

    @property
    def manifest(self) -> Manifest:
        """What the cache is of."""
        return self._rows.manifest

    @property
    def blocks(self) -> Blocks:
        """Which rows are in which block."""
        return self._rows.blocks

    def is_written(self, view: int = 0) -> NDArray[np.bool_]:
        """(N,) bool: which rows of `view` are stored; a resumed pass over the data skips those."""
        written: NDArray[np.bool_] = self._rows.filled[view]
        return written.copy()

    def encoded(self, index: int, view: int = 0) -> dict[str, NDArray[Any]]:
        """The rows of one sample that is stored, by table, as `LogitCache.encoded` returns them. Raises IndexError
        where it is not.
        """
        if not 0 <= index < self.manifest.num_samples or not self._rows.filled[view, index]:
            raise IndexError(f"sample {index}, view {view}: is not written")
        return self._rows.encoded(index, view)

    def next_log_prob(self, index: int, view: int = 0) -> NDArray[np.float32]:
        """(q,) what the teacher gave to the token that follows each position of one sample that is stored, as
        `LogitCache.next_log_prob` returns it. Raises IndexError where it is not stored, TypeError where none is noted.
        """
        if not 0 <= index < self.manifest.num_samples or not self._rows.filled[view, index]:
            raise IndexError(f"sample {index}, view {view}: is not written")
        return self._rows.next_log_prob(index, view)

    def sync(self) -> None:
        """Makes what was written durable: whoever goes on with the file does not read it back. Raises StorageError, and
        then removes the partial file: after a failed sync nobody knows which rows are on the disk.
        """
        self._rows.sync()

    def in_file(self, indices: ArrayLike, view: int = 0) -> NDArray[np.bool_]:
        """(B,) bool: which samples' rows are in the partial file now, whoever has written them. Of the rows of others
        it sees those of blocks that are whole. Raises ValueRefusedError where `indices` are none of the cache's.
        """
        return self._rows.in_file(view, validation.check_indices(self.manifest, indices, view))

    def refresh(self) -> None:
        """Takes up the blocks that others have written into the same partial file since."""
        self._rows.refresh()

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
        if next_tokens is None and self._rows.positions is not None:
            next_tokens = self._next_tokens(indices, view)
        batch = validation.check_batch(self.layout, indices, logits, labels, input_crc32, view, next_tokens)
        if not self._looked and len(batch.samples) >= _ENOUGH_ROWS:
            self._looked = True
            self._warn(doubts_of_rows(self.manifest, self._decode_some(batch)))
        self._rows.store(batch)

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
        self._rows.store(
            validation.check_encoded_batch(
                self.layout, indices, rows, labels, input_crc32, view, next_log_prob
            )
        )

    def _next_tokens(self, indices: ArrayLike, view: int) -> NDArray[np.int64] | None:
        """(Q,): the tokens that follow the positions of these samples. Raises ValueRefusedError where no tokens are
        stored.
        """
        about = self.manifest.positions
        if about is None or about.predicts != "next" or self._rows.positions is None:
            return None
        if self._rows.positions.tokens is None:
            raise ValueRefusedError(
                "next_tokens: (Q,) integers are needed, as the cache has no tokens: give these to Positions.of"
            )
        return self._rows.positions.next_tokens(validation.check_indices(self.manifest, indices, view))

    def _decode_some(self, batch: Batch) -> NDArray[np.floating]:
        """The first rows of a batch as logits, or of its positions."""
        some = _SOME_ROWS if self._rows.positions is None else _SOME_POSITIONS
        rows = {name: batch.columns[name][:some] for name in self.layout.encoded}
        return self.layout.encoding.decode(rows, self.manifest.num_outputs)

    def publish(self) -> Path:
        """Syncs the file, checks every block and gives the file its published name; returns that path.

        Raises IncompleteError, naming the first missing block, while rows are missing; StorageError where a block does
        not read back as it was written, or the sync fails: then nothing is published, and a failed sync is not tried
        again. Where another builder of the same cache was first, its file stays and this one is dropped.

        Warns where the rows cannot be a trained teacher's logits of these labels: no better than chance, one class for
        all samples, probabilities. For that it reads at most 4,096 rows.
        """
        rows = self._rows
        rows.require_whole(self.path)
        if rows.is_joint:
            rows.make_durable()
            try:
                alone = rows.become_the_only_writer(self.path)
            except FileExistsError:
                self.close()
                return self.path
            if not alone:
                return self._publish_copy()
            rows.require_whole(self.path)
        try:
            damaged = rows.read_back_and_sync()
        except FormatError as error:
            raise StorageError(
                f"{self.partial}: {error}, so does not read back as written; run it again"
            ) from None
        if damaged:
            raise StorageError(
                f"{self.partial}: {self.blocks.name(*damaged[0])} does not read back as written; run it again"
            )
        protect(rows.fd)
        if not partial.publish(self.partial, self.path):
            return self._publish_copy()
        self.close()
        check_begun(self.path, self.manifest)
        sync_folder(self.path.parent)  # before its other name goes, so that a power cut leaves one of them
        partial.remove_all(self.path)
        self._warn(doubts(LogitCache.open(self.path, verify="off")))
        return self.path

    def _publish_copy(self) -> Path:
        """Publishes a copy in a file that nobody else can write."""
        encoding = self.layout.encoding
        head = encoding.head if isinstance(encoding, Hidden) else None
        with LogitCacheWriter(self.path, self.manifest, positions=self._rows.positions, head=head) as again:
            again._rows.copy(self._rows.stored)
            again.publish()
        self.close()
        return self.path

    def _warn(self, found: list[str]) -> None:
        """Says once what is doubtful about the rows."""
        if found and not self._warned:
            self._warned = True
            warn(f"{self.path}: likely not a trained teacher's logits: {'; '.join(found)}")


def _joined(path: Path, name: Path, manifest: Manifest) -> LogitCacheWriter:
    """A writer into a partial file that another process of the same job has."""
    writer = LogitCacheWriter.__new__(LogitCacheWriter)
    writer.path, fd, rows = path, open_write(name), None
    try:
        locks.join(fd)
        rows = PartialRows(name, fd, manifest)
        rows.recall()
    except BaseException:
        if rows is not None:
            rows.leave()
        close_quietly(fd)
        raise
    writer._rows = rows
    return writer
