"""Rows as arrays in a .npz file: those of a cache for other programs, and those of other programs as a cache."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Sparse
from decant.cache.encodings.ids import pack_ids
from decant.cache.errors import CacheWarning, ValueRefusedError
from decant.cache.io.files import replacing
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions
from decant.cache.reader import LogitCache
from decant.cache.source import ROWS, sample_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

_DECODED = 1 << 23  # logits in memory at once
_READ = {"ids", "log_probs", "log_tail", "log_sum_exp", "temperatures", "labels"}
_READ |= {"lengths", "next_log_prob", "tokens", "token_lengths", "places"}
_OF_POSITIONS = ("tokens", "token_lengths", "places", "next_log_prob")
_ROUNDING = 2e-3  # of a mass, from log-probabilities in float16


def export_rows(cache: LogitCache, path: Path) -> dict[str, tuple[int, ...]]:
    """Writes the rows of a cache as a .npz file, which NumPy reads; returns the shape of each array by its name.

    A sparse cache gives `ids` (V, P, k), `log_probs` (V, P, k) and `log_tail` (V, P, m) at the m `temperatures`,
    `log_sum_exp` (V, P) of the raw logits, and with draws `certain` and `log_tau` (V, P); any other gives `logits`
    (V, P, C). P are the positions of all samples one after another, where `lengths` (N,) says whose they are; or the
    samples. Beside them `labels`, and what there is of `next_log_prob` (V, P), `tokens` (T,), `token_lengths` (N,) and
    `places` (P,). Every block is checked, and `path` gets the whole file or is left as it was. Raises CorruptError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> of = Manifest.build(num_samples=2, num_outputs=3, encoding=Sparse(2))
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of) as writer:
    ...     writer.write([0, 1], np.eye(2, 3))
    ...     cache = LogitCache.open(writer.publish())
    >>> export_rows(cache, Path(folder.name, "rows.npz"))["ids"]
    (1, 2, 2)
    >>> np.load(f"{folder.name}/rows.npz")["ids"].tolist()
    [[[0, 1], [1, 0]]]
    >>> folder.cleanup()
    """
    shapes = {}
    with replacing(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        for name, (shape, dtype, pieces) in _members(cache).items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                _write_array(member, shape, dtype, pieces)  # type: ignore[arg-type]
            shapes[name] = shape
    return shapes


Member = tuple[tuple[int, ...], np.dtype[Any], Iterable[NDArray[Any]]]
"""Shape and dtype of an array, and its pieces in order."""


def _write_array(
    file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: Iterable[NDArray[Any]]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for piece in pieces:
        file.write(np.ascontiguousarray(piece, dtype).tobytes())


def _members(cache: LogitCache) -> dict[str, Member]:
    views, count = cache.num_views, cache.num_positions
    found: dict[str, Member] = {}

    def add(name: str, array: NDArray[Any]) -> None:
        found[name] = (array.shape, array.dtype, [array])

    def add_rows(name: str, inner: tuple[int, ...], dtype: str, read: Any) -> None:
        pieces = (read(samples, view) for view in range(views) for samples in _chunks(cache))
        found[name] = ((views, count, *inner), np.dtype(dtype), pieces)

    encoding = cache.manifest.encoding
    if isinstance(encoding, Sparse):
        kept, declared = encoding.head + encoding.draws, len(encoding.temperatures)
        add("temperatures", np.array(encoding.temperatures))
        parts: list[tuple[str, tuple[int, ...], str]] = [
            ("ids", (kept,), "<i4"),
            ("log_probs", (kept,), "<f2"),
            ("log_tail", (declared,), "<f4"),
        ]
        parts += [("log_sum_exp", (), "<f4")]
        parts += [("certain", (), "<i4"), ("log_tau", (), "<f4")] if encoding.draws else []
        for name, inner, dtype in parts:
            add_rows(
                name, inner, dtype, lambda samples, view, name=name: getattr(cache.rows(samples, view), name)
            )
    else:
        add_rows("logits", (cache.num_outputs,), cache.manifest.dtype.str, cache.logits)
    add("labels", np.asarray(cache.labels))
    positions = cache.positions
    if positions is not None:
        add("lengths", cache.lengths)
        if positions.identity["predicts"] == "next":
            add_rows("next_log_prob", (), "<f2", cache.next_log_prob)
        if positions.tokens is not None and positions.token_lengths is not None:
            add("tokens", np.asarray(positions.tokens))
            if positions.token_lengths is not positions.lengths:
                add("token_lengths", positions.token_lengths.of(np.arange(cache.num_samples)))
        if positions.places is not None:
            add("places", np.asarray(positions.places))
    return found


def _chunks(cache: LogitCache) -> Iterator[NDArray[np.intp]]:
    most = (
        ROWS
        if isinstance(cache.manifest.encoding, Sparse)
        else min(ROWS, max(1, _DECODED // cache.num_outputs))
    )
    return sample_chunks(cache.lengths, most)


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
    """Publishes the largest log-probabilities of a teacher, from elsewhere, as a sparse cache of `store`; returns its
    path. A second import of the same rows finds the first.

    arrays: what `export_rows` writes, of which `ids` and `log_probs` must be there, as (P, k) or (V, P, k), in any
    order within a row. `lengths` (N,) says how many rows each sample has; without it rows are samples. Without
    `log_tail` the mass of the outputs that are left out is what the others leave of 1. num_outputs: C. predicts and
    positions: see `Positions.of`. The identity has the SHA-256 of ids and log-probabilities.

    Raises ValueRefusedError for arrays that do not fit each other, ids beyond C, log-probabilities above 0 or NaN, or
    that sum to more than 1 in a row. Warns where nothing is left out in any row, as of rows that were scaled to 1: the
    softmax of the teacher is then not known.

    >>> import tempfile
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
    views, count, kept = ids.shape
    encoding = Sparse(kept, _temperatures(arrays))
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
    _require_shapes(arrays, (views, count), num_samples, len(encoding.temperatures))
    manifest = Manifest.build(
        num_samples=num_samples,
        num_outputs=num_outputs,
        num_views=views,
        teacher={**teacher, "rows_sha256": _digest(arrays)},
        data=data,
        encoding={**encoding.identity, "teacher_precision": "unknown"},
        positions=of,
    )
    with store.building(manifest) as path:
        found = store.find(manifest)
        if found is not None:
            return found
        with LogitCacheWriter(path, manifest, positions=of) as writer:
            left = 0.0
            for view in range(views):
                left += _write_view(writer, encoding, arrays, ids, log_probs, view)
            if "log_tail" not in arrays and left <= _ROUNDING * views * count:
                warnings.warn(
                    f"{path}: the probabilities of each row sum to 1, so nothing is left out: where they were scaled "
                    "so, the teacher's softmax is not known, and what students learn is biased",
                    CacheWarning,
                    stacklevel=2,
                )
            return writer.publish()


def _temperatures(arrays: Mapping[str, ArrayLike]) -> tuple[float, ...]:
    given = np.asarray(arrays.get("temperatures", [1.0]))
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise ValueRefusedError(f"temperatures: expected (m,) numbers, found {given.shape} {given.dtype}")
    return tuple(given.astype("f8").tolist())


def _require_shapes(
    arrays: Mapping[str, ArrayLike], rows: tuple[int, int], samples: int, temperatures: int
) -> None:
    """Raises ValueRefusedError for arrays that are not of the same rows; says which are not read."""
    for name, inner in (("log_tail", (temperatures,)), ("log_sum_exp", ()), ("next_log_prob", ())):
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
    unread = sorted(arrays.keys() - _READ)
    if unread:
        warnings.warn(
            f"{', '.join(unread)}: arrays that are not read; those that are: {', '.join(sorted(_READ))}",
            CacheWarning,
            stacklevel=3,
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
        likely = np.take_along_axis(log_probs[view, at], order, 1).astype("<f2")
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


def _digest(arrays: Mapping[str, ArrayLike]) -> str:
    """SHA-256 of what rows are, whatever integers and floats they are given as."""
    digest = hashlib.sha256()
    for name in ("ids", "log_probs", "log_tail", "log_sum_exp", "next_log_prob", "labels"):
        if name in arrays:
            array = np.asarray(arrays[name])
            digest.update(f"{name} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array, "<f8" if array.dtype.kind == "f" else "<i8").data)
    return digest.hexdigest()


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
    found = np.asarray(arrays[name])
    found = found[None] if found.ndim == inner - 1 else found
    if found.ndim != inner:
        raise ValueRefusedError(f"{name}: expected {inner - 1} or {inner} axes, found {found.shape}")
    return found
