"""Rows of other programs, as arrays, made a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Dense, Encoding, Sparse
from decant.cache.encodings.ids import pack_ids
from decant.cache.errors import ValueRefusedError, warn
from decant.cache.exchange.row_arrays import (
    digest_of,
    positions_in,
    require_log_probs,
    require_outputs,
    require_shapes,
    rows_of,
    temperatures_in,
)
from decant.cache.exchange.shifted_rows import shares_at_shifts, warn_of_shift
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions
from decant.cache.source import ROWS, sample_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

_DECODED = 1 << 23  # logits in memory at once
_LEAST = -65_504.0  # the least float16: a probability of 0 all the same
_ROUNDING = 2e-3  # of a mass, from log-probabilities in float16


def import_rows(
    store: Store,
    arrays: Mapping[str, ArrayLike],
    *,
    num_outputs: int,
    teacher: Mapping[str, Any],
    data: Mapping[str, Any],
    predicts: str = "next",
    **positions: Any,
) -> Path:
    """Publishes rows of a teacher, from elsewhere, as a cache of `store`; returns its path: its largest
    log-probabilities as a sparse one, or all logits. A second import of the same rows finds the first.

    arrays: what `export_rows` writes, of which `ids` and `log_probs` must be there, as (P, k) or (V, P, k), in any
    order within a row; or `logits` (P, C) or (V, P, C), which are stored as float16 if they are
    that, else as float32. `lengths` (N,) says how many rows each sample has; without it rows are samples. Without
    `log_tail` the mass of the outputs that are left out is what the others leave of 1. num_outputs: C. predicts and
    positions: see `Positions.of`. The identity has the SHA-256 of the arrays.

    Raises ValueRefusedError for arrays that do not fit each other, ids beyond C, log-probabilities above 0 or NaN, or
    that sum to more than 1 in a row. Warns where nothing is left out in any row, as of rows that were scaled to 1: the
    softmax of the teacher is then not known.

    >>> import tempfile
    >>> from decant.cache import LogitCache
    >>> folder = tempfile.TemporaryDirectory()
    >>> rows = {"ids": [[4, 1], [0, 2], [3, 4]], "log_probs": np.log([[0.5, 0.25], [0.9, 0.05], [0.6, 0.1]])}
    >>> given = {**rows, "lengths": [2, 1], "tokens": [7, 4, 0]}
    >>> path = import_rows(Store(folder.name), given, num_outputs=8, teacher={"network": "llm"}, data={"name": "toy"})
    >>> LogitCache.open(path).rows([1]).ids.tolist()
    [[3, 4]]
    >>> folder.cleanup()
    """
    if "certain" in arrays:
        raise ValueRefusedError("certain: rows with draws are not imported, as what drew them is not known")
    given = _Given(store, arrays, num_outputs, teacher, data, predicts, positions)
    if "logits" in arrays and "ids" not in arrays:
        return _import_logits(given)
    path, nothing_left = _import_largest(given)
    if nothing_left:
        warn(
            f"{path}: the probabilities of each row sum to 1, so nothing is left out: where they were scaled so, the "
            "teacher's softmax is not known, and what students learn is biased"
        )
    return path


class _Given(NamedTuple):
    """The arguments of `import_rows`."""

    store: Store
    arrays: Mapping[str, ArrayLike]
    num_outputs: int
    teacher: Mapping[str, Any]
    data: Mapping[str, Any]
    predicts: str
    positions: Mapping[str, Any]


def _import_logits(given: _Given) -> Path:
    """Rows of all logits."""
    logits = rows_of(given.arrays, "logits")
    if not logits.size or logits.dtype.kind != "f" or logits.shape[2] != given.num_outputs:
        raise ValueRefusedError(
            f"logits: expected (P, {given.num_outputs}) or (V, P, {given.num_outputs}) floats, found {logits.shape} "
            f"{logits.dtype}"
        )
    encoding = Dense("float16" if logits.dtype == "f2" else "float32")
    return _publish(
        given,
        encoding,
        logits.shape[:2],
        lambda writer, view: _write_logits(writer, given.arrays, logits, view),
    )


def _import_largest(given: _Given) -> tuple[Path, bool]:
    """Rows of the largest log-probabilities; and whether a new cache of them is told no mass of the other outputs, and
    they leave none.
    """
    ids, log_probs = (rows_of(given.arrays, name) for name in ("ids", "log_probs"))
    of_one_shape = ids.shape == log_probs.shape and ids.size
    if not of_one_shape or ids.dtype.kind not in "iu" or log_probs.dtype.kind != "f":
        raise ValueRefusedError(
            f"ids and log_probs: expected (P, k) or (V, P, k) integers and floats of one shape, found {ids.shape} "
            f"{ids.dtype} and {log_probs.shape} {log_probs.dtype}"
        )
    encoding = Sparse(ids.shape[2], temperatures_in(given.arrays))
    require_log_probs(log_probs)
    left: list[float] = []

    def write(writer: LogitCacheWriter, view: int) -> None:
        left.append(_write_view(writer, encoding, given.arrays, ids, log_probs, view))

    path = _publish(given, encoding, ids.shape[:2], write)
    least = _ROUNDING * ids.shape[0] * ids.shape[1]
    return path, bool(left) and "log_tail" not in given.arrays and sum(left) <= least


def _publish(
    given: _Given,
    encoding: Encoding,
    rows: tuple[int, int],
    write: Callable[[LogitCacheWriter, int], object],
) -> Path:
    """Begins the cache of (V, P) rows, has each view written, and publishes it; or finds it."""
    views, count = rows
    of = positions_in(given.arrays, count, given.predicts, given.positions)
    num_samples = count if of is None else of.num_samples
    require_shapes(given.arrays, rows, num_samples, encoding)
    manifest = Manifest.build(
        num_samples=num_samples,
        num_outputs=given.num_outputs,
        num_views=views,
        teacher={**given.teacher, "rows_sha256": digest_of(given.arrays)},
        data=given.data,
        encoding={**encoding.identity, "teacher_precision": "unknown"},
        positions=of,
    )
    if of is not None and of.tokens is not None and given.predicts == "next":
        _warn_of_shift(given.arrays, of)
    with given.store.building(manifest) as path:
        found = given.store.find(manifest)
        if found is not None:
            return found
        with LogitCacheWriter(path, manifest, positions=of) as writer:
            for view in range(views):
                write(writer, view)
            return writer.publish()


def _warn_of_shift(arrays: Mapping[str, ArrayLike], of: Positions) -> None:
    """Where nothing else says what was given to the tokens that follow; else `publish` looks at that."""
    if "ids" in arrays and "next_log_prob" not in arrays:
        warn_of_shift("ids", *shares_at_shifts(rows_of(arrays, "ids")[0], of))


def _write_view(
    writer: LogitCacheWriter,
    encoding: Sparse,
    arrays: Mapping[str, ArrayLike],
    ids: NDArray[np.integer],
    log_probs: NDArray[np.floating],
    view: int,
) -> float:
    """Writes the rows of a view; returns the mass of all that is left out."""
    manifest, left = writer.manifest, 0.0
    lengths = writer.layout.axes.get("position", writer.layout.axes["sample"])
    for samples in sample_chunks(lengths.of(np.arange(manifest.num_samples))):
        at = lengths.rows(samples)
        order = np.argsort(-log_probs[view, at], axis=1, kind="stable")
        kept = np.take_along_axis(ids[view, at], order, 1)
        likely = np.take_along_axis(log_probs[view, at], order, 1).clip(_LEAST, None).astype("<f2")
        require_outputs(kept, manifest.num_outputs, at)
        tail, whole = _beside(arrays, encoding, likely, at, view)
        left += float(np.exp(tail[:, encoding.temperatures.index(1.0)]).sum())
        rows = {
            **pack_ids(kept, manifest.num_outputs),
            "log_probs": likely,
            "stats": np.concatenate([whole[:, None], tail], axis=1).astype("<f4"),
        }
        given = (
            {"next_log_prob": rows_of(arrays, "next_log_prob", 2)[view, at]}
            if "next_log_prob" in arrays
            else {}
        )
        labels = None if "labels" not in arrays else np.asarray(arrays["labels"])[samples]
        writer.write_encoded(samples, rows, labels=labels, view=view, **given)
    return left


def _write_logits(
    writer: LogitCacheWriter, arrays: Mapping[str, ArrayLike], logits: NDArray[np.floating], view: int
) -> None:
    """Writes all logits of a view."""
    manifest = writer.manifest
    lengths = writer.layout.axes.get("position", writer.layout.axes["sample"])
    known = None if "next_log_prob" not in arrays else rows_of(arrays, "next_log_prob", 2)
    for samples in sample_chunks(
        lengths.of(np.arange(manifest.num_samples)), min(ROWS, max(1, _DECODED // manifest.num_outputs))
    ):
        at = lengths.rows(samples)
        labels = None if "labels" not in arrays else np.asarray(arrays["labels"])[samples]
        if known is None:
            writer.write(samples, logits[view, at], labels=labels, view=view)
        else:  # as it was stored, of tokens that the arrays may not have
            of, within = lengths.within(samples)
            encoded = manifest.encoding.encode(logits[view, at], of, view, within)
            writer.write_encoded(samples, encoded, labels=labels, view=view, next_log_prob=known[view, at])


def _beside(
    arrays: Mapping[str, ArrayLike],
    encoding: Sparse,
    log_probs: NDArray[np.float16],
    at: NDArray[np.int64],
    view: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(Q, m) log mass of what is left out, and (Q,) log-sum-exp of the raw logits: 0 where these are not known."""
    whole = np.zeros(len(at), "f4")
    if "log_sum_exp" in arrays:
        whole = rows_of(arrays, "log_sum_exp", 2)[view, at]
    if "log_tail" in arrays:
        return rows_of(arrays, "log_tail")[view, at], whole
    if len(encoding.temperatures) > 1:
        raise ValueRefusedError(
            "temperatures: without log_tail the mass at other temperatures than 1 is not known"
        )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = 1 - np.exp(log_probs.astype("f8")).sum(axis=1)
        bad = np.flatnonzero(~(rest >= -_ROUNDING))
        if len(bad):
            raise ValueRefusedError(
                f"log_probs: row {at[bad[0]]:,}: their probabilities sum to {1 - rest[bad[0]]:.4g}, where at most 1 is "
                "expected"
            )
        return np.log(np.maximum(rest, 0.0))[:, None], whole
