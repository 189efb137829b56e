"""Blocks that lie one after another, checked together: by one CRC-32 of about 1 MiB of them in place of one each.

A CRC-32 is linear: that of A and B one after another is that of A, carried over as many zeros as B has bytes, xor that
of B. So the CRC-32 that the first ranges of several blocks must have together follows from the entries of these blocks
and from their other ranges, which are small: labels, and checksums of inputs. Only where it is another one have the
blocks to be looked at one by one. Together as alone, changes within 32 bits and those of any two bits are always found,
and of all others one in 2³² is not.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.block_layout import WRITTEN, ReadBytes
from decant.cache.io.checksum import crc32

_SPAN = 1 << 20
"""Bytes whose checksum is worked out in one call; other threads run meanwhile."""
_SMALL = 4
"""The first range is at least so many times as large as the others together, or these are not worth to be copied."""
_AT_ONCE = 1 << 10
"""Blocks whose other ranges are in memory at a time."""


def sound_in_spans(
    read: ReadBytes, ranges: NDArray[np.int64], entries: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """(B,): which blocks are found to agree with their entries (B,). All others are still to be looked at alone: those
    that do not agree, those that were checked together with one of them, and those that do not lie one after another.

    ranges: (B, T, 2), first byte and end of the T ranges of each block, over which its checksum runs in this order.

    >>> content, places = b"abcdef", [0, 2, 4]
    >>> entries = np.array([WRITTEN + crc32(content[at : at + 2]) for at in places], np.uint64)
    >>> ranges = np.array([[[at, at + 2]] for at in places])
    >>> sound_in_spans(lambda first, end: content[first:end], ranges, entries).tolist()
    [True, True, False]
    >>> sound_in_spans(lambda first, end: b"abcdeg"[first:end], ranges[1:], entries[1:]).tolist()
    [False, False]
    """
    found = np.zeros(len(ranges), np.bool_)
    if len(ranges) < 2:
        return found
    sizes = ranges[0, :, 1] - ranges[0, :, 0]
    each = _blocks_of_a_span(int(sizes[0]), int(sizes[1:].sum()), len(ranges))
    runs = _runs(ranges, sizes, entries, each) if each > 1 else []
    if not runs:
        return found
    together, others = list[int](), list[int]()
    for first, end in runs:
        starts, stops = ranges[first:end:each, 0, 0], ranges[first + each - 1 : end : each, 0, 1]
        together += [crc32(read(*span)) for span in zip(starts.tolist(), stops.tolist(), strict=True)]
        beside = _checksums_of_others(read, ranges[first:end, 1:])
        if beside is None:
            return found
        others += beside
    members = np.concatenate([np.arange(first, end) for first, end in runs])
    # Of each block the checksum of its first range, carried over the others, is this; and so they are joined.
    carried = entries[members].astype(np.uint32) ^ np.array(others, np.uint32)
    expected = _joined(carried.reshape(-1, each), int(sizes[0]))
    agree = _carried(np.array(together, np.uint32), int(sizes[1:].sum())) == expected
    found[members] = np.repeat(agree, each)
    return found


def _blocks_of_a_span(size: int, others: int, count: int) -> int:
    """How many of `count` blocks are checked together, a power of two; 1 where that would not be worth it."""
    if not 0 < size <= _SPAN or others * _SMALL > size:
        return 1
    return 1 << min(_SPAN // size, count).bit_length() - 1


def _runs(
    ranges: NDArray[np.int64], sizes: NDArray[np.int64], entries: NDArray[np.uint64], each: int
) -> list[tuple[int, int]]:
    """Blocks [first, end) that lie one after another in each of their ranges, which have these sizes (T,): a multiple
    of `each` of them in a run, at most _AT_ONCE.
    """
    usual = (ranges[:, :, 1] - ranges[:, :, 0] == sizes).all(axis=1) & (entries // WRITTEN == 1)
    after = usual[1:] & usual[:-1] & (ranges[1:, :, 0] == ranges[:-1, :, 1]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~after]))
    lengths = np.diff(starts, append=len(ranges)) // each * each
    long, most = lengths > 0, max(each, _AT_ONCE)
    return [
        (first, min(first + most, end))
        for start, end in zip(starts[long].tolist(), (starts + lengths)[long].tolist(), strict=True)
        for first in range(start, end, most)
    ]


def _checksums_of_others(read: ReadBytes, ranges: NDArray[np.int64]) -> list[int] | None:
    """(B,): the CRC-32 of ranges (B, T, 2) of each block; those of the blocks lie one after another. None where fewer
    bytes are read than there should be, as of a file that was cut off.
    """
    count, bounds = len(ranges), zip(ranges[0, :, 0].tolist(), ranges[-1, :, 1].tolist(), strict=True)
    places = [(first, end) for first, end in bounds if first < end]
    parts = [np.frombuffer(read(first, end), np.uint8) for first, end in places]
    if not parts:
        return [0] * count
    if any(len(part) < end - first for part, (first, end) in zip(parts, places, strict=True)):
        return None
    rows = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    contents: list[bytes] = rows.view(f"V{rows.shape[1]}").reshape(-1).tolist()
    return list(map(crc32, contents))


def _joined(crcs: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """(S,) from (S, a power of two): the CRC-32 of parts of `size` bytes one after another, from those of each."""
    while crcs.shape[1] > 1:
        crcs, size = _carried(crcs[:, ::2], size) ^ crcs[:, 1::2], 2 * size
    return crcs[:, 0]


def _carried(crcs: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    """What these are carried over `size` zeros: xor the CRC-32 of as many bytes, that of what goes on with them."""
    if not size:
        return crcs
    first, second, third, fourth = _tables(size)
    low = first[crcs & 255] ^ second[crcs >> 8 & 255]
    carried: NDArray[np.uint32] = low ^ third[crcs >> 16 & 255] ^ fourth[crcs >> 24]
    return carried


@functools.lru_cache(maxsize=64)
def _tables(size: int) -> NDArray[np.uint32]:
    """(4, 256): what each value of each byte of a CRC-32 is, carried over `size` zeros."""
    zeros, found = bytes(size), np.zeros((4, 256), np.uint32)
    nothing = crc32(zeros)
    for bit in range(32):
        table, value = found[bit // 8], 1 << bit % 8
        table[value : 2 * value] = table[:value] ^ np.uint32(crc32(zeros, 1 << bit) ^ nothing)
    return found
