"""Fetches blocks of a file elsewhere into its local copy, several at once: each is checked, and then written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import CorruptError
from decant.cache.remote.folder import ChangedError, RemoteFolder
from decant.cache.remote.head import Head
from decant.cache.remote.partial_copy import PartialCopy
from decant.cache.remote.progress import Advance
from decant.cache.remote.ranges import grouped, merged
from decant.cache.remote.threads import asking

_GROUP = 4 << 20  # bytes of blocks that one worker fetches at a time
_LARGE_GROUP = 32 << 20  # the same where a whole file is fetched: each request costs a store some time
_WORKERS, _WORKERS_OF_WHOLE, _WORKERS_BESIDE = 16, 4, 2
_MOST_RANGES = 8  # of a group that are asked for at once, each in another table of the file


class Filling:
    """The fetching of one file into its copy. Several threads and processes may fetch into one copy."""

    def __init__(
        self, folder: RemoteFolder, name: str, head: Head, entries: NDArray[np.uint64], path: Path
    ) -> None:
        """Opens the copy at `path`, or makes it. Raises StorageError."""
        self.copy = PartialCopy(head, entries, path)
        self.folder, self.name, self.head, self.blocks = folder, name, head, head.blocks
        self._beside = self.head.layout.tables[self.head.layout.encoded[-1]].end
        """Where the tables end that hold what a teacher said; beside them are labels and the like, which are small."""
        self._beside_asked: Future[None] | None = None
        """The end of fetching these, where all of them are fetched at once, to be checked with the blocks."""

    def fetch_most(self, numbers: Sequence[int], advance: Advance) -> None:
        """As `fetch`, with fewer requests where most blocks of the file are missing: what is small of each block, its
        labels and checksums of inputs, is fetched for all of them meanwhile, and checked with the rest of the block.
        """
        with asking(1) as pool:
            self._beside_asked = pool.submit(self._fetch_beside, numbers)
            self.fetch(numbers, advance, _WORKERS_OF_WHOLE, _LARGE_GROUP)

    def _fetch_beside(self, numbers: Sequence[int]) -> None:
        with self.copy.kept_open():
            pieces = [
                (first, min(end, first + _LARGE_GROUP))
                for start, end in merged(self.blocks, numbers, self._beside)
                for first in range(start, end, _LARGE_GROUP)
            ]
            missing = set(numbers)
            others = [number for number in range(self.blocks.num_blocks) if number not in missing]
            kept = {place for number in others for place in self.blocks.ranges(number)}
            tables = list(self.head.layout.tables.values())
            kept |= {(table.end, after.offset) for table, after in pairwise(tables)}  # which must be zeros
            stays = sorted(kept)
            with asking(_WORKERS_BESIDE) as pool:
                for some in range(0, len(pieces), _WORKERS_BESIDE):  # that few are in memory
                    now = pieces[some : some + _WORKERS_BESIDE]
                    for (first, _), content in zip(now, pool.map(self._ask, now), strict=True):
                        self.copy.put_between(first, content, stays)

    def fetch(
        self,
        numbers: Sequence[int],
        advance: Advance = lambda count: None,
        workers: int = _WORKERS,
        group_bytes: int = _GROUP,
    ) -> None:
        """Fetches blocks and writes them into the copy, in groups, several at once. Raises CorruptError, naming the
        first block that is not as it must be in two answers, RemoteError and StorageError.
        """
        groups = iter(grouped(self.blocks, numbers, group_bytes))
        if len(numbers) == 1 or workers == 1:
            for group in groups:
                self._fetch_group(group, advance)
            return
        with asking(workers) as pool:
            running: set[Future[None]] = set()
            for group in groups:
                running.add(pool.submit(self._fetch_group, group, advance))
                if len(running) >= 2 * workers:  # so that little is begun where one fails
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()

    def read_table(self, table: str) -> None:
        """Fetches a table as a whole, for whoever reads it before its blocks are read; these are checked when they
        are fetched, together with it.
        """
        self.copy.put_table(table, self._ask)

    def _fetch_group(self, group: Sequence[int], advance: Advance) -> None:
        with self.copy.kept_open():
            self._fetch_checked(group)
        advance(sum(end - first for number in group for first, end in self.blocks.ranges(number)))

    def _fetch_checked(self, group: Sequence[int]) -> None:
        ranges = merged(self.blocks, group, end=self._beside if self._beside_asked else None)
        try:
            wrong = self._fetch_ranges(group, ranges)
            if wrong:  # once more, as what comes through a network may be changed on its way
                wrong = self._fetch_ranges(wrong, merged(self.blocks, wrong))
        except ChangedError as error:
            raise ChangedError(f"{error}; run the same command again to have the new one") from None
        if wrong:
            name = self.blocks.name(*divmod(wrong[0], self.blocks.per_view))
            raise CorruptError(
                f"{self.head.shown}: {name} is not as it was written, in two answers of the store; it was damaged or "
                "replaced there"
            )

    def _fetch_ranges(self, group: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
        """Fetches these bytes, and writes the blocks of `group` that are as they must be; returns the others."""
        with asking(_MOST_RANGES) as pool:  # which makes as many threads as there are ranges
            parts = [memoryview(content) for content in pool.map(self._ask, ranges)]
        if self._beside_asked:
            self._beside_asked.result()

        def fetched(first: int, end: int) -> memoryview | None:
            for (start, stop), part in zip(ranges, parts, strict=True):
                if start <= first < end <= stop:
                    return part[first - start : end - start]
            return None  # of a block without samples, or in the copy already

        return [number for number in group if not self.copy.put(number, fetched)]

    def _ask(self, place: tuple[int, int]) -> bytes:
        return self.folder.read(self.name, *place, self.head.stat.tag)
