"""Whole views of finished caches, copied into one that is being written; damaged rows are refused, not copied."""

from __future__ import annotations

from decant.cache.errors import CacheError
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource, row_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter


def copy_view(writer: LogitCacheWriter, view: int, source: LogitSource, inner: int) -> None:
    """View `inner` of `source` becomes view `view`. Raises CorruptError at rows that are damaged."""
    for rows in row_chunks(writer.manifest.num_samples):
        # Reading the logits checks the blocks that the other columns lie in too.
        logits = source.logits(rows, inner)
        checksums = source.input_crc32[inner, rows]
        writer.write(rows, logits, labels=source.labels[rows], input_crc32=checksums, view=view)


def take_over_views(writer: LogitCacheWriter, store: Store) -> int:
    """Copies what the store's caches of the same question with another number of views have; how many views
    that were. A cache that turns out to be damaged is left at its last sound row.
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
