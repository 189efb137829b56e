"""Caches made of other caches: one in a smaller encoding, and one of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from decant.cache.copied_views import copy_view
from decant.cache.encodings import Dense, Encoding, Hidden, Sparse
from decant.cache.ensemble import Ensemble, require_agreement
from decant.cache.errors import MismatchError
from decant.cache.manifest import POSITIONS, Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

MergeMode = Literal["mean-logits", "mean-probabilities", "stack-views"]
"""How caches become one: by the mean of their logits, by that of their probabilities, or view after view."""


def convert_cache(store: Store, cache: LogitCache, encoding: Encoding) -> Path:
    """Publishes the rows of a cache in another, smaller encoding in `store`, or finds that there; returns its path. No
    teacher is needed, and everything else of the identity stays.

    Raises MismatchError for a cache that does not hold every logit in float16 or float32, or hidden states of which all
    follow: what it has lost does not come back.

    >>> import tempfile
    >>> import numpy as np
    >>> from decant.cache import Quantised, import_logits
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
    >>> import numpy as np
    >>> from decant.cache import import_logits
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
