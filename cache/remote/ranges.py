"""Which bytes of a file are asked for together: blocks in groups, and their ranges with small gaps between them."""

from __future__ import annotations

from collections.abc import Iterable

from decant.cache.format.blocks import Blocks

_GAP = 16 << 10  # bytes between two ranges that are fetched with them rather than by a request of their own


def grouped(blocks: Blocks, numbers: Iterable[int], most: int) -> Iterable[list[int]]:
    """Blocks in groups that follow one another in the file, of at most so many bytes."""
    group: list[int] = []
    held = 0
    for number in sorted(numbers):
        size = sum(end - first for first, end in blocks.ranges(number))
        if group and (held + size > most or number != group[-1] + 1):
            yield group
            group, held = [], 0
        group.append(number)
        held += size
    if group:
        yield group


def merged(
    blocks: Blocks, group: Iterable[int], first: int = 0, end: int | None = None
) -> list[tuple[int, int]]:
    """The bytes of blocks in as few ranges as can be, with the bytes of small gaps: those that begin from byte
    `first` on, and before `end`.
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted({place for number in group for place in blocks.ranges(number)}):
        if start == stop or start < first or (end is not None and start >= end):
            continue
        if found and start - found[-1][1] <= _GAP:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def without(first: int, end: int, taken: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """The parts of a range that no other, in order, takes."""
    for start, stop in taken:
        if stop <= first or start >= end:
            continue
        if start > first:
            yield first, start
        first = max(first, stop)
    if first < end:
        yield first, end
