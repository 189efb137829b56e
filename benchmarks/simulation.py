"""Caches of the size that large jobs have, as sparse files: every block is written and holds zeros, which take no room.

python -m benchmarks.simulation             # prints the table of docs/scaling.md; a gigabyte of logs in TMPDIR

Each line is a process of its own, which reports its processor time, the bytes that it asked the system to read, and its
memory. What a disk would take to deliver the bytes comes on top.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decant.cache import LogitCache, LogitCacheWriter, Manifest, Positions, Sparse
from decant.cache.format.blocks import Blocks
from decant.cache.format.hdf5 import create
from decant.cache.io.block_layout import WRITTEN
from decant.cache.io.checksum import crc32
from decant.cache.io.partial import new_name
from decant.cache.io.synced import SYNC_BYTES, SyncedBlocks

_ROOT = Path(__file__).parents[1]
_IO = Path("/proc/self/io")
_ROWS, _BATCHES = 1_024, 250  # rows of a batch: 1,024 samples, or one of about 1,024 positions


@dataclass(frozen=True)
class Size:
    """What a simulated cache is of."""

    name: str
    samples: int
    outputs: int
    head: int | None = None
    """Of `Sparse`; None for every logit in float16."""

    length: int | None = None
    """About how many positions a sample has, where it has several."""

    def manifest(self, positions: Positions | None) -> Manifest:
        """Of the cache."""
        return Manifest.build(
            num_samples=self.samples,
            num_outputs=self.outputs,
            encoding=None if self.head is None else Sparse(self.head),
            data={"name": self.name},
            positions=positions,
        )

    @property
    def positions(self) -> Positions | None:
        """Lengths between half of `length` and one and a half times that, which the teacher knows beforehand."""
        if self.length is None:
            return None
        half = self.length // 2
        return Positions.of(np.random.default_rng(0).integers(half, 3 * half, self.samples), predicts="here")


SIZES = (
    Size("ImageNet-1k, every logit", 1_281_167, 1_000),
    Size("ImageNet-21k, head of 64", 14_197_122, 21_841, 64),
    Size("100 GB, every logit", 50_000_000, 1_000),
    Size("10⁹ positions, head of 64", 976_563, 49_152, 64, 1_024),
)
SMALL = (Size("small, every logit", 20_000, 100), Size("small, positions, head of 4", 2_000, 30, 4, 16))


def begin(size: Size, folder: Path, unsynced: int = SYNC_BYTES) -> Path:
    """The unfinished file of a cache with every block written, of which the last `unsynced` bytes are not known to be
    on the disk, as after a kill just before the end. Returns the path to be published.
    """
    path, positions = folder / "cache.h5", size.positions
    unfinished = new_name(path)
    layout, fd = create(
        unfinished, size.manifest(positions), None if positions is None else positions.tables()
    )
    blocks = Blocks(layout)
    nbytes = _block_bytes(blocks)
    lengths, which = np.unique(nbytes, return_inverse=True)
    entries = np.array([WRITTEN + crc32(bytes(length)) for length in lengths.tolist()], "<u8")[which]
    os.pwrite(fd, entries.tobytes(), blocks.entries_offset)
    os.close(fd)
    log = SyncedBlocks(unfinished)
    synced = np.flatnonzero(nbytes[::-1].cumsum()[::-1] > unsynced)
    for block in synced.tolist():
        log.finished(block, int(entries[block]), 0)
    log.append()
    log.close()
    return path


def _block_bytes(blocks: Blocks) -> np.ndarray:
    """(number of blocks,): the bytes of each block of the only view."""
    starts = blocks.lengths.starts(np.arange(blocks.num_samples))
    edges = np.searchsorted(starts, np.arange(blocks.per_view + 1) << blocks.shift)
    edges[-1] = blocks.num_samples
    rows = {axis: np.diff(lengths.starts(edges)) for axis, lengths in blocks.axes.items()}
    return sum(rows[column.axis] * column.row_bytes for column in blocks.columns.values())


def publish(path: Path) -> None:
    """Gives the unfinished file its published name, unchecked: that would read everything."""
    (unfinished,) = path.parent.glob("*.partial")
    for log in path.parent.glob("*.synced"):
        log.unlink()
    unfinished.rename(path)


def resume(path: Path, size: Size) -> None:
    """What goes on with an unfinished file does before its first row. No room is reserved: it has holes on purpose."""
    os.posix_fallocate = lambda fd, offset, count: None  # type: ignore[assignment]
    with LogitCacheWriter(path, size.manifest(size.positions)) as writer:
        assert writer.is_written().all()


def open_cache(path: Path, size: Size) -> None:
    """`LogitCache.open`."""
    assert len(LogitCache.open(path)) == size.samples


def verify(path: Path, size: Size) -> None:
    """`decant cache verify --part 50/100`; that rows of zeros are no logits is another matter."""
    assert not any("not as it was written" in problem for problem in LogitCache.open(path).verify((49, 100)))


def gather(path: Path, size: Size) -> None:
    """Random samples, whose blocks are checked when they are first read."""
    _gather(LogitCache.open(path), size)


def gather_unchecked(path: Path, size: Size) -> None:
    """The same without checksums, as later epochs read."""
    _gather(LogitCache.open(path, verify="off"), size)


def _gather(cache: LogitCache, size: Size) -> None:
    random, each = np.random.default_rng(0), _ROWS // (size.length or 1)
    for _ in range(_BATCHES):
        cache.encoded(random.integers(0, size.samples, each))


DONE: dict[str, Callable[[Path, Size], None]] = {
    "resume": resume,
    "open": open_cache,
    "verify one part of 100": verify,
    f"{_BATCHES * _ROWS:,} random rows, first read": gather,
    f"{_BATCHES * _ROWS:,} random rows, unchecked": gather_unchecked,
}


def measured(what: str, path: Path, size: Size) -> dict[str, float]:
    """Processor seconds, bytes read by calls, and the most anonymous memory, of one of `DONE` in its own process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.simulation",
        "--run",
        what,
        str(path),
        json.dumps(size.__dict__),
    ]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _run(what: str, path: Path, size: Size) -> dict[str, float]:
    idle, peak, over = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, _anonymous())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    before, started = _read_bytes(), time.process_time()
    DONE[what](path, size)
    seconds, read = time.process_time() - started, _read_bytes() - before
    peak = max(peak, _anonymous())
    over.set()
    watching.join()
    return {"seconds": seconds, "read": read, "memory": peak - idle}


def _read_bytes() -> int:
    """Bytes that this process has read by calls; what it reads of mapped files is not among them."""
    return int(_IO.read_text().split("rchar: ")[1].split()[0])


def _anonymous() -> int:
    """Bytes of anonymous memory that this process holds."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def simulate(size: Size, folder: Path) -> list[dict[str, Any]]:
    """A row for each thing that is done with a cache of this size."""
    path = begin(size, folder)
    (unfinished,) = folder.glob("*.partial")
    nbytes, rows = unfinished.stat().st_size, []
    for what in DONE:
        if what == "open":
            publish(path)
        rows.append({"size": size.name, "bytes": nbytes, "what": what, **measured(what, path, size)})
    path.unlink()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| cache | what | processor time | read by calls | memory |", "|---|---|---|---|---|"]
    for row in rows:
        share = row["read"] / row["bytes"]
        lines.append(
            f"| {row['size']}, {row['bytes'] / 1e9:,.1f} GB | {row['what']} | {row['seconds']:,.3g} s | "
            f"{row['read'] / 1e6:,.1f} MB, {100 * share:.2g} % | {row['memory'] / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--small", action="store_true", help="only to see that it works")
    parser.add_argument("--run", nargs=3, metavar=("WHAT", "PATH", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        what, path, size = options.run
        print(json.dumps(_run(what, Path(path), Size(**json.loads(size)))))
        return
    rows = []
    for size in SMALL if options.small else SIZES:
        with tempfile.TemporaryDirectory(prefix="decant-simulation-") as folder:
            rows += simulate(size, Path(folder))
    print(table(rows))


if __name__ == "__main__":
    main()
