"""Numbers of outputs up to 262,144: sixteen bits of each in one table, and two more of every four in a byte of another.

Three bytes for each would be as short, and took fifteen times as long to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.encoding import Column

SHORT = 1 << 16
"""Outputs that two bytes tell apart."""
MOST = 1 << 18
"""Outputs that eighteen bits tell apart."""
_SHIFTS = np.array([0, 2, 4, 6], np.int32)
_HIGH = (np.arange(256, dtype=np.int32)[:, None] >> _SHIFTS & 3) << 16
"""(256, 4): the high bits of the four ids of a byte."""


def id_columns(kept: int, num_outputs: int) -> dict[str, Column]:
    """The tables of `kept` ids: `ids`, and `ids_high` where there are more outputs than two bytes tell apart."""
    high = {"ids_high": Column((-(-kept // 4),), np.dtype("u1"))} if num_outputs > SHORT else {}
    return {"ids": Column((kept,), np.dtype("<u2")), **high}


def pack_ids(ids: NDArray[np.integer], num_outputs: int) -> dict[str, NDArray[Any]]:
    """(B, k) ids as rows of these tables.

    >>> pack_ids(np.array([[65_537, 2]]), num_outputs=100_000)
    {'ids': array([[1, 2]], dtype=uint16), 'ids_high': array([[1]], dtype=uint8)}
    """
    low = {"ids": (ids & (SHORT - 1)).astype("<u2")}
    return low if num_outputs <= SHORT else {**low, "ids_high": _high_bits(ids)}


def unpack_ids(rows: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """(…, k) ids from rows of these tables."""
    ids: NDArray[np.int32] = rows["ids"].astype(np.int32)
    if "ids_high" in rows:
        high = _HIGH.take(rows["ids_high"], axis=0)  # four of each byte
        ids |= high.reshape(*high.shape[:-2], -1)[..., : ids.shape[-1]]
    return ids


def _high_bits(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(B, ⌈k/4⌉): bits 16 and 17 of every four ids in a byte."""
    padded = np.zeros((len(ids), -(-ids.shape[1] // 4) * 4), np.int32)
    padded[:, : ids.shape[1]] = ids >> 16
    parts = padded.reshape(len(ids), -1, 4) << _SHIFTS
    high: NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)
    return high
