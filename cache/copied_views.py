"""Whole views copied from one cache into another, in its encoding or in a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Encoding, Hidden
from decant.cache.errors import CacheError
from decant.cache.manifest import POSITIONS
from decant.cache.reader import LogitCache
from decant.cache.source import ROWS, LogitSource, row_chunks, sample_chunks
from decant.cache.store.local import Store
from decant.cache.validation import log_probs_of
from decant.cache.writer import LogitCacheWriter

_DECODED = 1 << 23
"""Logits that are decoded at once."""


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
    >>> from decant.cache import Manifest
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
