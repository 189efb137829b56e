"""LogitCache: reads the rows of a published cache."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, SupportsFloat, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Encoding, Head, Hidden, Sparse, SparseRows
from decant.cache.encodings.temperatures import Bounds, bounds_in_words
from decant.cache.errors import (
    CorruptError,
    FormatError,
    IncompleteError,
    MismatchError,
    ValueRefusedError,
)
from decant.cache.format import hdf5
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks
from decant.cache.format.tables import Layout
from decant.cache.io import bus_errors
from decant.cache.io.blockfile import WRITTEN, BlockChecks
from decant.cache.io.checksum import crc32
from decant.cache.io.opening import NotAFileError, open_read
from decant.cache.io.partial import PARTIAL
from decant.cache.io.unchanged import Unchanged
from decant.cache.lengths import Ragged
from decant.cache.manifest import POSITIONS, Manifest
from decant.cache.placement import Content, Placement, read_in_order
from decant.cache.positions import Positions, sha256
from decant.cache.remote.addresses import is_url
from decant.cache.remote.lazily import LazyCopy, fetch_url, open_lazily
from decant.cache.row_numbers import as_rows, from_start, one_by_one, outside, views_of
from decant.cache.validation import check_rows

_INTP = np.dtype(np.intp)
_SURVEYED = 1000  # rows that are looked at to say how well a softmax is known

Verify = Literal["open", "lazy", "off"]
"""When block checksums are checked: all on opening, each when it is first read, or never."""


class LogitCache:
    """A published cache, mapped into memory: reading a row costs what indexing an array costs.

    `LogitCache.open` makes one. It holds no HDF5 handle. Forked workers share its pages; unpickled in another process,
    it maps the same path again, and refuses another cache that has taken its place.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits = np.arange(8, dtype=np.float16).reshape(4, 2)
    >>> path = import_logits(Store(folder.name), logits, np.array([0, 1, 1, 0]), teacher={}, data={"name": "toy"})
    >>> cache = LogitCache.open(path)
    >>> cache.num_samples, cache.num_views, cache.num_classes, cache.labels.tolist()
    (4, 1, 2, [0, 1, 1, 0])
    >>> cache.logits([3, 0])
    array([[6., 7.],
           [0., 1.]], dtype=float16)
    >>> cache.verify()
    []
    >>> folder.cleanup()
    """

    def __init__(
        self, path: Path, layout: Layout, content: Content, verify: Verify, lazy: LazyCopy | None = None
    ) -> None:
        """For `open`: takes the checked layout of the file and its bytes, and where missing blocks are fetched from."""
        self.path = path
        self._lazy, self._mapped = lazy, content.mapped
        self.manifest: Manifest = layout.manifest
        self.verify_mode = verify
        self._layout = layout
        self._tables = {name: content.array(table) for name, table in layout.tables.items()}
        self._blocks = Blocks(layout)
        once = {
            name: self._tables[name] for name in layout.manifest.encoding.once(layout.manifest.num_outputs)
        }
        self._encoding = layout.manifest.encoding.bind(once) if once else layout.manifest.encoding
        self._once, self._once_sound = once, verify == "off" or not once
        self._num_outputs = (
            layout.manifest.num_outputs
        )  # at hand: a manifest looks it up and checks it each time
        self.temperature = 1.0
        """T whose softmax `logits` are for, where the cache does not hold every logit; see `at_temperature`."""
        encoded = {name: self._tables[name] for name in layout.encoded}
        self._views = [
            {name: table[view] for name, table in encoded.items()} for view in range(self.num_views)
        ]
        self._all_views = {name: table.reshape(-1, *table.shape[2:]) for name, table in encoded.items()}
        self._lengths = layout.axes.get("position")
        self._axes = layout.axes
        entries = self._tables["blocks"]
        if not entries.all():
            missing = np.argwhere(entries == 0)
            raise IncompleteError(
                f"{path}: {len(missing):,} of {entries.size:,} blocks are not written, "
                f"the first is {self._blocks.name(*missing[0].tolist())}; it was never published"
            )
        self._checks = BlockChecks(
            self._blocks, content.read, trusted=verify == "off", repair=None if lazy is None else lazy.fill
        )
        if self._lengths is not None:
            self._require_empty_blocks(verify)
        self._unchanged = Unchanged(
            content.mapped,
            self._checks,
            partial(_block_name, self._blocks),
            times_count=not content.is_copied and lazy is None,
        )
        if verify == "open":
            with read_in_order(self._mapped):
                damaged = self._checks.check_all()
            if damaged:
                raise CorruptError(f"{path}: {self._name(damaged[0])} is not as it was written")
            if self._once:
                self._check_once()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: Verify = "lazy",
        table: Placement = "mapped",
        lazy: bool = False,
    ) -> LogitCache:
        """Checks the structure of the file and maps it into memory; table="ram" copies the logits into memory instead.

        path: a file, or the address of one, as `s3://bucket/caches/x.h5`: it is fetched and checked first, unless there
        is a copy in the mirror. With `lazy` its blocks are fetched when they are read.
        verify: when the checksums of blocks are checked: "lazy" checks each when it is first read, "open" checks all
        now, "off" none (and each as it is fetched). Raises FormatError for a file that is not a sound cache,
        IncompleteError for one with unwritten rows, CorruptError with verify="open" for altered blocks,
        FileNotFoundError where there is no file, RemoteError where a store elsewhere fails, OfflineError where it
        cannot be reached and no copy is there.

        >>> LogitCache.open("ftp://host/x.h5")
        Traceback (most recent call last):
            ...
        decant.cache.errors.RemoteError: ftp://host: stores are folders, or begin with s3://, ...
        """
        if verify not in get_args(Verify):
            raise ValueError(f"verify: expected open, lazy or off, found {verify!r}")
        if table not in get_args(Placement):
            raise ValueError(f"table: expected auto, mapped or ram, found {table!r}")
        if is_url(path):
            return cls._open_elsewhere(os.fspath(path), verify, table, lazy)
        path = Path(path)
        if path.name.endswith(PARTIAL):
            raise IncompleteError(
                f"{path}: a partial file; run the command that builds it again to finish it"
            )
        try:
            file = open_read(path)
        except (NotAFileError, IsADirectoryError):
            raise FormatError(f"{path}: not a file") from None
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: no such cache") from None
        with file:
            layout = hdf5.check(file, str(path))
            return cls(path, layout, Content(file, layout, path, table), verify)

    @classmethod
    def _open_elsewhere(cls, url: str, verify: Verify, table: Placement, lazy: bool) -> LogitCache:
        """The file at an address, by its copy in the mirror."""
        if not lazy or verify == "open" or table == "ram":
            return cls.open(fetch_url(url), verify=verify, table=table)
        found = open_lazily(url)
        if isinstance(found, Path):
            return cls.open(found, verify=verify, table=table)
        with found.open() as file:
            layout = hdf5.check(file, found.shown)
            return cls(found.path, layout, Content(file, layout, found.path, "mapped"), "lazy", found)

    @property
    def members(self) -> tuple[LogitCache, ...]:
        """The cache itself; an `Ensemble` has several."""
        return (self,)

    @property
    def num_samples(self) -> int:
        """N."""
        return self._blocks.num_samples

    @property
    def num_views(self) -> int:
        """V."""
        return self._blocks.num_views

    @property
    def num_outputs(self) -> int:
        """C: classes, or outputs of a regression."""
        return self._num_outputs

    @property
    def num_classes(self) -> int:
        """C."""
        return self.manifest.num_outputs

    @property
    def has_positions(self) -> bool:
        """Whether samples have several rows each, one for each of their positions."""
        return self._lengths is not None

    @property
    def num_positions(self) -> int:
        """P, of all samples together; N where a sample is one row."""
        return self._blocks.lengths.total

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) int64: how many positions each sample has; 1 each where a sample is one row. Read-only."""
        return _read_only(self._blocks.lengths.of(np.arange(self.num_samples)))

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(N + 1,) int64: the first position of each sample, and P. Read-only."""
        return _read_only(self._blocks.lengths.starts(np.arange(self.num_samples + 1)))

    @property
    def positions(self) -> Positions | None:
        """What tells the positions of the samples, for a writer of the same ones; None where a sample is one row.
        Tokens are mapped from the file, and their checksums are checked by `verify`, and by `tokens`, not here.
        """
        if self._lengths is None:
            return None
        return Positions(
            self.manifest.identity[POSITIONS],
            self._lengths,
            self._whole_table("tokens") if "tokens" in self._tables else None,
            self._axes["token"] if "tokens" in self._tables else None,
            self._whole_table("places") if "places" in self._tables else None,
        )

    def tokens(self, indices: ArrayLike | slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the teacher read of samples (B,): ids (…,) of all of them one after another, and offsets (B + 1,), where
        those of each begin. Raises as `logits` does, and TypeError where the cache has no tokens.

        >>> import tempfile
        >>> from decant.cache import LogitCacheWriter, Positions
        >>> folder = tempfile.TemporaryDirectory()
        >>> positions = Positions.of([2, 1], tokens=[5, 3, 4], predicts="next")
        >>> of = Manifest.build(num_samples=2, num_outputs=6, positions=positions)
        >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of, positions=positions) as writer:
        ...     writer.write([1, 0], np.eye(6)[[0, 3, 5]])
        ...     cache = LogitCache.open(writer.publish())
        >>> ids, offsets = cache.tokens([1, 0])
        >>> ids.tolist(), offsets.tolist()
        ([4, 5, 3], [0, 1, 3])
        >>> folder.cleanup()
        """
        if "tokens" not in self._tables:
            raise TypeError(f"{self.path}: holds no tokens")
        found, samples = self._gather({"tokens": self._tables["tokens"]}, indices, 0)
        return found["tokens"].astype(np.int64), self._axes["token"].spans(samples)

    def places(self, indices: ArrayLike | slice) -> NDArray[np.int64]:
        """(Q,): at which token of its sample each position of samples (B,) is. Raises as `logits` does."""
        if "places" not in self._tables:
            samples = from_start(one_by_one(as_rows(indices, self.num_samples)), self.num_samples)
            return self._blocks.lengths.within(samples)[1]
        found, _ = self._gather({"places": self._tables["places"]}, indices, 0)
        return found["places"].astype(np.int64)

    def next_log_prob(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.float32]:
        """(Q,): the log-probability, at T = 1, that the teacher gave to the token that follows each position of samples
        (B,); NaN where none does. Takes and raises what `logits` does, and TypeError where the cache does not predict
        the next token.
        """
        if "next_log_prob" not in self._tables:
            raise TypeError(
                f"{self.path}: does not predict the next token: it has no log-probabilities of it"
            )
        table = self._tables["next_log_prob"]
        found, _ = self._gather({"next_log_prob": table.reshape(-1)}, indices, view)
        return found["next_log_prob"].astype(np.float32)

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int64, −1 where there is none; or (N, T) float32 regression targets. Read-only.

        Checksums are checked by `verify` and by `logits`, not here.
        """
        return self._whole_table("labels")

    @property
    def input_crc32(self) -> NDArray[np.uint32]:
        """(V, N) uint32: CRC-32 of the bytes of each view that the teacher saw, 0 where it was not recorded.
        Read-only.
        """
        return self._whole_table("input_crc32")

    def logits(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.floating]:
        """Returns raw teacher outputs (B, C), a copy in the dtype of the manifest; (C,) for a single integer. Where
        samples have several positions each, they are (Q, C), those of one sample after another. Where the cache does
        not hold every logit, they are such that their softmax at `temperature` is what it knows.

        indices: (B,) integers (negative ones count from the end), a boolean mask (N,) or a slice. view: one for all
        samples, or (B,) integers. Raises IndexError for an index or a view out of range, CorruptError where a block
        that is read for the first time is not as it was written.
        """
        if not self._once_sound:
            self._check_once()
        rows = self.encoded(indices, view)
        try:
            return self._encoding.decode(rows, self._num_outputs, self.temperature)
        except IndexError:
            raise self._not_written("ids: one is no output") from None

    @property
    def encoding(self) -> Encoding:
        """How rows are stored, with what is needed to make logits of them. Raises CorruptError where a table that all
        rows share is not as it was written.
        """
        if not self._once_sound:
            self._check_once()
        return self._encoding

    @property
    def head(self) -> Head:
        """What makes logits of the hidden states of this cache, without a copy. Raises TypeError for a cache of another
        encoding, and CorruptError where it is not as it was written.
        """
        encoding = self.encoding
        if not isinstance(encoding, Hidden) or encoding.head is None:
            raise TypeError(f"{self.path}: holds no hidden states ({self._encoding.name})")
        return encoding.head

    def hidden(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.floating]:
        """The hidden states (B, d) of samples, or (Q, d) of their positions, as they are stored: `head.logits` makes
        logits of them. Takes and raises what `logits` does, and TypeError for a cache of another encoding.

        >>> import tempfile
        >>> from decant.cache import LogitCacheWriter
        >>> from decant.cache.encodings import Head, Hidden
        >>> folder, head = tempfile.TemporaryDirectory(), Head.of(np.eye(3, 2))
        >>> manifest = Manifest.build(num_samples=2, num_outputs=3, encoding=Hidden.of(head))
        >>> with LogitCacheWriter(f"{folder.name}/toy.h5", manifest, head=head) as writer:
        ...     writer.write([0, 1], np.float32([[1.0, 2.0], [3.0, 4.0]]))
        ...     cache = LogitCache.open(writer.publish())
        >>> cache.hidden([1]).tolist(), cache.logits([1]).tolist()
        ([[3.0, 4.0]], [[3.0, 4.0, 0.0]])
        >>> folder.cleanup()
        """
        if not isinstance(self._encoding, Hidden):
            raise TypeError(f"{self.path}: holds no hidden states ({self._encoding.name})")
        return self.encoded(indices, view)["hidden"]

    def _check_once(self) -> None:
        bus_errors.guard()
        try:
            self._encoding.check_once(self._once)
        except FormatError as error:
            self._unchanged.require_readable()
            raise CorruptError(f"{self.path}: {error}; fetch or build the file again") from None
        self._once_sound = True

    def at_temperature(self, temperature: float, *, interpolate: bool = False) -> LogitCache:
        """The same cache, whose `logits` are for softmaxes at `temperature`: itself where every logit is stored. Raises
        MismatchError where the cache does not know that softmax, as `Sparse` says, with how well it is known from what
        rows prove, unless `interpolate` takes the middle of that; and ValueError for what is no number above 0.

        >>> import tempfile
        >>> from decant.cache import LogitCacheWriter
        >>> from decant.cache.encodings import Sparse
        >>> folder = tempfile.TemporaryDirectory()
        >>> of = Manifest.build(num_samples=1, num_outputs=4, encoding=Sparse(2, (1.0, 2.0)))
        >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of) as writer:
        ...     writer.write([0], [[2.0, 0.0, 1.0, -1.0]])
        ...     cache = LogitCache.open(writer.publish())
        >>> cache.at_temperature(2.0).logits(0).round(2)
        array([ 2.  , -0.44,  1.  , -0.44], dtype=float32)
        >>> folder.cleanup()
        """
        if (
            isinstance(temperature, str | bool)
            or not isinstance(temperature, SupportsFloat)
            or not 0 < temperature < math.inf
        ):
            raise ValueError(f"temperature: expected a number above 0, found {temperature!r}")
        if temperature == self.temperature or self._encoding.format_version == 1:
            return self
        encoding = self._encoding.interpolating() if interpolate else self._encoding
        try:
            encoding.require_temperature(temperature)
        except MismatchError as error:
            proven = bounds_in_words(self.log_tail_bounds(temperature))
            raise MismatchError(f"{error}, or interpolate: what the rows prove of it is {proven}") from None
        other = copy.copy(self)
        other.temperature, other._encoding = temperature, encoding
        return other

    def log_tail_bounds(self, temperature: float) -> Bounds:
        """((Q,) least, (Q,) most): what some 1,000 rows of a sparse cache, at even distances in view 0, prove of the
        log mass of the outputs that they leave out, at any temperature; see `decant.cache.log_tail_bounds`. Takes and
        raises what `rows` does.
        """
        count = max(1, _SURVEYED * self.num_samples // max(1, self.num_positions))
        samples = np.unique(np.linspace(0, self.num_samples - 1, count).astype(np.intp))
        rows = self.rows(samples)
        assert isinstance(self._encoding, Sparse)  # or there were no rows
        return self._encoding.log_tail_bounds(rows, self.num_outputs, temperature)

    def rows(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> SparseRows:
        """What a sparse cache holds of samples (B,), without making (B, C) of it. Takes and raises what `logits` does,
        and TypeError for a cache of another encoding.
        """
        if not isinstance(self._encoding, Sparse):
            raise TypeError(f"{self.path}: has every logit ({self._encoding.name}): read `logits`")
        if self._lengths is None:
            return self._require_ids(self._encoding.rows(self.encoded(indices, view)))
        found, samples = self._gather(self._all_views, indices, view)
        return self._require_ids(self._encoding.rows(found))._replace(offsets=self._lengths.spans(samples))

    def encoded(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> dict[str, NDArray[Any]]:
        """The same rows as they are stored: a copy (B, …) from each table of the encoding, by the table's name.

        Takes and raises what `logits` does.
        """
        if self._lengths is not None:
            return self._gather(self._all_views, indices, view)[0]
        if type(indices) is np.ndarray and indices.dtype is _INTP:
            rows = cast("NDArray[np.intp]", indices)  # the usual case, at the cost of `take`
        else:
            rows = as_rows(indices, self.num_samples)
        if not isinstance(view, int):
            rows, one_view, tables = self._in_all_views(rows, view), None, self._all_views
        elif 0 <= view < len(self._views):
            one_view, tables = view, self._views[view]
        else:
            raise IndexError(f"view {view}: the cache has {len(self._views)}")
        bus_errors.guard()
        if not self._checks.all_sound:
            self._verify_rows(rows, one_view)
        found = {}
        try:
            for name, table in tables.items():  # a comprehension is a call of its own before Python 3.12
                found[name] = table.take(rows, 0)
        except IndexError:
            raise outside(rows, self.num_samples) from None
        self._unchanged.require_readable()
        return found

    def _require_empty_blocks(self, verify: Verify) -> None:
        """Raises CorruptError where the entry of a block without samples was changed: nobody would read that block."""
        nothing = np.tile(self._blocks.without_samples(), self.num_views)
        changed = np.flatnonzero(nothing & (self._checks.entries != WRITTEN))
        if len(changed) and verify != "off":
            raise CorruptError(f"{self.path}: {self._name(int(changed[0]))} is not as it was written")
        self._checks.trust(nothing)

    def _gather(
        self, tables: Mapping[str, NDArray[Any]], indices: ArrayLike | slice, view: ArrayLike
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        """The rows of samples that have several each, one sample after another, of tables whose views lie one after
        another too; and the samples. Of tables that are not per view `view` must be 0.
        """
        samples = from_start(one_by_one(as_rows(indices, self.num_samples)), self.num_samples)
        views = views_of(view, samples, self.num_views)
        bus_errors.guard()
        if not self._checks.all_sound:
            self._require_sound(views * self._blocks.per_view + self._blocks.of(samples))
        found = {}
        for name, table in tables.items():
            lengths = self._axes[self._blocks.columns[name].axis]
            starts = lengths.starts(samples) + views * lengths.total
            ends = starts + lengths.of(samples)
            # A sample's rows lie one after another: to copy them whole is faster than to look for each.
            pieces = [table[first:end] for first, end in zip(starts.tolist(), ends.tolist(), strict=True)]
            found[name] = np.concatenate(pieces) if pieces else table[:0].copy()
        self._unchanged.require_readable()
        return found, samples

    def _require_ids(self, rows: SparseRows) -> SparseRows:
        """Raises CorruptError for an id that is no output, or more certain ones than there are: somebody made the file
        by hand.
        """
        certain = 0 if rows.certain is None else int(np.max(rows.certain, initial=0))
        if certain > rows.ids.shape[-1]:
            raise self._not_written(f"certain: {certain} of {rows.ids.shape[-1]} ids")
        if rows.ids.size and int(rows.ids.max()) >= self._num_outputs:
            raise self._not_written(f"ids: {rows.ids.max()} is no output, of {self._num_outputs:,}")
        return rows

    def _not_written(self, what: str) -> CorruptError:
        """Of values that no writer stores, in a block whose checksum agrees with them."""
        return CorruptError(f"{self.path}: {what}; `decant cache verify` names the samples")

    def verify(self, part: tuple[int, int] = (0, 1)) -> list[str]:
        """Checks every block, and whether compact rows and rows of positions can be; returns a list of problems, empty
        for a sound cache.

        part: (i, n) checks the i-th of n equal runs of blocks alone, 0 ≤ i < n, as one job of several does. Raises
        ValueError for another.
        """
        index, count = part
        if not 0 <= index < count:
            raise ValueError(f"part: expected (i, n) with 0 ≤ i < n, found {part}")
        bus_errors.guard()
        number = self._blocks.num_blocks
        chosen = range(index * number // count, (index + 1) * number // count)
        with read_in_order(self._mapped):
            damaged = self._checks.check(chosen)
        problems = [f"{self._name(number)} is not as it was written" for number in damaged]
        if self._once and index == 0:
            try:
                self._encoding.check_once(self._once)
            except FormatError as error:
                problems.append(str(error))
        return problems + self._verify_values(chosen, set(damaged))

    def _verify_values(self, chosen: range, damaged: set[int]) -> list[str]:
        """What no writer stores, in blocks that are as they were written: the first of each block."""
        if self.manifest.format_version == 1:
            return []
        problems = [
            f"`{name}` is not as the manifest says"
            for name, digest in self._digests().items()
            if chosen.start == 0 and not damaged and sha256(self._whole_table(name)) != digest
        ]
        for number in chosen:
            view, block = divmod(number, self._blocks.per_view)
            first, end = self._blocks.bounds(block)
            if number in damaged or first == end:
                continue
            samples = np.arange(first, end)
            rows = self.encoded(samples, view)
            lengths = (
                {}
                if self._lengths is None
                else {name: Ragged(self._lengths.spans(samples)) for name in (*rows, "next_log_prob")}
            )
            if "next_log_prob" in self._tables:
                rows["next_log_prob"] = self.next_log_prob(samples, view)
            try:
                check_rows(self._layout, Batch(samples, view, rows, lengths))
            except ValueRefusedError as error:
                problems.append(str(error))
        return problems

    def _digests(self) -> dict[str, str]:
        """Of tables that are known before any row, by name."""
        about = self.manifest.positions
        given = {} if about is None else {"tokens": about.token_sha256, "places": about.places_sha256}
        return {name: digest for name, digest in given.items() if digest is not None}

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the file is no longer what was read from it: cut short, or written to in place.

        Looks at its size and times, which costs microseconds: call it after each epoch, before that is saved. With
        `checksums` it reads every block again that was read before: call it so before a trained network is saved.
        Raises RewrittenError, a CorruptError, where the file was written to since the last call and is as it was
        before: train the epochs since then again. A file that was deleted, or whose name another file has, is read on
        as it was; a `CacheWarning` says so once.

        >>> import tempfile
        >>> from decant.cache import Store, import_logits
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = import_logits(Store(folder.name), np.float32([[1, -1]]), None, teacher={}, data={"name": "toy"})
        >>> cache = LogitCache.open(path)
        >>> cache.check_unchanged(checksums=True)
        >>> path.chmod(0o644)
        >>> os.truncate(path, 100)
        >>> try:
        ...     cache.check_unchanged()
        ... except CorruptError as error:
        ...     print(str(error).partition(": ")[2])
        had ... bytes when it was opened, and now has 100; fetch or build the file again
        >>> folder.cleanup()
        """
        bus_errors.guard()
        named = None if self._lazy is None else self._lazy.settle()
        if named is not None:
            self.path = named
            self._mapped.renamed(named)
        self._unchanged.require(checksums=checksums)

    @property
    def is_lazy(self) -> bool:
        """Whether blocks are still fetched from elsewhere as they are read."""
        return self._lazy is not None and not self._checks.all_sound

    def prefetch(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> None:
        """Has the blocks of samples that are read next fetched in the background, where the cache is read lazily from
        elsewhere; nothing else. Takes and raises what `logits` does for indices.
        """
        if self._lazy is None or not self.is_lazy:
            return
        samples = from_start(as_rows(indices, self.num_samples), self.num_samples)
        views = np.broadcast_to(np.asarray(view), samples.shape)
        self._lazy.prefetch(np.unique(views * self._blocks.per_view + self._blocks.of(samples)).tolist())

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        positions = f"{self.num_positions:,} positions × " if self.has_positions else ""
        shape = (
            f"{self.num_views} views × {self.num_samples:,} samples × {positions}{self.num_outputs:,} outputs"
        )
        return f"LogitCache({str(self.path)!r}: {shape}, {self._encoding.name}, key {self.manifest.key[:16]})"

    def _whole_table(self, name: str) -> NDArray[Any]:
        """A table that is read before its blocks are checked; what is not there yet is fetched."""
        if self._lazy is not None and not self._checks.all_sound:
            self._lazy.fill_table(name)
        return self._tables[name]

    def __reduce__(self) -> tuple[Callable[..., LogitCache], tuple[str | Path, str, Verify, int, float]]:
        return _reopen, (
            self.path.absolute() if self._lazy is None else self._lazy.url,
            self.manifest.key,
            self.verify_mode,
            crc32(self._checks.entries.data),
            self.temperature,
        )

    def _in_all_views(self, rows: NDArray[Any], view: ArrayLike) -> NDArray[np.intp]:
        """Row numbers in the tables of all views, (V·N, …), with a view for each row."""
        return from_start(rows, self.num_samples) + views_of(view, rows, self.num_views) * self.num_samples

    def _verify_rows(self, rows: NDArray[np.intp], view: int | None) -> None:
        """Checks the blocks of these rows that were not checked before; with no view, rows count through all views."""
        if view is None:
            views, samples = np.divmod(rows, self.num_samples)
        else:
            samples = from_start(rows, self.num_samples)
            views = np.full_like(samples, view)
        self._require_sound(views * self._blocks.per_view + (samples >> self._blocks.shift))

    def _require_sound(self, blocks: NDArray[np.integer]) -> None:
        """Checks those of these blocks that were not checked before. Raises CorruptError."""
        number = self._checks.first_damaged(blocks)
        if number is not None:
            self._unchanged.require_readable()
            raise CorruptError(
                f"{self.path}: {self._name(number)} is not as it was written; "
                "`decant cache verify` lists all damage; fetch or build the file again"
            )

    def _name(self, number: int) -> str:
        return _block_name(self._blocks, number)


def _block_name(blocks: Blocks, number: int) -> str:
    """A block in words. No method of the cache: what holds one would keep the cache, and its file, open."""
    return blocks.name(*divmod(number, blocks.per_view))


def _read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    array.flags.writeable = False
    return array


def _reopen(path: str | Path, key: str, verify: Verify, content: int, temperature: float) -> LogitCache:
    """The same cache in another process. content: the CRC-32 of its table of checksums."""
    cache = LogitCache.open(path, verify=verify, lazy=True)
    bus_errors.set_again()  # a worker that is just starting sets handlers of its own
    if cache.manifest.key != key:
        raise MismatchError(
            f"{path}: another cache has taken its place: key expected {key}, found {cache.manifest.key}"
        )
    if crc32(cache._checks.entries.data) != content:
        raise MismatchError(f"{path}: another cache has taken its place, with the same key and other logits")
    return cache.at_temperature(temperature, interpolate=True)  # which was allowed where the cache was
