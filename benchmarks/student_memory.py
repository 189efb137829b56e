"""Private memory of a student's run, beside that of the same steps in plain PyTorch and of the data once.

python -m benchmarks.student_memory run|torch FOLDER COUNT SEED     # trains an epoch, prints the most of it, in bytes
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.conditions import Conditions
from benchmarks.epochs import BATCH, DISTIL, Student
from benchmarks.images import SHAPE, labelled, viewed
from benchmarks.measurement import Measurement, Unit

_ROOT = Path(__file__).parents[1]
_STATUS = Path("/proc/self/status")
_EVERY = 0.01  # seconds

Mode = Literal["run", "torch"]


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """A line of row 9."""
    count, repetitions = conditions.choose(156 * BATCH, 4 * BATCH), conditions.choose(3, 1)
    labelled(conditions, viewed(conditions, count))  # the cache is written here, and not by who is measured
    found: dict[Mode, list[int]] = {"run": [], "torch": []}
    for _ in range(repetitions):
        for mode, peaks in found.items():
            peaks.append(_peak_of_a_process(mode, conditions, count))
    run, torch = (statistics.median(peaks) for peaks in found.values())
    data = count * int(np.prod(SHAPE))
    yield Measurement(
        9, f"private memory, an epoch of a distilled resnet8, {count:,} CIFAR-sized images",
        f"of the same steps in PyTorch on one batch, and the images once ({data / 1e6:.0f} MB)",
        (run - torch - data) / 1e6, Unit.MEGABYTES, 100,
        details={"bytes": run, "against_bytes": torch, "data_bytes": data, "repetitions": repetitions},
    )  # fmt: skip


def peak(mode: Mode, conditions: Conditions, count: int) -> int:
    """The most private and shared memory, in bytes, of an epoch in this process; what is mapped from a file is left
    out.
    """
    done, most = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(_EVERY):
            most[0] = max(most[0], _held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if mode == "torch":
            student = Student.of(conditions, count=BATCH)
            student.arithmetic()()
        else:
            student = Student.of(conditions, count=count)
            student.epoch(labelled(conditions, student.data), DISTIL)()
    finally:
        done.set()
        watcher.join()
    return max(most[0], _held())


def _peak_of_a_process(mode: Mode, conditions: Conditions, count: int) -> int:
    arguments = [mode, str(conditions.folder), str(count), str(conditions.seed)]
    command = [sys.executable, "-m", __name__, *arguments]
    output = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(output.splitlines()[-1])


def _held() -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


if __name__ == "__main__":
    _, chosen, folder, number, seed = sys.argv
    print(
        peak("run" if chosen == "run" else "torch", Conditions(Path(folder), False, int(seed)), int(number))
    )
