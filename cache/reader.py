"""LogitCache: reads the rows of a published cache."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsFloat, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encoded_rows import EncodedRows
from decant.cache.encodings import Encoding, Head, Hidden, Sparse, SparseRows
from decant.cache.encodings.temperatures import Bounds, bounds_in_words
from decant.cache.errors import CorruptError, FormatError, MismatchError
from decant.cache.format.blocks import Blocks
from decant.cache.format.tables import Layout
from decant.cache.io import bus_errors
from decant.cache.manifest import POSITIONS, Manifest
from decant.cache.opening import open_file
from decant.cache.placement import Content, Placement
from decant.cache.positions import Positions
from decant.cache.remote.lazily import LazyCopy
from decant.cache.row_numbers import as_rows, from_start, one_by_one
from decant.cache.soundness import Soundness, Verify
from decant.cache.verification import problems_of_tables, problems_of_values

_SURVEYED = 1000  # rows that are looked at to say how well a softmax is known


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
        self, layout: Layout, content: Content, verify: Verify, lazy: LazyCopy | None = None
    ) -> None:
        """For `open`: takes the checked layout of a file, its bytes, and where missing blocks are fetched from."""
        self._lazy = lazy
        self.manifest: Manifest = layout.manifest
        self.verify_mode = verify
        self._layout, self._axes = layout, layout.axes
        self._tables = {name: content.array(table) for name, table in layout.tables.items()}
        self._blocks = Blocks(layout)
        encoding, outputs = layout.manifest.encoding, layout.manifest.num_outputs
        once = {name: self._tables[name] for name in encoding.once(outputs)}
        self._encoding = encoding.bind(once) if once else encoding
        self._num_outputs = outputs  # at hand: a manifest looks it up and checks it each time
        self.temperature = 1.0
        """T whose softmax `logits` are for, where the cache does not hold every logit; see `at_temperature`."""
        self._soundness = Soundness(self._blocks, content, verify, lazy, (self._encoding, once))
        self._rows = EncodedRows({name: self._tables[name] for name in layout.encoded}, self._soundness)
        self._lengths = layout.axes.get("position")
        self._soundness.require_opened()

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
        return cls(*open_file(path, verify, table, lazy))

    @property
    def path(self) -> Path:
        """The file."""
        return self._soundness.path

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
        found, samples = self._rows.gather({"tokens": self._tables["tokens"]}, indices, 0)
        return found["tokens"].astype(np.int64), self._axes["token"].spans(samples)

    def places(self, indices: ArrayLike | slice) -> NDArray[np.int64]:
        """(Q,): at which token of its sample each position of samples (B,) is. Raises as `logits` does."""
        if "places" not in self._tables:
            samples = from_start(one_by_one(as_rows(indices, self.num_samples)), self.num_samples)
            return self._blocks.lengths.within(samples)[1]
        found, _ = self._rows.gather({"places": self._tables["places"]}, indices, 0)
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
        found, _ = self._rows.gather({"next_log_prob": table.reshape(-1)}, indices, view)
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
        if not self._soundness.shared_sound:
            self._soundness.require_shared()
        rows = (
            self._rows.of_samples(indices, view)
            if self._lengths is None
            else self._rows.of_positions(indices, view)[0]
        )
        try:
            return self._encoding.decode(rows, self._num_outputs, self.temperature)
        except IndexError:
            raise self._not_written("ids: one is no output") from None

    @property
    def encoding(self) -> Encoding:
        """How rows are stored, with what is needed to make logits of them. Raises CorruptError where a table that all
        rows share is not as it was written.
        """
        self._soundness.require_shared()
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
            return self._require_ids(self._encoding.rows(self._rows.of_samples(indices, view)))
        found, samples = self._rows.of_positions(indices, view)
        return self._require_ids(self._encoding.rows(found))._replace(offsets=self._lengths.spans(samples))

    def encoded(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> dict[str, NDArray[Any]]:
        """The same rows as they are stored: a copy (B, …) from each table of the encoding, by the table's name.

        Takes and raises what `logits` does.
        """
        if self._lengths is not None:
            return self._rows.of_positions(indices, view)[0]
        return self._rows.of_samples(indices, view)

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
        damaged = self._soundness.find_damaged(chosen)
        problems = [f"{self._soundness.name(number)} is not as it was written" for number in damaged]
        if index == 0:
            try:
                self._soundness.check_shared()
            except FormatError as error:
                problems.append(str(error))
        if self.manifest.format_version == 1:
            return problems
        if chosen.start == 0 and not damaged:
            problems += problems_of_tables(self.manifest, self._whole_table)
        return [*problems, *problems_of_values(self, self._layout, self._blocks, chosen, set(damaged))]

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the file is no longer what was read from it: cut short, or written to in place.

        Looks at its size and times, which costs microseconds: call it after each epoch, before that is saved. With
        `checksums` it reads every block again that was checked before: call it so before a trained network is saved.
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
        self._soundness.require_unchanged(checksums=checksums)

    @property
    def is_lazy(self) -> bool:
        """Whether blocks are still fetched from elsewhere as they are read."""
        return self._soundness.is_lazy

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
        if self._lazy is not None:
            self._soundness.fetch_table(name)
        return self._tables[name]

    def __reduce__(self) -> tuple[Callable[..., LogitCache], tuple[str | Path, str, Verify, int, float]]:
        return _reopen, (
            self.path.absolute() if self._lazy is None else self._lazy.url,
            self.manifest.key,
            self.verify_mode,
            self._soundness.entries_crc32,
            self.temperature,
        )


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
    if cache._soundness.entries_crc32 != content:
        raise MismatchError(f"{path}: another cache has taken its place, with the same key and other logits")
    return cache.at_temperature(temperature, interpolate=True)  # which was allowed where the cache was
