"""Private memory of a process that reads a cache at random: what is mapped is shared, and does not count.

python -m benchmarks.memory CACHE BATCHES SEED     # reads, and prints the most of it, in bytes
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import student_memory
from benchmarks.caches import published
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from decant.cache import LogitCache

_ROOT = Path(__file__).parents[1]
_STATUS = Path("/proc/self/status")
_CLASSES = 1_000


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 9: a cache of 10 GB against one of 100 MB, and a student's run against plain PyTorch."""
    if not _STATUS.exists():
        raise LeftOut("private memory is read from /proc, which is Linux's")
    samples, batches = conditions.choose((5_000_000, 2_000), (100_000, 200))
    large, small = (published(conditions, count, _CLASSES) for count in (samples, 50_000))
    found: dict[Path, list[int]] = {large: [], small: []}
    repetitions = conditions.choose(3, 1)
    for _ in range(repetitions):
        for path, peaks in found.items():
            peaks.append(_peak_of_a_process(path, batches, conditions.seed))
    most, least = (statistics.median(peaks) for peaks in found.values())
    large.unlink()
    yield Measurement(
        9, f"private memory, {batches:,} random batches of a cache of {_size(samples)}", f"of {_size(50_000)}",
        (most - least) / 1e6, Unit.MEGABYTES, 50,
        details={"bytes": most, "against_bytes": least, "repetitions": repetitions},
    )  # fmt: skip
    yield from student_memory.measure(conditions)


def read(path: Path, batches: int, seed: int) -> int:
    """The most private memory, in bytes, while random batches of 256 are read and checked."""
    cache, random, most = LogitCache.open(path), np.random.default_rng(seed), 0
    for batch in range(batches):
        cache.logits(random.integers(0, cache.num_samples, 256))
        if batch % 10 == 0 or batch == batches - 1:
            most = max(most, _held("RssAnon"))
    return most


def _peak_of_a_process(path: Path, batches: int, seed: int) -> int:
    command = [sys.executable, "-m", __name__, str(path), str(batches), str(seed)]
    return int(subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)


def forget_peak() -> int:
    """Resident memory of this process now, in bytes; from here on `peak_memory` is of what is held later."""
    Path("/proc/self/clear_refs").write_text("5")
    return _held("VmRSS")


def peak_memory() -> int:
    """The most resident memory that this process held since it started, or since `forget_peak`, in bytes."""
    return _held("VmHWM")


def _held(what: str) -> int:
    """Memory of this process, in bytes: "RssAnon" is what is private, of what is resident."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def _size(samples: int) -> str:
    size = samples * _CLASSES * 2
    return f"{size / 1e9:.0f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    print(read(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
