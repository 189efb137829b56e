"""A cache of token samples at a path: found, or built by this process, or with the other ranks of a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, Manifest
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.batches import plan_of
from decant.pipeline.own_loop.cache_identity import found_at, require_logits_of
from decant.pipeline.own_loop.joint_pass import Begun, build
from decant.pipeline.training.handout import divided_at_the_end

Window: TypeAlias = list[NDArray[np.int64]]
"""The batches of some samples that follow each other: the samples (B,) of each."""


def find_or_build(
    place: Path,
    manifest: Manifest,
    begin: Callable[[int], AbstractContextManager[Begun]],
    require_same: Callable[[LogitCache], None],
) -> LogitCache:
    """The cache at `place`: found there, and compared with the teacher by `require_same`, or built as
    `joint_pass.build` does. Raises MismatchError where there is a cache of something else.
    """
    found = find(place, manifest)
    if found is None:
        return build(place, lambda: find(place, manifest), begin, require_same)
    require_same(found)
    return found


def find(path: Path, manifest: Manifest) -> LogitCache | None:
    """The cache at `path`, if there is one. Raises MismatchError where it is of something else."""
    cache = found_at(path)
    if cache is not None:
        require_logits_of(manifest, cache)
    return cache


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
    return divided_at_the_end(windows, processes, batch_by_batch)


def batch_by_batch(window: Window) -> list[Window]:
    """The batches of a window as windows of their own."""
    return [[batch] for batch in window]


def first_of_blocks(writer: LogitCacheWriter, count: int) -> NDArray[np.int64]:
    """The first sample of each block: processes that build a cache together write whole blocks each."""
    return np.unique(writer.blocks.of(np.arange(count)), return_index=True)[1]
