"""Tables of logits: a cache of one that another program wrote, and one of a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import MismatchError, ValueRefusedError
from decant.cache.exchange.probabilities import logits_of, require_logits
from decant.cache.io.files import replacing
from decant.cache.labels import is_one_hot
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import row_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter


def import_logits(
    store: Store,
    logits: NDArray[np.floating],
    labels: NDArray[Any] | None,
    *,
    teacher: Mapping[str, Any],
    data: Mapping[str, Any],
    views: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    columns: Sequence[int] | None = None,
    probabilities: bool = False,
) -> Path:
    """Publishes logits (N, C) or (V, N, C) from elsewhere as a cache of `store`, and returns its path; a second import
    of the same logits finds the first. `labels` are (N,) integers, or (N, T) float targets of a regression.

    `teacher`, `data` and `views` say where the logits are from; the identity also has the SHA-256 of the logits, so
    that two imports under one name stay two caches. columns: which of the C are kept, in this order; None keeps all.
    probabilities: what is given are softmax outputs. Their logarithm is stored, of at least 1e-12 (a logit of −27.6),
    and its softmax is what was given. Where `data` has a task of sigmoids, what is given are their outputs.

    Raises ValueRefusedError for a wrong shape, for values that cannot be stored, and where rows are probabilities and
    `probabilities` does not say so, or the other way round; MismatchError where `data` or `views` state another length
    or count.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store(folder.name)
    >>> logits = np.float32([[3, -1, 0], [0, 2, 1], [-2, 0, 5]])
    >>> path = import_logits(store, logits, np.arange(3), teacher={"network": "mine"}, data={"name": "toy"})
    >>> LogitCache.open(path)
    LogitCache('...toy-mine-....h5': 1 views × 3 samples × 3 outputs, float16, key ...)
    >>> folder.cleanup()
    """
    table = logits[None] if logits.ndim == 2 else logits
    if table.ndim != 3 or not table.size or table.dtype.kind != "f":
        raise ValueRefusedError(
            f"logits: expected (N, C) or (V, N, C) floats, found {logits.shape} {logits.dtype}"
        )
    targets = _num_targets(labels, table.shape[1], data.get("task") == "multilabel")
    sigmoids = data.get("task") in ("binary", "multilabel")
    if targets is None or sigmoids:
        require_logits(table, probabilities, sigmoids=sigmoids)
    elif probabilities:
        raise ValueRefusedError("probabilities: targets of a regression have none")
    table = table if columns is None else table[..., list(columns)]
    num_views, num_samples, num_outputs = table.shape
    _require("data.length", data.get("length"), num_samples)
    _require("views.count", (views or {}).get("count"), num_views)
    manifest = Manifest.build(
        num_views=num_views,
        num_samples=num_samples,
        num_outputs=num_outputs,
        num_targets=targets,
        dtype=dtype,
        teacher={
            **teacher,
            "logits_sha256": _sha256(table),
            **({"given": "probabilities"} if probabilities else {}),
        },
        data=data,
        views=views,
        encoding={"teacher_precision": "unknown"},
    )
    with store.building(manifest) as path:
        found = store.find(manifest)
        as_logits = partial(logits_of, sigmoids=sigmoids) if probabilities else None
        return found or _write_table(path, manifest, table, labels, as_logits)


def _write_table(
    path: Path,
    manifest: Manifest,
    table: NDArray[np.floating],
    labels: NDArray[Any] | None,
    as_logits: Callable[[NDArray[np.floating]], NDArray[np.floating]] | None,
) -> Path:
    """Raises ValueRefusedError where the table is not the one whose digest the manifest has."""
    digest = _begin_sha256(table)
    with LogitCacheWriter(path, manifest) as writer:
        for view in range(len(table)):
            for rows in row_chunks(manifest.num_samples):
                some = None if labels is None else labels[rows]
                given = np.ascontiguousarray(table[view, rows])
                digest.update(given.data)
                given = given if as_logits is None else as_logits(given)
                writer.write(rows, given, labels=some, view=view)
        if digest.hexdigest() != manifest.identity["teacher"]["logits_sha256"]:
            raise ValueRefusedError("logits: the table has changed while it was read; import it again")
        return writer.publish()


def _num_targets(labels: NDArray[Any] | None, num_samples: int, multilabel: bool = False) -> int | None:
    """T where the labels are regression targets (N, T), or 0 and 1 of a multi-label task. Raises ValueRefusedError for
    another shape.
    """
    if labels is None:
        return None
    rows = labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "iubf"
    if rows and not multilabel and is_one_hot(labels):
        raise ValueRefusedError("labels: expected class ids (N,), found one-hot rows; give labels.argmax(1)")
    targets = labels.shape[1] if labels.ndim == 2 and labels.dtype.kind == "f" else None
    if targets is None and labels.shape != (num_samples,):
        raise ValueRefusedError(f"labels: expected ({num_samples},), found {labels.shape}")
    if len(labels) != num_samples:
        raise ValueRefusedError(f"labels: expected {num_samples:,} rows of targets, found {len(labels):,}")
    return targets


def _require(field: str, stated: Any, found: int) -> None:
    """What is stated of the data or views, where it is, must be what the table has."""
    if stated is not None and stated != found:
        raise MismatchError(f"logits: {field}: expected {stated:,} as the data have it, found {found:,}")


def _sha256(table: NDArray[Any]) -> str:
    digest = _begin_sha256(table)
    for view in table:
        for rows in row_chunks(len(view)):
            digest.update(np.ascontiguousarray(view[rows]).data)
    return digest.hexdigest()


def _begin_sha256(table: NDArray[Any]) -> hashlib._Hash:
    return hashlib.sha256(f"{table.shape} {table.dtype.str}".encode())


def export_logits(cache: LogitCache, path: Path, view: int | None = None) -> tuple[int, ...]:
    """Writes the logits of one view (N, C), or of all views (V, N, C), as a .npy file; returns the shape.

    Every block is checked, and `path` gets the whole file or is left as it was. Raises CorruptError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = import_logits(Store(folder.name), 5 * np.eye(3), None, teacher={}, data={"name": "toy"})
    >>> export_logits(LogitCache.open(path), Path(folder.name, "logits.npy"))
    (1, 3, 3)
    >>> np.load(Path(folder.name, "logits.npy")).dtype
    dtype('float16')
    >>> folder.cleanup()
    """
    if cache.has_positions:
        raise MismatchError(
            f"{cache.path}: has a row for each position: export it to a .npz file, which says whose they are"
        )
    views = range(cache.num_views) if view is None else [view]
    inner = (cache.num_samples, cache.num_outputs)
    shape = (len(views), *inner) if view is None else inner
    header = {"descr": cache.manifest.dtype.str, "fortran_order": False, "shape": shape}
    with replacing(path) as draft:
        np.lib.format.write_array_header_1_0(draft, header)
        for number in views:
            for rows in row_chunks(cache.num_samples):
                # Written, not mapped: on a full disk a write is refused, but a mapped page kills the process.
                draft.write(np.ascontiguousarray(cache.logits(rows, number)).data)
    return shape
