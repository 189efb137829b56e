"""Checks rows, and casts and encodes them as the tables have them, before a byte is written."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings.encoding import row_name
from decant.cache.errors import ValueRefusedError
from decant.cache.format.batch import Batch, batch_lengths
from decant.cache.format.tables import Layout, columns
from decant.cache.inputs import as_values
from decant.cache.manifest import Manifest

_AT_ONCE = 1 << 24
"""Logits that are encoded at once: an encoder holds copies of them in float64."""


def check_batch(
    layout: Layout,
    indices: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
    next_tokens: ArrayLike | None = None,
) -> Batch:
    """Makes rows of the tables from the arguments of `LogitCacheWriter.write`. Raises ValueRefusedError."""
    manifest = layout.manifest
    view = check_view(manifest, view)
    samples = check_indices(manifest, indices, view)
    if "position" not in layout.axes:
        if next_tokens is not None:
            raise ValueRefusedError("next_tokens: the cache has no positions")
        given = check_logits(manifest, len(samples), logits)
        encoded = manifest.encoding.encode(given, samples, view)
        return _batch(layout, samples, encoded, labels, input_crc32, view)
    of, within = layout.axes["position"].within(samples)
    given = check_logits(manifest, len(of), logits)
    parts = [
        manifest.encoding.encode(given[rows], of[rows], view, within[rows])
        for rows in _pieces(len(of), manifest.num_outputs)
    ]
    encoded = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "next_log_prob" in columns(manifest):
        encoded["next_log_prob"] = _next_log_probs(layout, given, next_tokens, of, within, view)
    elif next_tokens is not None:
        raise ValueRefusedError("next_tokens: the cache predicts what is at a position, not what follows it")
    return _batch(layout, samples, encoded, labels, input_crc32, view)


def check_encoded_batch(
    layout: Layout,
    indices: ArrayLike,
    rows: Mapping[str, ArrayLike],
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
    next_log_prob: ArrayLike | None = None,
) -> Batch:
    """The same from rows that are encoded already. Raises ValueRefusedError."""
    manifest = layout.manifest
    view = check_view(manifest, view)
    samples = check_indices(manifest, indices, view)
    expected = manifest.encoding.columns(manifest.num_outputs)
    if not isinstance(rows, Mapping):
        raise ValueRefusedError(
            f"rows: expected arrays by name, {', '.join(expected)}, found {type(rows).__name__}"
        )
    if rows.keys() != expected.keys():
        raise ValueRefusedError(f"rows: expected {', '.join(expected)}, found {', '.join(rows)}")
    of, within = samples, None
    if "position" in layout.axes:
        of, within = layout.axes["position"].within(samples)
    encoded = {name: as_array(name, rows[name]) for name in expected}
    for name, column in expected.items():
        shape, found = (len(of), *column.shape), encoded[name]
        if (found.shape, found.dtype) != (shape, column.dtype):
            raise ValueRefusedError(
                f"{name}: expected {shape} {column.dtype.name}, found {found.shape} {found.dtype}"
            )
    if within is None:
        manifest.encoding.check(encoded, samples, view, manifest.num_outputs)
    else:
        manifest.encoding.check(encoded, of, view, manifest.num_outputs, within)
    if "next_log_prob" in columns(manifest):
        encoded["next_log_prob"] = _check_log_probs(next_log_prob, of, within, view)
    elif next_log_prob is not None:
        raise ValueRefusedError("next_log_prob: the cache has none")
    return _batch(layout, samples, encoded, labels, input_crc32, view)


def _pieces(count: int, num_outputs: int) -> Iterator[slice]:
    """Rows 0 to `count` − 1 a few at a time; one piece without rows where there are none."""
    step = max(1, _AT_ONCE // num_outputs)
    for first in range(0, max(count, 1), step):
        yield slice(first, first + step)


def _next_log_probs(
    layout: Layout,
    given: NDArray[np.floating],
    next_tokens: ArrayLike | None,
    samples: NDArray[np.int64],
    positions: NDArray[np.int64],
    view: int,
) -> NDArray[np.float16]:
    """(Q,): the log-softmax of the tokens that follow, at T = 1; NaN where there is none, −1. Below what float16 holds
    it is the least that it holds.
    """
    tokens = as_array("next_tokens", next_tokens)
    if tokens.shape != samples.shape or (tokens.size and tokens.dtype.kind not in "iu"):
        raise ValueRefusedError(
            f"next_tokens: expected {samples.shape} integers, −1 where none follows, found {tokens.shape} "
            f"{tokens.dtype}"
        )
    outputs = layout.manifest.num_outputs
    bad = np.flatnonzero((tokens < -1) | (tokens >= outputs))
    if len(bad):
        raise ValueRefusedError(
            f"{row_name(samples, view, int(bad[0]), positions)}: the next token is {tokens[bad[0]]}, and there are "
            f"{outputs:,} outputs"
        )
    found = np.full(len(tokens), np.nan, "<f2")
    for rows in _pieces(len(tokens), outputs):
        found[rows] = log_probs_of(layout.encoding.logits_of(given[rows]), tokens[rows])
    return found


def log_probs_of(logits: NDArray[np.floating], tokens: NDArray[np.integer]) -> NDArray[np.float32]:
    """(q,): the log-softmax of a token of each row (q, C), at T = 1, at least what float16 holds; NaN of −1, none."""
    values = logits.astype("f4", copy=False)
    most = values.max(axis=1, initial=np.finfo("f4").min)
    total = np.log(np.exp(values - most[:, None]).sum(axis=1, dtype="f8")) + most
    chosen = np.take_along_axis(values, np.maximum(tokens, 0)[:, None].astype(np.intp), axis=1)[:, 0]
    log_probs = (chosen - total).clip(-np.finfo("f2").max, 0)
    return np.where(tokens >= 0, log_probs, np.nan).astype("f4")


def _check_log_probs(
    given: ArrayLike | None,
    samples: NDArray[np.int64],
    positions: NDArray[np.int64] | None,
    view: int,
) -> NDArray[np.float16]:
    """(Q,) float16 in −65,504..0, or NaN. Raises ValueRefusedError."""
    found = as_array("next_log_prob", np.nan if given is None else given)
    if found.shape not in (samples.shape, ()) or found.dtype.kind != "f":
        raise ValueRefusedError(
            f"next_log_prob: expected {samples.shape} floats, NaN where no token follows, found {found.shape} "
            f"{found.dtype}"
        )
    with np.errstate(over="ignore"):
        stored = np.broadcast_to(found, samples.shape).astype("<f2")
    bad = np.flatnonzero((stored > 0) | np.isinf(stored))
    if len(bad):
        raise ValueRefusedError(
            f"{row_name(samples, view, int(bad[0]), positions)}: next_log_prob must be finite and 0 or below, or NaN, "
            f"found {stored[bad[0]]}"
        )
    stored[np.isnan(stored)] = np.nan  # one NaN of many: equal content gives equal bytes
    return stored


def check_rows(layout: Layout, batch: Batch) -> None:
    """Raises ValueRefusedError for stored rows that `write` never stores; rows of another file are checked."""
    manifest, of, within = layout.manifest, batch.samples, None
    if "position" in layout.axes:
        of, within = layout.axes["position"].within(batch.samples)
    if within is None:
        manifest.encoding.check(batch.columns, of, batch.view, manifest.num_outputs)
    else:
        manifest.encoding.check(batch.columns, of, batch.view, manifest.num_outputs, within)
    if "next_log_prob" in batch.columns:
        _check_log_probs(batch.columns["next_log_prob"], of, within, batch.view)


def are_close(
    layout: Layout, first: Mapping[str, NDArray[Any]], again: Mapping[str, NDArray[Any]], closeness: float
) -> bool:
    """Whether encoded rows (Q, …) of one sample differ by at most a share of the largest of its logits."""
    off, most = 0.0, 0.0
    manifest = layout.manifest
    count = len(first[next(iter(manifest.encoding.columns(manifest.num_outputs)))])
    for rows in _pieces(count, manifest.num_outputs):
        one, other = (
            layout.encoding.decode(
                {name: column[rows] for name, column in given.items() if len(column) == count},
                manifest.num_outputs,
            ).astype("f8")
            for given in (first, again)
        )
        off = max(off, float(np.abs(one - other).max(initial=0.0)))
        most = max(most, float(np.abs(one).max(initial=0.0)))
    return off <= closeness * most


def _batch(
    layout: Layout,
    samples: NDArray[np.int64],
    encoded: Mapping[str, NDArray[Any]],
    labels: ArrayLike | None,
    input_crc32: ArrayLike | None,
    view: int,
) -> Batch:
    manifest = layout.manifest
    rows = {
        **encoded,
        "labels": check_labels(manifest, samples, labels, view),
        "input_crc32": check_input_crc32(manifest, samples, input_crc32, view),
    }
    axes = {name: column.axis for name, column in columns(manifest).items() if name in rows}
    return Batch(samples, view, rows, batch_lengths(axes, layout.axes, samples))


def check_view(manifest: Manifest, view: int) -> int:
    """Returns `view` as an integer in 0..V−1. Raises ValueRefusedError."""
    try:
        found = operator.index(view)
    except TypeError:
        raise ValueRefusedError(f"view: expected an integer, found {view!r}") from None
    if not 0 <= found < manifest.num_views:
        raise ValueRefusedError(f"view: expected 0 to {manifest.num_views - 1}, found {view}")
    return found


def check_indices(manifest: Manifest, indices: ArrayLike, view: int) -> NDArray[np.int64]:
    """Returns the indices as (B,) integers, all different and in 0..N−1. Raises ValueRefusedError."""
    rows = as_array("indices", indices)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueRefusedError(f"indices: expected (B,) integers, found {rows.shape} {rows.dtype}")
    outside = rows[(rows < 0) | (rows >= manifest.num_samples)]
    if len(outside):
        raise ValueRefusedError(
            f"sample {outside[0]}, view {view}: the cache has samples 0 to {manifest.num_samples - 1:,}"
        )
    if (rows[1:] > rows[:-1]).all():  # all different, in the usual order
        return rows.astype(np.int64)
    values, counts = np.unique(rows, return_counts=True)
    if len(values) != len(rows):
        raise ValueRefusedError(f"sample {values[counts > 1][0]}, view {view}: given twice in one write")
    return rows.astype(np.int64)


def check_logits(manifest: Manifest, count: int, logits: ArrayLike) -> NDArray[np.floating]:
    """Returns the logits as (`count`, C) floats, whose values the encoding checks. Raises ValueRefusedError."""
    if isinstance(logits, Mapping) or hasattr(logits, "logits"):
        raise ValueRefusedError(
            f"logits: expected a tensor or an array, found {type(logits).__name__}, as some models return; "
            "give its logits"
        )
    width = manifest.encoding.given_width(manifest.num_outputs)
    given, shape = as_array("logits", logits), (count, width)
    if given.shape != shape or given.dtype.kind != "f":
        what = "logits" if width == manifest.num_outputs else "hidden states"
        raise ValueRefusedError(f"{what}: expected {shape} floats, found {given.shape} {given.dtype}")
    return given


def check_labels(
    manifest: Manifest, rows: NDArray[np.int64], labels: ArrayLike | None, view: int
) -> NDArray[Any]:
    """Returns the labels as (B,) int64, or (B, T) float32 for regression; −1 or NaN where there is none."""
    if labels is None:
        labels = -1 if manifest.num_targets is None else np.nan
    return _column(manifest, rows, labels, "labels", view)


def check_input_crc32(
    manifest: Manifest, rows: NDArray[np.int64], crc32: ArrayLike | None, view: int
) -> NDArray[Any]:
    """Returns the checksums as (B,) uint32, 0 where none is recorded."""
    return _column(manifest, rows, 0 if crc32 is None else crc32, "input_crc32", view)


def _column(
    manifest: Manifest, rows: NDArray[np.int64], given: ArrayLike, table: str, view: int
) -> NDArray[Any]:
    """`given` in shape and dtype of the table, a row for each sample; a scalar fills all rows.

    Raises ValueRefusedError where the cast would change a value.
    """
    column = columns(manifest)[table]
    shape, dtype = (len(rows), *column.shape), column.dtype
    found = as_array(table, given)
    if found.shape not in (shape, ()) or found.dtype.kind not in ("iu" if dtype.kind in "iu" else "fiu"):
        raise ValueRefusedError(f"{table}: expected {shape} {dtype.name}, found {found.shape} {found.dtype}")
    with np.errstate(over="ignore"):
        stored = np.broadcast_to(found, shape).astype(dtype)
    changed = np.isinf(stored) if dtype.kind == "f" else stored != found
    if changed.any():
        place = tuple(np.argwhere(changed)[0])
        value = np.broadcast_to(found, shape)[place]
        raise ValueRefusedError(f"sample {rows[place[0]]}, view {view}: {table} {value} is no {dtype.name}")
    return stored


def as_array(name: str, given: Any) -> NDArray[Any]:
    """What is given under a name, as an array. Raises ValueRefusedError for what cannot be one."""
    try:
        return np.asarray(as_values(given))
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor that NumPy cannot hold
        raise ValueRefusedError(f"{name}: {error}") from None
