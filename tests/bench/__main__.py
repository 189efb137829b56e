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

from tests.bench import loading, reading
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
    print(f"| {'what':<58} | {'against':<44} | ratio of rates | target |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row.what:<58} | {row.against:<44} | {row.ratio:>14.2f} | {row.target:>6} |")


main()
