"""Caches made from other tables and other caches: import, export, merge, and copies of whole views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Dense, Encoding, Hidden, Sparse
from decant.cache.ensemble import Ensemble, require_agreement
from decant.cache.errors import CacheError, MismatchError, ValueRefusedError
from decant.cache.io.files import replacing
from decant.cache.labels import is_one_hot
from decant.cache.manifest import POSITIONS, Manifest
from decant.cache.probabilities import logits_of, require_logits
from decant.cache.reader import LogitCache
from decant.cache.source import ROWS, LogitSource, row_chunks, sample_chunks
from decant.cache.store.local import Store
from decant.cache.validation import log_probs_of
from decant.cache.writer import LogitCacheWriter

_DECODED = 1 << 23
"""Logits that are decoded at once."""

MergeMode = Literal["mean-logits", "mean-probabilities", "stack-views"]
"""How caches become one: by the mean of their logits, by that of their probabilities, or view after view."""


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


def convert_cache(store: Store, cache: LogitCache, encoding: Encoding) -> Path:
    """Publishes the rows of a cache in another, smaller encoding in `store`, or finds that there; returns its path. No
    teacher is needed, and everything else of the identity stays.

    Raises MismatchError for a cache that does not hold every logit in float16 or float32, or hidden states of which all
    follow: what it has lost does not come back.

    >>> import tempfile
    >>> from decant.cache.encodings import Quantised
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store(folder.name)
    >>> path = import_logits(store, np.float32([[4, 0], [0, 4]]), None, teacher={}, data={"name": "toy"})
    >>> small = LogitCache.open(convert_cache(store, LogitCache.open(path), Quantised()))
    >>> small.logits([0, 1]).round(2).tolist()
    [[4.0, 0.0], [0.0, 4.0]]
    >>> folder.cleanup()
    """
    held = cache.manifest.encoding
    if not isinstance(held, Dense | Hidden):
        raise MismatchError(
            f"{cache.path}: holds {held.name}; convert the cache of all logits that it was made from"
        )
    if isinstance(encoding, type(held) | Dense | Hidden):
        raise MismatchError(f"{cache.path}: holds {held.name} already")
    if cache.manifest.num_targets is not None or cache.num_outputs == 1:
        raise MismatchError(
            f"{cache.path}: compact encodings are of softmaxes, and this cache is of "
            f"{'sigmoids' if cache.manifest.has_sigmoids else 'a regression'}"
        )
    stored = cache.manifest.identity["encoding"]
    kept = {name: value for name, value in stored.items() if name not in held.identity}
    manifest = Manifest(
        {**cache.manifest.identity, "encoding": {**kept, **encoding.identity}},
        {**cache.manifest.info, "from": [cache.path.name]},
    )
    with store.building(manifest) as path:
        sources: list[tuple[LogitSource, int]] = [(cache, view) for view in range(cache.num_views)]
        return store.find(manifest) or _write(path, manifest, sources)


def merge_caches(store: Store, caches: Sequence[LogitCache], how: MergeMode) -> Path:
    """Publishes one cache made from several in `store`, or finds it there; returns its path.

    "mean-logits" and "mean-probabilities" are the means of `Ensemble` at T = 1, over caches of the same data and
    views. "stack-views" puts the views of each cache after those of the one before; all must have the same teacher,
    data and encoding. Raises MismatchError, naming every field that differs, and for means of sparse caches or of
    those with positions.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store, data = Store(folder.name), {"name": "toy"}
    >>> paths = [import_logits(store, logits, None, teacher={}, data=data) for logits in (2 * np.eye(2), 4 * np.eye(2))]
    >>> merged = merge_caches(store, [LogitCache.open(path) for path in paths], "mean-logits")
    >>> LogitCache.open(merged).logits([0, 1]).tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    >>> folder.cleanup()
    """
    if how not in get_args(MergeMode):
        raise ValueError(f"how: expected {', '.join(get_args(MergeMode))}, found {how!r}")
    if how == "stack-views":
        require_agreement(caches, ("teacher", "data", "encoding", POSITIONS))
        manifest = _stacked(caches)
        sources: list[tuple[LogitSource, int]] = [
            (cache, view) for cache in caches for view in range(cache.num_views)
        ]
    else:
        several = next((cache for cache in caches if cache.has_positions), None)
        if several is not None:
            raise MismatchError(
                f"{several.path}: has a row for each position; means are made of caches with a row for each sample"
            )
        sparse = next((cache for cache in caches if isinstance(cache.manifest.encoding, Sparse)), None)
        if sparse is not None:
            raise MismatchError(
                f"{sparse.path}: holds {sparse.manifest.encoding.name}; the mean of what was left out is not known"
            )
        ensemble = Ensemble(caches, "logits" if how == "mean-logits" else "probabilities")
        manifest = ensemble.manifest
        sources = [(ensemble, view) for view in range(ensemble.num_views)]
    with store.building(manifest) as path:
        return store.find(manifest) or _write(path, manifest, sources)


def _write(path: Path, manifest: Manifest, sources: Sequence[tuple[LogitSource, int]]) -> Path:
    """`sources` has the cache and its view that each view comes from."""
    first = sources[0][0].members[0]
    head = first.head if isinstance(manifest.encoding, Hidden) else None
    with LogitCacheWriter(path, manifest, positions=first.positions, head=head) as writer:
        for view, (source, inner) in enumerate(sources):
            copy_view(writer, view, source, inner)
        return writer.publish()


def _stacked(caches: Sequence[LogitCache]) -> Manifest:
    views = [dict(cache.manifest.identity["views"]) for cache in caches]
    count = sum(cache.num_views for cache in caches)
    identity = {**caches[0].manifest.identity, "views": {"count": count, "stacked": views}}
    return Manifest(identity, {"from": [cache.path.name for cache in caches]})


def copy_view(writer: LogitCacheWriter, view: int, source: LogitSource, inner: int) -> None:
    """Copies view `inner` of `source` into view `view` of what is written. Raises CorruptError at damaged rows."""
    if isinstance(source, LogitCache) and source.has_positions:
        _copy_positions(writer, view, source, inner)
        return
    cache = source if isinstance(source, LogitCache) else None
    if cache is not None and cache.manifest.encoding != writer.manifest.encoding:
        cache = None  # its rows are stored otherwise
    for rows in row_chunks(writer.manifest.num_samples):
        beside = {"labels": source.labels[rows], "input_crc32": source.input_crc32[inner, rows]}
        # Reading rows checks the blocks that their labels and checksums lie in too.
        if cache is not None:
            writer.write_encoded(rows, cache.encoded(rows, inner), **beside, view=view)
        else:
            writer.write(rows, source.logits(rows, inner), **beside, view=view)


def _copy_positions(writer: LogitCacheWriter, view: int, source: LogitCache, inner: int) -> None:
    """The same of samples with several positions each."""
    encoding, outputs = writer.manifest.encoding, source.num_outputs
    as_it_is = source.manifest.encoding == encoding
    has_next = source.manifest.identity[POSITIONS]["predicts"] == "next"
    about = source.positions if has_next and isinstance(source.encoding, Hidden) else None
    most = ROWS if as_it_is else max(1, min(ROWS, _DECODED // outputs))
    for samples in sample_chunks(source.lengths, most):
        rows = source.encoded(samples, inner)
        next_log_prob = source.next_log_prob(samples, inner) if has_next else None
        if not as_it_is:
            of, within = np.repeat(samples, source.lengths[samples]), _places(source.lengths[samples])
            tokens = None if about is None or about.tokens is None else about.next_tokens(samples)
            rows, found = _encoded_anew(source.encoding, encoding, rows, outputs, of, within, view, tokens)
            next_log_prob = next_log_prob if found is None else found
        writer.write_encoded(
            samples,
            rows,
            labels=source.labels[samples],
            input_crc32=source.input_crc32[inner, samples],
            next_log_prob=next_log_prob,
            view=view,
        )


def _encoded_anew(
    held: Encoding,
    wanted: Encoding,
    rows: Mapping[str, NDArray[Any]],
    outputs: int,
    samples: NDArray[np.int64],
    positions: NDArray[np.int64],
    view: int,
    next_tokens: NDArray[np.int64] | None,
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32] | None]:
    """Rows (Q, …) of one encoding in another, some at a time; and with `next_tokens` (Q,) what these have in them: a
    network in half precision rounded its logits, from which that was recorded, otherwise than those that follow from
    its hidden states.
    """
    parts, log_probs, step = [], [], max(1, _DECODED // outputs)
    for first in range(0, max(len(samples), 1), step):
        at = slice(first, first + step)
        logits = held.decode({name: column[at] for name, column in rows.items()}, outputs)
        parts.append(wanted.encode(logits, samples[at], view, positions[at]))
        if next_tokens is not None:
            log_probs.append(log_probs_of(logits, next_tokens[at]))
    made = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return made, np.concatenate(log_probs) if log_probs else None


def _places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 to length − 1 of each length, one after another."""
    return np.concatenate([np.arange(length) for length in lengths.tolist()] or [np.empty(0, np.int64)])


def take_over_views(writer: LogitCacheWriter, store: Store) -> int:
    """Copies the views that caches of the store have already: caches whose identity differs in the number of views
    alone. Returns how many views were copied; copying stops at the first damaged row of a cache.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store, one = Store(folder.name), Manifest.build(num_samples=2, num_outputs=2)
    >>> with LogitCacheWriter(store.path(one), one) as writer:
    ...     writer.write([0, 1], np.eye(2))
    ...     path = writer.publish()
    >>> with LogitCacheWriter(store.path(one.with_views(3)), one.with_views(3)) as writer:
    ...     take_over_views(writer, store), writer.is_written(0).tolist(), writer.is_written(1).tolist()
    (1, [True, True], [False, False])
    >>> folder.cleanup()
    """
    taken = 0
    for path in store.with_other_views(writer.manifest):
        try:
            source = LogitCache.open(path)
            for view in range(min(source.num_views, writer.manifest.num_views)):
                if not writer.is_written(view).all():
                    copy_view(writer, view, source, view)
                    taken += 1
        except CacheError:
            continue
    return taken
