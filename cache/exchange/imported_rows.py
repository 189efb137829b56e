"""Rows of other programs, as arrays, made a cache."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Dense, Encoding, Sparse
from decant.cache.encodings.ids import pack_ids
from decant.cache.errors import CacheWarning, ValueRefusedError
from decant.cache.exchange.shifted_rows import shares_at_shifts, warn_of_shift
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions
from decant.cache.source import ROWS, sample_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

_DECODED = 1 << 23  # logits in memory at once
_READ = {"ids", "log_probs", "log_tail", "log_sum_exp", "temperatures", "labels"}
_READ |= {"lengths", "next_log_prob", "tokens", "token_lengths", "places"}
_LEAST = -65_504.0  # the least float16: a probability of 0 all the same
_DIGESTED = 1 << 20  # values that are copied at once
_OF_POSITIONS = ("tokens", "token_lengths", "places", "next_log_prob")
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
    if "logits" in arrays and "ids" not in arrays:
        logits = _rows_of(arrays, "logits")
        if not logits.size or logits.dtype.kind != "f" or logits.shape[2] != num_outputs:
            raise ValueRefusedError(
                f"logits: expected (P, {num_outputs}) or (V, P, {num_outputs}) floats, found {logits.shape} "
                f"{logits.dtype}"
            )
        return _publish(
            store,
            arrays,
            Dense("float16" if logits.dtype == "f2" else "float32"),
            logits.shape[:2],
            lambda writer, view: _write_logits(writer, arrays, logits, view),
            num_outputs,
            teacher,
            data,
            predicts,
            positions,
        )
    ids, log_probs = (_rows_of(arrays, name) for name in ("ids", "log_probs"))
    if (
        ids.shape != log_probs.shape
        or not ids.size
        or ids.dtype.kind not in "iu"
        or log_probs.dtype.kind != "f"
    ):
        raise ValueRefusedError(
            f"ids and log_probs: expected (P, k) or (V, P, k) integers and floats of one shape, found {ids.shape} "
            f"{ids.dtype} and {log_probs.shape} {log_probs.dtype}"
        )
    encoding = Sparse(ids.shape[2], _temperatures(arrays))
    _require_log_probs(log_probs)
    left = []
    path = _publish(
        store,
        arrays,
        encoding,
        ids.shape[:2],
        lambda writer, view: left.append(_write_view(writer, encoding, arrays, ids, log_probs, view)),
        num_outputs,
        teacher,
        data,
        predicts,
        positions,
    )
    if left and "log_tail" not in arrays and sum(left) <= _ROUNDING * ids.shape[0] * ids.shape[1]:
        warnings.warn(
            f"{path}: the probabilities of each row sum to 1, so nothing is left out: where they were scaled so, the "
            "teacher's softmax is not known, and what students learn is biased",
            CacheWarning,
            stacklevel=2,
        )
    return path


def _publish(
    store: Store,
    arrays: Mapping[str, ArrayLike],
    encoding: Encoding,
    rows: tuple[int, int],
    write: Callable[[LogitCacheWriter, int], object],
    num_outputs: int,
    teacher: Mapping[str, Any],
    data: Mapping[str, Any],
    predicts: str,
    positions: Mapping[str, Any],
) -> Path:
    """Begins the cache of (V, P) rows, has each view written, and publishes it; or finds it."""
    views, count = rows
    of, beside = None, [name for name in _OF_POSITIONS if name in arrays]
    if beside and "lengths" not in arrays:
        raise ValueRefusedError(
            f"{beside[0]}: are of samples with several rows each, and there are no lengths"
        )
    if "lengths" in arrays:
        given = {name: arrays[name] for name in ("tokens", "token_lengths", "places") if name in arrays}
        of = Positions.of(arrays["lengths"], predicts=predicts, **given, **positions)  # type: ignore[arg-type]
        if of.num_positions != count:
            raise ValueRefusedError(
                f"lengths: of {of.num_positions:,} positions, and there are {count:,} rows"
            )
    num_samples = count if of is None else of.num_samples
    _require_shapes(arrays, rows, num_samples, encoding)
    manifest = Manifest.build(
        num_samples=num_samples,
        num_outputs=num_outputs,
        num_views=views,
        teacher={**teacher, "rows_sha256": _digest(arrays)},
        data=data,
        encoding={**encoding.identity, "teacher_precision": "unknown"},
        positions=of,
    )
    if of is not None and of.tokens is not None and predicts == "next":
        _warn_of_shift(arrays, of)
    with store.building(manifest) as path:
        found = store.find(manifest)
        if found is not None:
            return found
        with LogitCacheWriter(path, manifest, positions=of) as writer:
            for view in range(views):
                write(writer, view)
            return writer.publish()


def _warn_of_shift(arrays: Mapping[str, ArrayLike], of: Positions) -> None:
    """Where nothing else says what was given to the tokens that follow; else `publish` looks at that."""
    if "ids" in arrays and "next_log_prob" not in arrays:
        warn_of_shift("ids", *shares_at_shifts(_rows_of(arrays, "ids")[0], of), stacklevel=5)


def _temperatures(arrays: Mapping[str, ArrayLike]) -> tuple[float, ...]:
    given = np.asarray(arrays.get("temperatures", [1.0]))
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise ValueRefusedError(f"temperatures: expected (m,) numbers, found {given.shape} {given.dtype}")
    return tuple(given.astype("f8").tolist())


def _require_shapes(
    arrays: Mapping[str, ArrayLike], rows: tuple[int, int], samples: int, encoding: Encoding
) -> None:
    """Raises ValueRefusedError for arrays that are not of the same rows; says which are not read."""
    declared = len(encoding.temperatures) if isinstance(encoding, Sparse) else 0
    for name, inner in (("log_tail", (declared,)), ("log_sum_exp", ()), ("next_log_prob", ())):
        if name in arrays:
            found, expected = _rows_of(arrays, name, 2 + len(inner)), (*rows, *inner)
            if found.shape != expected or found.dtype.kind not in "iuf":
                raise ValueRefusedError(
                    f"{name}: expected {expected} numbers, found {found.shape} {found.dtype}"
                )
    labels = None if "labels" not in arrays else np.asarray(arrays["labels"])
    if labels is not None and (labels.shape != (samples,) or labels.dtype.kind not in "iu"):
        raise ValueRefusedError(
            f"labels: expected ({samples},) integers, found {labels.shape} {labels.dtype}"
        )
    read = _READ if declared else {"logits", "labels", *_OF_POSITIONS, "lengths"}
    unread = sorted(arrays.keys() - read)
    if unread:
        warnings.warn(
            f"{', '.join(unread)}: arrays that are not read; those that are: {', '.join(sorted(read))}",
            CacheWarning,
            stacklevel=4,
        )


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
        _require_outputs(kept, manifest.num_outputs, at)
        tail, whole = _beside(arrays, encoding, likely, at, view)
        left += float(np.exp(tail[:, encoding.temperatures.index(1.0)]).sum())
        rows = {
            **pack_ids(kept, manifest.num_outputs),
            "log_probs": likely,
            "stats": np.concatenate([whole[:, None], tail], axis=1).astype("<f4"),
        }
        given = (
            {"next_log_prob": _rows_of(arrays, "next_log_prob", 2)[view, at]}
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
    known = None if "next_log_prob" not in arrays else _rows_of(arrays, "next_log_prob", 2)
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


def _digest(arrays: Mapping[str, ArrayLike]) -> str:
    """SHA-256 of what rows are, whatever integers and floats they are given as."""
    digest = hashlib.sha256()
    for name in ("ids", "log_probs", "log_tail", "log_sum_exp", "next_log_prob", "labels", "logits"):
        if name in arrays:
            array = np.asarray(arrays[name])
            digest.update(f"{name} {array.shape} ".encode())
            kind, flat = "<f8" if array.dtype.kind == "f" else "<i8", array.reshape(-1)
            for first in range(0, flat.size, _DIGESTED):
                digest.update(np.ascontiguousarray(flat[first : first + _DIGESTED], kind).data)
    return digest.hexdigest()


def _require_log_probs(log_probs: NDArray[np.floating]) -> None:
    """Raises ValueRefusedError for (V, P, k) that are no log-probabilities, saying what they may be instead."""
    for view, rows in enumerate(log_probs):
        for first in range(0, len(rows), ROWS):
            bad = np.flatnonzero(~(rows[first : first + ROWS] <= 0).all(axis=1))
            if not len(bad):
                continue
            row = first + int(bad[0])
            wrong = rows[row][~(rows[row] <= 0)][0]
            hint = ""
            if not np.isnan(wrong):
                hint = (
                    "; these are probabilities: give their logarithms"
                    if (rows[first : first + ROWS] >= 0).all() and (rows[first : first + ROWS] <= 1).all()
                    else "; of raw logits take the logarithm of the softmax of all outputs"
                )
            of_view = f", view {view}" if len(log_probs) > 1 else ""
            raise ValueRefusedError(
                f"log_probs: row {row:,}{of_view}: expected numbers of 0 or below, found {wrong:.4g}{hint}"
            )


def _require_outputs(ids: NDArray[np.integer], num_outputs: int, rows: NDArray[np.int64]) -> None:
    bad = np.flatnonzero(((ids < 0) | (ids >= num_outputs)).any(axis=1))
    if len(bad):
        raise ValueRefusedError(f"ids: row {rows[bad[0]]:,}: one is no output, of {num_outputs:,}")


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
        whole = _rows_of(arrays, "log_sum_exp", 2)[view, at]
    if "log_tail" in arrays:
        return _rows_of(arrays, "log_tail")[view, at], whole
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


def _rows_of(arrays: Mapping[str, ArrayLike], name: str, inner: int = 3) -> NDArray[Any]:
    """An array (V, P, …) of so many axes; one without views is of one."""
    if name not in arrays:
        raise ValueRefusedError(f"{name}: missing; there are {', '.join(sorted(arrays)) or 'no arrays'}")
    try:
        found = np.asarray(arrays[name])
    except ValueError:
        raise ValueRefusedError(f"{name}: expected rows of one length, found lists of several") from None
    found = found[None] if found.ndim == inner - 1 else found
    if found.ndim != inner:
        raise ValueRefusedError(f"{name}: expected {inner - 1} or {inner} axes, found {found.shape}")
    return found
