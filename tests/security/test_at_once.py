"""Two of a command at once: both end well, and what they leave is what one leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCache, Store, export_logits
from decant.pipeline.report.output import make_report
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.report.tensorboard import write_events
from tests.helpers import small
from tests.helpers.caches import build, manifest
from tests.helpers.commands import decant_at_once
from tests.helpers.processes import PATIENCE


def test_two_collections_remove_all_and_say_no_error(tmp_path: Path) -> None:
    for number in range(60):
        os.utime(build(tmp_path / f"a-{number:016x}.h5", manifest(3, 5, 1)), (0, 0))
    collect = ("cache", "gc", "--delete", "--store", tmp_path)
    for done in decant_at_once([(collect, {})] * 3, tmp_path):
        assert (done.returncode, done.stderr) == (0, ""), done
    assert Store(tmp_path).paths() == []
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


QUICK = ('teacher.network="linear"', "teacher.epochs=2")


def together(*calls: Callable[[], object]) -> None:
    """Each call in a thread of its own, at once."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for call in [pool.submit(call) for call in calls]:
            call.result(timeout=PATIENCE)


def drafts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".draft")]


def test_three_exports_and_folders_of_events_at_once(tmp_path: Path) -> None:
    result, path = small.teach(tmp_path, *QUICK), tmp_path / "logits.npy"
    cache = LogitCache.open(build(tmp_path / "a.h5"))
    together(*[lambda: write_events([result])] * 3, *[lambda: export_logits(cache, path)] * 3)
    assert len(list((result.folder / "tensorboard").iterdir())) == 1, "two would double the curves"
    assert np.array_equal(np.load(path)[1], cache.logits(slice(None), 1))
    assert drafts(tmp_path) == []


@pytest.mark.slow
def test_two_reports_at_once(tmp_path: Path) -> None:
    small.teach(tmp_path, *QUICK)
    subject = of_recipe(small.recipe(*QUICK), tmp_path / "runs", Store(tmp_path / "caches"), small.CPU)
    alone = make_report(subject, tmp_path / "alone")
    together(*[lambda: make_report(subject, tmp_path / "together")] * 2)
    for made in alone.files:
        assert (tmp_path / "together" / made.name).read_bytes() == made.read_bytes()
    assert drafts(tmp_path) == []
