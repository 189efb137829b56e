"""One cache from the unfinished files of several machines that share no file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Head, Hidden
from decant.cache.errors import CacheError, FormatError, IncompleteError, MismatchError, warn
from decant.cache.format import hdf5
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.format.known import bound_layout, known_positions
from decant.cache.format.row_marks import marked_rows, read_batch, read_marks
from decant.cache.format.tables import Layout
from decant.cache.identities import require_equal
from decant.cache.io import partial
from decant.cache.io.locks import in_use
from decant.cache.io.opening import NotAFileError, open_read
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

NameMissing = Callable[[Manifest, NDArray[np.bool_]], str]
"""(manifest, missing rows (V, N)) → what to do about them, for a message."""
_SHOWN = 4  # ranges of missing rows, or damaged blocks, that a message lists


def merge_parts(store: Store, files: Sequence[Path], name_missing: NameMissing | None = None) -> Path:
    """Publishes in `store` the cache whose parts are in `files`, or finds it there; returns its path. `files` are
    unfinished files of one cache, each with the logs (`.rows`) beside it; what is begun of it in `store` counts too.
    They are only read, and all of them before a row is written; a call that was killed goes on when it is repeated.

    Raises MismatchError where they are of different caches, naming every field that differs, and where two of them
    have different rows of one sample; IncompleteError where rows are in none of them, with what `name_missing` says of
    those; CacheError for a file that a process still writes; FormatError for what is no cache; FileNotFoundError.
    Warns of damaged blocks whose rows another file has.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> manifest, files = Manifest.build(num_samples=4, num_outputs=2), []
    >>> for machine, rows in enumerate(([0, 1], [2, 3])):
    ...     with LogitCacheWriter(Path(folder.name, str(machine), "toy.h5"), manifest) as writer:
    ...         writer.write(rows, np.eye(2), labels=[0, 1])
    ...         files.append(writer.partial)
    >>> merge_parts(Store(Path(folder.name, "store")), files).name == Store().path(manifest).name
    True
    >>> folder.cleanup()
    """
    with contextlib.ExitStack() as opened:
        sources = [_Source(opened.enter_context(_open(path)), path) for path in dict.fromkeys(files)]
        if not sources:
            raise ValueError("files: expected at least one")
        manifest = sources[0].layout.manifest
        with store.building(manifest) as path:
            given = {os.path.realpath(source.path) for source in sources}
            sources += [
                _Source(opened.enter_context(_open(begun)), begun)
                for begun in partial.begun(path)
                if os.path.realpath(begun) not in given
            ]
            _require_same_identity(sources)
            found = store.find(manifest)
            if found is not None:
                return found
            _require_all(sources, name_missing)
            first = sources[0]
            with LogitCacheWriter(path, manifest, positions=first.positions(), head=first.head()) as writer:
                _write(writer, sources)
                return writer.publish()


def _open(path: Path) -> BinaryIO:
    try:
        return open_read(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (NotAFileError, IsADirectoryError) as error:
        raise FormatError(f"{path}: {error.strerror}") from None


class _Source:
    """An unfinished file, and the rows that are written in it."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        if in_use(file.fileno()):
            raise CacheError(f"{path}: a process still writes it; merge when it has ended")
        self.path = path
        self.layout: Layout = hdf5.check(file, os.fspath(path))
        self._stored = StoredRows(file.fileno(), self.layout, path)
        self.blocks: Blocks = self._stored.blocks
        self._entries = self._stored.read_entries()
        self.damaged: list[str] = []
        """The blocks that were found to be other than they were written, in words."""

    def positions(self) -> Positions | None:
        """What it was begun with, where samples have several positions each."""
        return known_positions(self._stored)

    def head(self) -> Head | None:
        """What makes logits of its rows, where these are hidden states."""
        encoding = bound_layout(self._stored).encoding
        return encoding.head if isinstance(encoding, Hidden) else None

    def rows(self) -> Iterator[tuple[int, Batch]]:
        """Block number and rows of each block of which rows are written, in order; those of damaged blocks are left out
        and named in `damaged`.
        """
        self.damaged = []
        whole = self.blocks.of_every_sample(self._entries != 0)
        single = marked_rows(self._stored, read_marks(self.path), ~whole)
        waiting = next(single, None)
        for view, block in np.ndindex(*self._entries.shape):
            number = view * self.blocks.per_view + block
            if self._entries[view, block]:
                rows = self._whole(view, block)
                if rows is not None:
                    yield number, rows
            elif waiting is not None and (waiting.view, self.blocks.of(waiting.samples)[0]) == (view, block):
                yield number, waiting
                waiting = next(single, None)

    def _whole(self, view: int, block: int) -> Batch | None:
        first, end = self.blocks.bounds(block)
        if self._stored.expected_entry(view, block) != self._entries[view, block]:
            self.damaged.append(self.blocks.name(view, block))
            return None
        return read_batch(self._stored, view, first, end) if first < end else None


def _require_same_identity(sources: Sequence[_Source]) -> None:
    """Raises MismatchError; warns where only what is not part of the identity differs."""
    first = sources[0]
    for other in sources[1:]:
        require_equal(
            first.layout.manifest.identity,
            other.layout.manifest.identity,
            subject=f"{other.path}: is of another cache than {first.path}",
            hint="Merge the parts of one recipe, made with one teacher on one version of the data.",
        )
        if other.layout.manifest.info != first.layout.manifest.info:
            warn(
                f"{other.path}: was made with other versions or settings than {first.path} (`info` in `decant cache "
                "info`); the merged cache has those of the latter"
            )


def _require_all(sources: Sequence[_Source], name_missing: NameMissing | None) -> None:
    """Reads everything. Raises IncompleteError where rows are missing, MismatchError where files differ in one."""
    blocks, manifest = sources[0].blocks, sources[0].layout.manifest
    written = np.zeros((blocks.num_views, blocks.num_samples), np.bool_)
    for rows in _combined(sources):
        written[rows.view, rows.samples] = True
    damage = [
        f"{source.path}: {name} is not as it was written" for source in sources for name in source.damaged
    ]
    if not written.all():
        more = "" if name_missing is None else f"; {name_missing(manifest, ~written)}"
        because = f"; {_shortened(damage)}" if damage else ""
        raise IncompleteError(
            f"{len(sources):,} files have {np.count_nonzero(written):,} of {written.size:,} rows: missing are "
            f"{_shortened(_ranges(~written))}{because}{more}"
        )
    if damage:
        warn(f"{_shortened(damage)}; the rows are in another file")


def _combined(sources: Sequence[_Source]) -> Iterator[Batch]:
    """The rows of all files, block by block. Raises MismatchError where two files have other bytes of one row."""
    streams = [source.rows() for source in sources]
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        number = min(head[0] for head in heads if head is not None)
        of_block = [head is not None and head[0] == number for head in heads]
        yield _united(
            [
                (sources[place], head[1])
                for place, head in enumerate(heads)
                if head is not None and of_block[place]
            ]
        )
        heads = [
            next(stream, None) if due else head
            for stream, head, due in zip(streams, heads, of_block, strict=True)
        ]


def _united(found: Sequence[tuple[_Source, Batch]]) -> Batch:
    """The rows of one block that several files have."""
    (first, united), *others = found
    for source, rows in others:
        both, here, there = np.intersect1d(
            united.samples, rows.samples, assume_unique=True, return_indices=True
        )
        different = _first_difference(united.pick(here), rows.pick(there)) if len(both) else None
        if different is not None:
            table, sample = different
            raise MismatchError(
                f"{source.path}: sample {sample}, view {rows.view} has other {table} than in {first.path}; one of "
                "them is wrong, or two devices have rounded differently: leave one of the files out"
            )
        fresh = ~np.isin(rows.samples, united.samples, assume_unique=True)
        united = united.joined(rows.pick(np.flatnonzero(fresh)))
    return united


def _first_difference(one: Batch, other: Batch) -> tuple[str, int] | None:
    """Table and sample in which two batches of the same samples differ."""
    for table, column in one.columns.items():
        if column.tobytes() == other.columns[table].tobytes():
            continue
        for place, sample in enumerate(one.samples.tolist()):
            mine, theirs = (batch.part(table, place, place + 1) for batch in (one, other))
            if mine.tobytes() != theirs.tobytes():
                return table, sample
    return None


def _write(writer: LogitCacheWriter, sources: Sequence[_Source]) -> None:
    """Writes what is not written yet, by a call that was killed or as the writer took it over."""
    written = [writer.is_written(view) for view in range(writer.manifest.num_views)]
    for found in _combined(sources):
        fresh = found.pick(np.flatnonzero(~written[found.view][found.samples]))
        if len(fresh.samples):
            columns = dict(fresh.columns)
            beside = {
                name: columns.pop(name)
                for name in ("labels", "input_crc32", "next_log_prob")
                if name in columns
            }
            writer.write_encoded(fresh.samples, columns, **beside, view=found.view)


def _ranges(missing: NDArray[np.bool_]) -> list[str]:
    """Runs of missing rows in words."""
    found = []
    for view, row in enumerate(missing):
        edges = np.flatnonzero(np.diff(np.r_[False, row, False]))
        for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            rows = f"row {first:,}" if end == first + 1 else f"rows {first:,} to {end - 1:,}"
            found.append(rows + (f" of view {view}" if len(missing) > 1 else ""))
    return found


def _shortened(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return "; ".join(words[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
