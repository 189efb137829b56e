"""Two of a command at once: both end well, and what they leave is what one leaves."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from decant.cache import LogitCache, Store, export_logits
from decant.pipeline.report.output import make_report
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.report.tensorboard import write_events
from tests.helpers import small
from tests.helpers.caches import build, manifest
from tests.helpers.processes import PATIENCE, python

GC = """
import sys
from decant.pipeline.cli import main
sys.argv = ["decant", "cache", "gc", "--delete", "--store", sys.argv[1]]
main.main()
"""


def test_two_collections_remove_all_and_say_no_error(tmp_path: Path) -> None:
    for number in range(60):
        os.utime(build(tmp_path / f"a-{number:016x}.h5", manifest(3, 5, 1)), (0, 0))
    running = [python(GC, tmp_path) for _ in range(3)]
    for process in running:
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, ""), (out, err)
    assert Store(tmp_path).paths() == []
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_two_reports_exports_and_folders_of_events_at_once(tmp_path: Path) -> None:
    quick = ('teacher.network="linear"', "teacher.epochs=2")
    result = small.teach(tmp_path, *quick)
    cache = small.build_cache(tmp_path, *quick)
    subject = of_recipe(small.recipe(*quick), tmp_path / "runs", cache_store(cache), small.CPU)
    alone = make_report(subject, tmp_path / "alone")
    with ThreadPoolExecutor(8) as pool:
        calls = [
            *(pool.submit(write_events, [result]) for _ in range(3)),
            *(pool.submit(export_logits, cache, tmp_path / "logits.npy") for _ in range(3)),
            *(pool.submit(make_report, subject, tmp_path / "together") for _ in range(2)),
        ]
        for call in calls:
            call.result(timeout=PATIENCE)
    assert len(list((result.folder / "tensorboard").iterdir())) == 1, "two would double the curves"
    for made in alone.files:
        assert (tmp_path / "together" / made.name).read_bytes() == made.read_bytes()
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith(".draft")]
    assert left == []


def cache_store(cache: LogitCache) -> Store:
    return Store(cache.path.parent)
