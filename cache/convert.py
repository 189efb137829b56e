"""Logits from elsewhere into a cache, and out of one as .npy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import MismatchError, ValueRefusedError
from decant.cache.io.files import replacing
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import row_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter


def import_logits(
    store: Store,
    logits: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    teacher: Mapping[str, Any],
    data: Mapping[str, Any],
    views: Mapping[str, Any] | None = None,
    dtype: str = "float16",
) -> Path:
    """Publishes (N, C) or (V, N, C) logits from elsewhere as a cache of `store`; the same ones are found, not
    written again. `labels` are (N,) integers, or (N, T) floats, the targets of a regression.

    `teacher`, `data` and `views` are the stated provenance; the identity also gets the SHA-256 of the logits,
    so that two imports under one name stay two caches. Raises ValueRefusedError for a wrong shape or values
    that must not be stored, MismatchError where `data` or `views` speak of another length or count.
    """
    table = logits[None] if logits.ndim == 2 else logits
    if table.ndim != 3 or not table.size or table.dtype.kind != "f":
        raise ValueRefusedError(
            f"logits: expected (N, C) or (V, N, C) floats, found {logits.shape} {logits.dtype}"
        )
    targets = (
        labels.shape[1] if labels is not None and labels.ndim == 2 and labels.dtype.kind == "f" else None
    )
    if labels is not None and targets is None and labels.shape != table.shape[1:2]:
        raise ValueRefusedError(f"labels: expected ({table.shape[1]},), found {labels.shape}")
    if labels is not None and len(labels) != table.shape[1]:
        raise ValueRefusedError(f"labels: expected {table.shape[1]:,} rows of targets, found {len(labels):,}")
    _require("data.length", data.get("length"), table.shape[1])
    _require("views.count", (views or {}).get("count"), table.shape[0])
    manifest = Manifest.build(
        num_views=table.shape[0],
        num_samples=table.shape[1],
        num_outputs=table.shape[2],
        num_targets=targets,
        dtype=dtype,
        teacher={**teacher, "logits_sha256": _sha256(table)},
        data=data,
        views=views,
        encoding={"teacher_precision": "unknown"},
    )
    with store.building(manifest) as path:
        found = store.find(manifest)
        if found is not None:
            return found
        with LogitCacheWriter(path, manifest) as writer:
            for view in range(table.shape[0]):
                for rows in row_chunks(table.shape[1]):
                    writer.write(
                        rows, table[view, rows], labels=None if labels is None else labels[rows], view=view
                    )
            return writer.publish()


def export_logits(cache: LogitCache, path: Path, view: int | None = None) -> tuple[int, ...]:
    """Writes the logits of one view (N, C), or of all (V, N, C), as .npy, every block checked; the shape that
    was written. `path` comes to be whole or not at all.
    """
    with replacing(path) as draft:
        return _export(cache, draft, view)


def _export(cache: LogitCache, path: Path, view: int | None) -> tuple[int, ...]:
    views = range(cache.num_views) if view is None else [view]
    shape = (
        (len(views), cache.num_samples, cache.num_outputs)
        if view is None
        else (cache.num_samples, cache.num_outputs)
    )
    table = np.lib.format.open_memmap(path, mode="w+", dtype=cache.manifest.dtype, shape=shape)
    for place, number in enumerate(views):
        into = table[place] if view is None else table
        for rows in row_chunks(cache.num_samples):
            into[rows] = cache.logits(rows, number)
    table.flush()
    return shape


def _require(field: str, stated: Any, found: int) -> None:
    """What is stated of the data or views, where it is, must be what the table has."""
    if stated is not None and stated != found:
        raise MismatchError(f"logits: {field}: expected {stated:,} as the data have it, found {found:,}")


def _sha256(table: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{table.shape} {table.dtype.str}".encode())
    for view in table:
        for rows in row_chunks(len(view)):
            digest.update(np.ascontiguousarray(view[rows]).data)
    return digest.hexdigest()
