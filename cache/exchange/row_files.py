"""Rows of a cache as arrays in a .npz file, for other programs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse
from decant.cache.io.files import replacing
from decant.cache.reader import LogitCache
from decant.cache.source import ROWS, sample_chunks

_DECODED = 1 << 23  # logits in memory at once


def export_rows(cache: LogitCache, path: Path) -> dict[str, tuple[int, ...]]:
    """Writes the rows of a cache as a .npz file, which NumPy reads; returns the shape of each array by its name.

    A sparse cache gives `ids` (V, P, k), `log_probs` (V, P, k) and `log_tail` (V, P, m) at the m `temperatures`,
    `log_sum_exp` (V, P) of the raw logits, and with draws `certain` and `log_tau` (V, P); any other gives `logits`
    (V, P, C). P are the positions of all samples one after another, where `lengths` (N,) says whose they are; or the
    samples. Beside them `labels`, and what there is of `next_log_prob` (V, P), `tokens` (T,), `token_lengths` (N,) and
    `places` (P,). Every block is checked, and `path` gets the whole file or is left as it was. Raises CorruptError.

    >>> import tempfile
    >>> from decant.cache import LogitCache, LogitCacheWriter, Manifest, Sparse
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
