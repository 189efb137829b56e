"""Prints the table of every measurement and keeps it as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.bench import loading, reading, verifying
from tests.bench.timing import Measurement


def main() -> None:
    """Runs the measurements; `--quick` for small tables, to see that they work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables and few repetitions")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/bench.json"), help="where the figures are kept"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="decant-bench-") as folder:
        found = [
            *reading.measure(Path(folder), quick=options.quick),
            *verifying.measure(Path(folder), quick=options.quick),
            *loading.measure(Path(folder), quick=options.quick),
        ]
    _print(found)
    machine = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "numpy", "h5py")},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(
        json.dumps({"machine": machine, "rows": [row.as_dict() for row in found]}, indent=2)
    )
    print(f"made {options.json}")


def _print(rows: list[Measurement]) -> None:
    print("| what | against | ratio of rates | target |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.against} | {row.ratio:.2f} | {row.target} |")


main()
