"""Rows that DistillKit has captured, in files of Parquet, as the arrays that `import_rows` makes a cache of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import FormatError, StorageError, warn
from decant.cache.exchange.distillkit_compression import Compression
from decant.cache.exchange.list_columns import ListBatch
from decant.cache.exchange.shifted_rows import SHIFTS, warn_of_shift
from decant.cache.io.opening import require_file

CONFIGURATION = "compression_config.yaml"
_PLAIN = ("token_ids", "top_values")
_PACKED = ("bytepacked_indices", "compressed_logprobs")
_OLDER = ("packed_indices", "exact_values", "coeffs")
_SAMPLES = 16  # read at once
_ROWS = 4096  # decoded at once
_ROUNDING = 2e-3  # of a mass, from log-probabilities in float16
_INEXACT = 0.05  # by which a polynomial's probabilities may sum to more than 1


def read_distillkit(
    path: Path, kept: int | None = None, compression: Path | None = None
) -> dict[str, NDArray[Any]]:
    """Rows of a file of Parquet that DistillKit has captured, or of all of a folder, in the order of their numbers.

    Of each sample there are `input_ids` (L,) and, for L − 1 rows or L, either `token_ids` and `top_values`, the k
    likeliest outputs and their log-probabilities, or these packed, as `bytepacked_indices` and `compressed_logprobs`.
    Row j is about the token after token j. Where samples are packed, `attention_mask` numbers the texts in one.

    kept: how many of the k are taken, the likeliest; all by default. compression: how rows are packed, the file
    `compression_config.yaml`, which is looked for beside them by default.

    Packed probabilities are inexact. Where those of a row sum to little more than 1 they are scaled to 1, and a
    CacheWarning says of how many. Another says where the rows fit the tokens better when shifted. What DistillKit does
    not store is not known: teacher, tokenizer, and at which temperature rows were made; they are taken as of T = 1.

    Raises FormatError, naming file, sample and position, for what cannot be such rows, StorageError where pyarrow is
    not installed, and FileNotFoundError.

    >>> read_distillkit(Path("captured/data_0.parquet"), kept=64)
    Traceback (most recent call last):
        ...
    FileNotFoundError: captured/data_0.parquet: no such file
    """
    if kept is not None and (type(kept) is not int or kept < 1):
        raise ValueError(f"kept: expected a whole number of 1 or more, found {kept!r}")
    paths = _files(path)
    parquet = _pyarrow(paths[0])
    reader, parts = _Reader(parquet, kept, compression), list[_Part]()
    for one in paths:
        parts += reader.samples(one)
    with_rows = [part for part in parts if part.ids.size]
    if not with_rows:
        raise FormatError(f"{path}: no rows in {sum(len(part.lengths) for part in parts):,} samples")
    lengths, token_lengths, tokens, texts = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("lengths", "token_lengths", "tokens", "texts")
    )
    ids, log_probs = (
        np.concatenate([getattr(part, name) for part in with_rows]) for name in ("ids", "log_probs")
    )
    if reader.scaled:
        warn(
            f"{path}: the probabilities of {reader.scaled:,} of {len(ids):,} rows sum to more than 1, at most "
            f"{reader.most:.4g}, as they are packed inexactly; they are scaled to 1"
        )
    found = {
        "ids": ids,
        "log_probs": log_probs,
        "lengths": lengths,
        "tokens": tokens,
        "token_lengths": token_lengths,
    }
    at_shifts = [_at_shift(found, texts, shift) for shift in SHIFTS]
    shares = [float(np.isfinite(one).mean()) if len(one) else 0.0 for one in at_shifts]
    warn_of_shift(path, shares, len(at_shifts[0]))
    return {**found, "next_log_prob": at_shifts[0]}


@dataclass(frozen=True)
class _Part:
    """Some samples."""

    lengths: NDArray[np.int64]
    token_lengths: NDArray[np.int64]
    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    tokens: NDArray[np.int64]
    texts: NDArray[np.int64]
    """Of each token, in which text of its sample it is."""


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = [each for each in path.iterdir() if each.suffix == ".parquet"]
        if not found:
            raise FormatError(f"{path}: no files of Parquet (.parquet)")
        return sorted(
            found, key=lambda each: [int(part) if part.isdigit() else part for part in _split(each.name)]
        )
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return [path]


def _split(name: str) -> list[str]:
    """Texts and numbers in turn, so that data_10 comes after data_9."""
    return re.split(r"([0-9]+)", name)


def _pyarrow(path: Path) -> ModuleType:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise StorageError(
            f"{path}: needs pyarrow, which is not installed: pip install 'decant-kd[parquet]'"
        ) from None
    found: ModuleType = parquet
    return found


class _Reader:
    def __init__(self, parquet: ModuleType, kept: int | None, configuration: Path | None) -> None:
        self._parquet, self._kept, self._configuration = parquet, kept, configuration
        self._compression: Compression | None = None
        self.scaled, self.most = 0, 1.0

    def samples(self, path: Path) -> Iterator[_Part]:
        """Those of a file, some at a time."""
        import pyarrow

        require_file(path)
        try:
            with self._parquet.ParquetFile(path) as file:
                there = set(file.schema_arrow.names)
                ids, values = self._columns(path, there)
                names = ["input_ids", ids, values, *({"attention_mask"} & there)]
                first = 0
                for batch in file.iter_batches(batch_size=_SAMPLES, columns=names):
                    yield self._part(ListBatch(path, first, batch), ids, values, "attention_mask" in there)
                    first += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise FormatError(
                f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})"
            ) from None

    def _columns(self, path: Path, there: set[str]) -> tuple[str, str]:
        """Names of the columns of ids and log-probabilities."""
        listed = ", ".join(sorted(there)) or "no columns"
        for names in (_PLAIN, _PACKED):
            if there >= {"input_ids", *names}:
                if names == _PACKED and self._compression is None:
                    self._compression = Compression.read(self._beside(path))
                return names
        if there >= set(_OLDER):
            raise FormatError(
                f"{path}: has {', '.join(_OLDER)}: an older form of DistillKit, whose values may be logits without "
                "their sum; it is not imported"
            )
        raise FormatError(
            f"{path}: expected columns input_ids, and {' and '.join(_PLAIN)} or {' and '.join(_PACKED)}; found {listed}"
        )

    def _beside(self, path: Path) -> Path:
        if self._configuration is not None:
            return self._configuration
        found = path.parent / CONFIGURATION
        if not found.is_file():
            raise FormatError(
                f"{path}: is packed, and how is in {CONFIGURATION}, which is not beside it; name it with --compression "
                "(in Python compression=…)"
            )
        return found

    def _part(self, batch: ListBatch, ids: str, values: str, has_texts: bool) -> _Part:
        token_lengths, tokens = batch.lists("input_ids", "iu")
        texts = np.zeros(len(tokens), np.int64)
        if has_texts:
            counts, texts = batch.lists("attention_mask", "iu")
            batch.require_equal("attention_mask", counts, token_lengths)
        lengths, found = batch.tables(ids, "iu")
        others, log_probs = batch.tables(values, "iu" if self._compression else "f")
        batch.require_equal(values, others, lengths)
        batch.require_lengths(lengths, token_lengths)
        batch.owners = np.repeat(np.arange(len(lengths)), lengths)
        if self._compression is not None:
            found, log_probs = self._unpacked(batch, self._compression, found, log_probs, ids, values)
        elif found.shape != log_probs.shape:
            raise FormatError(
                f"{batch.path}: {ids} and {values}: {found.shape[1]} and {log_probs.shape[1]} in a row"
            )
        found, log_probs = self._largest(batch, found.astype(np.int64), log_probs.astype(np.float64))
        return _Part(
            lengths, token_lengths, found, log_probs, tokens.astype(np.int64), texts.astype(np.int64)
        )

    def _unpacked(
        self,
        batch: ListBatch,
        of: Compression,
        ids: NDArray[Any],
        values: NDArray[Any],
        *names: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if not len(ids):
            return np.empty((0, of.kept), np.int64), np.empty((0, of.kept))
        for name, table, expected in zip(names, (ids, values), (of.id_bytes, of.row_bytes), strict=True):
            if table.shape[1] != expected or table.dtype != np.uint8:
                raise FormatError(
                    f"{batch.path}: {name}: {table.shape[1]} of {table.dtype} in a row, and by the compression's "
                    f"configuration there are {expected} bytes: it is another's"
                )
        chunks = [slice(first, first + _ROWS) for first in range(0, len(ids), _ROWS)]
        log_probs = np.concatenate([of.log_probs(values[at]) for at in chunks])
        return np.concatenate([of.ids(ids[at]) for at in chunks]), self._scaled(batch, log_probs)

    def _scaled(self, batch: ListBatch, log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
        """With probabilities of at most 1, where they sum to little more."""
        with np.errstate(over="ignore", invalid="ignore"):
            mass = np.exp(np.minimum(log_probs, 10)).sum(axis=1)
        bad = np.flatnonzero(~(mass <= 1 + _INEXACT))
        if len(bad):
            raise FormatError(
                f"{batch.name(bad[0])}: probabilities that sum to {mass[bad[0]]:.4g}: rows of another compression "
                "than its configuration says"
            )
        above = mass > 1 + _ROUNDING
        self.scaled += int(above.sum())
        self.most = max(self.most, float(mass.max(initial=1)))
        scaled = log_probs - np.where(above, np.log(np.maximum(mass, 1)), 0)[:, None]
        return np.minimum(scaled, 0)

    def _largest(
        self, batch: ListBatch, ids: NDArray[np.int64], log_probs: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The `kept` likeliest of each row."""
        if self._kept is None:  # of all rows what the first has
            self._kept = ids.shape[1] if len(ids) else None
        if not len(ids):
            return (np.empty((0, self._kept or 0), np.int64), np.empty((0, self._kept or 0)))
        if self._kept is not None and ids.shape[1] < self._kept:
            raise FormatError(
                f"{batch.name(0)}: {ids.shape[1]} log-probabilities, and {self._kept} are to be kept"
            )
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, : self._kept]  # NaN last
        ids, log_probs = np.take_along_axis(ids, order, 1), np.take_along_axis(log_probs, order, 1)
        bad = np.flatnonzero(~np.isfinite(log_probs).all(axis=1))
        if len(bad):
            known = int(np.isfinite(log_probs[bad[0]]).sum())
            raise FormatError(
                f"{batch.name(bad[0])}: {known} log-probabilities are numbers, and {self._kept} are to be kept"
            )
        return ids, log_probs


def _at_shift(arrays: dict[str, NDArray[Any]], texts: NDArray[np.int64], shift: int) -> NDArray[np.float64]:
    """(P,) the log-probability of the token `shift` after each row's; NaN where there is none, or it was not kept."""
    lengths, counts, tokens = arrays["lengths"], arrays["token_lengths"], arrays["tokens"]
    firsts = np.cumsum(counts) - counts
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    own = np.repeat(firsts, lengths) + place
    there = place + shift < np.repeat(counts, lengths)
    other = np.where(there, own + shift, own)
    there &= texts[other] == texts[own]
    hits = (arrays["ids"] == tokens[other][:, None]) & there[:, None]
    found = np.where(hits, arrays["log_probs"], -np.inf).max(axis=1, initial=-np.inf)
    least = float(np.finfo("f2").min)
    return np.where(np.isfinite(found), found.clip(least, 0), np.nan)
