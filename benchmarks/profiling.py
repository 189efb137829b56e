"""Where the time of a distilled student's epoch and of phase one goes, by PyTorch's own profiler.

`python -m benchmarks.profiling` prints both as Markdown: the largest operators by the time that they themselves take
on the processor, and the rest, which is Python, views, gathers and checksums.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.caching import CPU, phase_one
from benchmarks.conditions import Conditions
from benchmarks.epochs import DISTIL, Student
from benchmarks.images import labelled

OPERATORS = 8


def main() -> None:
    """Profiles both, once each after a warm-up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data, to see that it works")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="decant-profile-") as folder:
        conditions = Conditions(Path(folder), options.quick, 0)
        student = Student.of(conditions)
        show(f"An epoch of {student.what}", student.epoch(labelled(conditions, student.data), DISTIL))
        count = conditions.choose(20_000, 512)
        phase, _ = phase_one(conditions, CPU, count, "bfloat16")
        show(f"Phase one, resnet20, {count:,} CIFAR-sized images, bfloat16", phase)


def show(what: str, run: Callable[[], float]) -> None:
    """Prints the table of one call; shares are of the wall time that `run` returns, of all its threads' work."""
    plain = run()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        seconds = run()
    events = sorted(profiled.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    print(
        f"\n{what}: {plain:.2f} s, {seconds:.2f} s while profiled\n\n| operator | calls | share |\n|---|---|---|"
    )
    rest = seconds
    for event in events[:OPERATORS]:
        own = event.self_cpu_time_total / 1e6
        rest -= own
        print(f"| {event.key} | {event.count:,} | {own / seconds:.1%} |")
    others = sum(event.self_cpu_time_total for event in events[OPERATORS:]) / 1e6
    print(f"| {len(events) - OPERATORS} other operators | | {others / seconds:.1%} |")
    print(f"| the rest: Python, views, gathers, checksums, files | | {(rest - others) / seconds:.1%} |")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
