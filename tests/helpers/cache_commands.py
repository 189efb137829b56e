"""What users do with caches, one call each in a folder: joined parts, merges, conversions, imports, exports, fetches.

Each can be killed anywhere and called again; `KINDS` has them by name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decant.cache import (
    CacheWarning,
    LogitCache,
    LogitCacheWriter,
    Sparse,
    Store,
    convert_cache,
    export_logits,
    import_logits,
    merge_caches,
    merge_parts,
)
from decant.cache.io.partial import finish_publishing
from decant.cache.remote.fetching import fetch
from decant.cache.remote.local_folder import LocalFolder
from tests.helpers.caches import build, manifest, write

OF = manifest(100)
"""Two views of four blocks."""


@dataclass(frozen=True)
class Command:
    """`prepare` makes what it needs in an empty folder; `run` does it there, and finds what is done already."""

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]


def _join_parts(folder: Path) -> None:
    path = folder / "joined.h5"
    for part in range(3):
        if path.exists():
            finish_publishing(path)
            return
        with LogitCacheWriter.join(path, OF) as writer:
            for number in range(part, writer.blocks.num_blocks, 3):
                view, block = divmod(number, writer.blocks.per_view)
                rows = np.arange(*writer.blocks.bounds(block))
                write(writer, view, rows[~writer.in_file(rows, view)])
            if part == 2:
                writer.publish()


def _begin_two(folder: Path) -> None:
    for machine in range(2):
        with LogitCacheWriter(folder / str(machine) / "part.h5", OF) as writer:
            for view in range(2):
                write(writer, view, np.arange(50 * machine, 50 * machine + 50))


def _build_two(folder: Path) -> None:
    for seed in range(2):
        build(folder / f"{seed}.h5", manifest(100, teacher={"seed": seed}))


def _merge_means(folder: Path) -> None:
    caches = [LogitCache.open(folder / f"{seed}.h5") for seed in range(2)]
    merge_caches(Store(folder / "store"), caches, "mean-logits")


def _stack_views(folder: Path) -> None:
    merge_caches(Store(folder / "store"), [LogitCache.open(folder / "0.h5")] * 2, "stack-views")


def _import_table(folder: Path) -> None:
    table = 4 * np.random.default_rng(0).normal(size=(2, 100, 700)).astype("f4")
    import_logits(Store(folder / "store"), table, np.arange(100) % 10, teacher={}, data={"name": "toy"})


def _place(folder: Path) -> None:
    """A file elsewhere; its copy is called after when it was written."""
    os.utime(build(folder / "there" / "x.h5", manifest(300)), (1, 1))


KINDS = {
    "parts": Command(lambda folder: None, _join_parts),
    "merge-parts": Command(
        _begin_two, lambda folder: merge_parts(Store(folder / "store"), sorted(folder.glob("*/*.partial")))
    ),
    "merge": Command(_build_two, _merge_means),
    "stack": Command(_build_two, _stack_views),
    "convert": Command(
        _build_two,
        lambda folder: convert_cache(Store(folder / "store"), LogitCache.open(folder / "0.h5"), Sparse(8)),
    ),
    "import": Command(lambda folder: None, _import_table),
    "export": Command(
        _build_two, lambda folder: export_logits(LogitCache.open(folder / "0.h5"), folder / "logits.npy")
    ),
    "fetch": Command(_place, lambda folder: fetch(LocalFolder(folder / "there"), "x.h5", folder / "copies")),
}


def run_quietly(command: Command, folder: Path) -> None:
    """The command, without what it doubts: the logits are no teacher's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        command.run(folder)
