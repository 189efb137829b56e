"""Measures, row by row; prints the table as Markdown and keeps it as JSON."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    caching,
    commands,
    epochs,
    files,
    gpu,
    image_files,
    instructions,
    language_phase_one,
    language_students,
    loading,
    machine,
    memory,
    own_loop,
    phase_one_ranks,
    positions,
    ranks,
    reading,
    remote,
    scale,
    seeds,
    sweeps,
    verifying,
    views,
    writing,
)
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, line, table
from decant.cache.io.files import write_atomically

ROWS: dict[int, Callable[[Conditions], Iterator[Measurement]]] = {
    1: reading.against_memory,
    2: reading.against_h5py,
    3: files.measure,
    4: loading.measure,
    5: caching.measure,
    6: epochs.against_labels,
    7: epochs.against_arithmetic,
    8: epochs.against_live,
    9: memory.measure,
    10: scale.measure,
    11: commands.answers,
    12: views.batch,
    13: verifying.measure,
    14: gpu.steps,
    15: gpu.phase_one,
    16: gpu.training,
    17: own_loop.measure,
    18: ranks.measure,
    19: sweeps.measure,
    20: positions.measure,
    21: instructions.measure,
    22: remote.measure,
    23: phase_one_ranks.measure,
    24: phase_one_ranks.resume,
    25: writing.measure,
    26: verifying.whole_file,
    27: seeds.measure,
    28: language_phase_one.measure,
    29: language_students.against_labels,
    30: language_students.against_live,
    31: image_files.measure,
}


def main() -> None:
    """Runs the rows that are asked for. Temporary files, 11 GB of them, go where TMPDIR says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and few, only to see that it works")
    parser.add_argument(
        "--only", type=int, nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="these rows"
    )
    parser.add_argument("--json", type=Path, default=Path("runs/bench.json"), help="where figures are kept")
    parser.add_argument("--seed", type=int, default=0, help="of data, batches and weights")
    options = parser.parse_args()
    found, left_out, described = list[Measurement](), dict[int, str](), machine.describe()
    try:
        with tempfile.TemporaryDirectory(prefix="decant-bench-") as folder:
            run(Conditions(Path(folder), options.quick, options.seed), options.only, found, left_out)
    finally:  # an error or Ctrl-C in the last row does not lose what took minutes before
        made = {
            "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            "quick": options.quick,
            "machine": described,
            "rows": [row.as_dict() for row in found],
            "left_out": left_out,
        }
        write_atomically(options.json, (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode())
    print(table(found))
    for row, reason in left_out.items():
        print(f"row {row} left out: {reason}")
    if options.quick:
        print("--quick: these figures only show that the measurements work")
    print(f"made {options.json}")


def run(conditions: Conditions, rows: list[int], found: list[Measurement], left_out: dict[int, str]) -> None:
    """Adds what is found, and says it at once; and why what is missing is."""
    for row in sorted(set(rows)):
        try:
            for measurement in ROWS[row](conditions):
                found.append(measurement)
                print(line(measurement), file=sys.stderr, flush=True)
        except LeftOut as reason:
            left_out[row] = str(reason)


main()
