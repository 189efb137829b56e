"""A cache of token samples at a path: found, or built by this process, or with the other ranks of a script."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.cache import Head, LogitCache, LogitCacheWriter, Manifest, Positions
from decant.cache.io.files import storage_error
from decant.cache.io.locks import exclusive, lock_path
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.batches import plan_of
from decant.pipeline.own_loop.cache_identity import found_at, require_logits_of
from decant.pipeline.own_loop.joint_pass import build_with_ranks, join_and_fill
from decant.pipeline.ranks.script import ranks_of_script
from decant.pipeline.support.notices import say_once
from decant.pipeline.training.handout import divided_at_the_end, handed_out

Window: TypeAlias = list[NDArray[np.int64]]
"""The batches of some samples that follow each other: the samples (B,) of each."""


Choose: TypeAlias = Callable[[Sequence[Window]], Iterable[Window]]
"""Those that a process takes of all windows."""


class Fill(Protocol):
    """Writes the rows that are missing: all of them, or those of the windows that are chosen."""

    def __call__(self, writer: LogitCacheWriter, choose: Choose | None = None) -> None: ...


def build(
    place: Path,
    manifest: Manifest,
    running: Callable[[], AbstractContextManager[Fill]],
    *,
    positions: Positions,
    head: Head | None = None,
    require_same: Callable[[LogitCache], None] | None = None,
) -> LogitCache:
    """The cache at `place`: found there, or filled by what `running` gives, which is entered when rows are missing.
    require_same: compares a cache that was found with the teacher itself.

    Raises MismatchError where there is a cache of something else.
    """

    def find_same() -> LogitCache | None:
        found = find(place, manifest)
        if found is not None and require_same is not None:
            require_same(found)
        return found

    found = find_same()
    if found is not None:
        return found
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, place, "making its folder") from error
    find_it = partial(find, place, manifest)
    with contextlib.ExitStack() as context:
        ranks = ranks_of_script()
        if ranks is None:
            waiting = exclusive(lock_path(place), lambda holder: say_once(f"{place}: waits for {holder}"))
            context.enter_context(waiting)
            found = find_same()  # another process may have built it while this one waited
            if found is not None:
                return found
        fill = context.enter_context(running())
        if ranks is None:
            with LogitCacheWriter(place, manifest, positions=positions, head=head) as writer:
                fill(writer)
                return LogitCache.open(writer.publish())

        def take(count: Callable[[], int]) -> LogitCache | None:
            def choose(windows: Sequence[Window]) -> Iterable[Window]:
                return handed_out(shared(windows, ranks.size), count)

            filled = partial(fill, choose=choose)
            return join_and_fill(place, manifest, filled, find_it, positions=positions, head=head)

        return build_with_ranks(place, ranks, take, find_it)


def find(path: Path, manifest: Manifest) -> LogitCache | None:
    """The cache at `path`, if there is one. Raises MismatchError where it is of something else."""
    cache = found_at(path)
    if cache is not None:
        require_logits_of(manifest, cache)
    return cache


def positions_of(samples: TokenSamples) -> Positions:
    """What a cache stores of the samples: their tokens, and at which of them the teacher predicts the next."""
    every = range(len(samples))
    places = np.concatenate([samples.positions(index) for index in every])
    first = np.cumsum(samples.num_positions) - samples.num_positions
    plain = np.arange(len(places)) - np.repeat(first, samples.num_positions)
    return Positions.of(
        samples.num_positions,
        predicts="next",
        tokens=np.concatenate([samples.tokens(index) for index in every]),
        token_lengths=samples.lengths,
        places=None if np.array_equal(places, plain) else places,
    )


def windows_of(samples: TokenSamples, tokens_per_batch: int, writer: LogitCacheWriter) -> list[Window]:
    """The batches of each window, whichever are written: what is handed out to several processes. A function of the
    samples, so that every process makes the same.
    """
    return plan_of(samples, tokens_per_batch, first_of_blocks(writer, len(samples)))


def shared(windows: Sequence[Window], processes: int) -> list[Window]:
    """What is handed out of windows to so many processes, one after the other: the last ones batch by batch.

    >>> [len(window) for window in shared([[np.arange(4)] * 3] * 5, processes=2)]
    [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    return divided_at_the_end(windows, processes, lambda window: [[batch] for batch in window])


def first_of_blocks(writer: LogitCacheWriter, count: int) -> NDArray[np.int64]:
    """The first sample of each block: processes that build a cache together write whole blocks each."""
    return np.unique(writer.blocks.of(np.arange(count)), return_index=True)[1]
