"""What no writer stores, in blocks whose checksums agree: a file that was made by hand, or by another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.errors import ValueRefusedError
from decant.cache.format.batch import Batch
from decant.cache.format.blocks import Blocks
from decant.cache.format.tables import Layout
from decant.cache.lengths import Ragged
from decant.cache.manifest import Manifest
from decant.cache.positions import sha256
from decant.cache.validation import check_rows


class Readable(Protocol):
    """The rows of an open cache, as `LogitCache` has them."""

    def encoded(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> dict[str, NDArray[Any]]: ...

    def next_log_prob(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.float32]: ...


def problems_of_values(
    cache: Readable, layout: Layout, blocks: Blocks, chosen: range, damaged: set[int]
) -> Iterator[str]:
    """The first row of each of these blocks that `write` never stores. `damaged` blocks are not read."""
    positions = layout.axes.get("position")
    for number in chosen:
        view, block = divmod(number, blocks.per_view)
        first, end = blocks.bounds(block)
        if number in damaged or first == end:
            continue
        samples = np.arange(first, end)
        rows = cache.encoded(samples, view)
        lengths = (
            {}
            if positions is None
            else {name: Ragged(positions.spans(samples)) for name in (*rows, "next_log_prob")}
        )
        if "next_log_prob" in layout.tables:
            rows["next_log_prob"] = cache.next_log_prob(samples, view)
        try:
            check_rows(layout, Batch(samples, view, rows, lengths))
        except ValueRefusedError as error:
            yield str(error)


def problems_of_tables(manifest: Manifest, table: Callable[[str], NDArray[Any]]) -> Iterator[str]:
    """Tables that are known before any row, and are not what the manifest has the SHA-256 of."""
    about = manifest.positions
    if about is None:
        return
    for name, digest in (("tokens", about.token_sha256), ("places", about.places_sha256)):
        if digest is not None and sha256(table(name)) != digest:
            yield f"`{name}` is not as the manifest says"
