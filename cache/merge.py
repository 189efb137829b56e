"""Several caches into one file: the mean of teachers, or the views of one teacher after each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from decant.cache.copying import copy_view
from decant.cache.ensemble import Ensemble, require_agreement
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

How = Literal["mean-logits", "mean-probabilities", "stack-views"]


def merge(store: Store, caches: Sequence[LogitCache], how: How) -> Path:
    """Publishes the merged cache in `store`, or finds it there.

    mean-logits and mean-probabilities are those of `Ensemble`, at T = 1, of caches of the same data and
    views. stack-views puts the views of one cache after those of the one before, and wants the same teacher,
    data and encoding. Raises MismatchError, naming every field that differs.
    """
    if how not in get_args(How):
        raise ValueError(f"how: expected {', '.join(get_args(How))}, found {how!r}")
    if how == "stack-views":
        require_agreement(caches, ("teacher", "data", "encoding"))
        manifest = _stacked(caches)
        sources: list[tuple[LogitSource, int]] = [
            (cache, view) for cache in caches for view in range(cache.num_views)
        ]
    else:
        ensemble = Ensemble(caches, "logits" if how == "mean-logits" else "probabilities")
        manifest = ensemble.manifest
        sources = [(ensemble, view) for view in range(ensemble.num_views)]
    with store.building(manifest) as path:
        return store.find(manifest) or _write(path, manifest, sources)


def _write(path: Path, manifest: Manifest, sources: Sequence[tuple[LogitSource, int]]) -> Path:
    """`sources` has the cache and its view that each view comes from."""
    with LogitCacheWriter(path, manifest) as writer:
        for view, (source, inner) in enumerate(sources):
            copy_view(writer, view, source, inner)
        return writer.publish()


def _stacked(caches: Sequence[LogitCache]) -> Manifest:
    views = [dict(cache.manifest.identity["views"]) for cache in caches]
    count = sum(cache.num_views for cache in caches)
    identity = {**caches[0].manifest.identity, "views": {"count": count, "stacked": views}}
    return Manifest(identity, {"from": [cache.path.name for cache in caches]})
