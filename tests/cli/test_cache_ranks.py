"""`torchrun -m decant cache-logits`: real jobs of several ranks, which write one file."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from decant.cache import LogitCache, find_unfinished
from tests.helpers.commands import decant, only, succeed
from tests.helpers.processes import wait_until
from tests.ranks.torchrun import run_ranks, said, start_ranks

SETTINGS = [
    word
    for setting in (
        "teacher.network.width=4",
        "teacher.epochs=1",
        "views.count=40",
        'views.augment=[{op="pad-crop", padding=1}]',
        "cache.batch_size=100",
    )
    for word in ("--set", setting)
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and with the cache of one process in `whole`."""
    folder = tmp_path_factory.mktemp("ranks")
    succeed(decant("teacher", *SETTINGS, cwd=folder))
    succeed(decant("cache-logits", *SETTINGS, "--store", "whole", cwd=folder))
    return folder


def words(store: str, *more: str) -> tuple[str, ...]:
    return ("-m", "decant", "cache-logits", *SETTINGS, "--store", store, *more)


def test_ranks_make_the_very_file_of_one_process(taught: Path) -> None:
    done = run_ranks(3, *words("three", "--json"), cwd=taught)
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    assert done.stdout.count('"path": "three/') == 1, "one rank of them prints"
    assert made["rows"] == 40 * 1437, "together, each row computed once"
    path = only(taught / "three", "*.h5")
    assert path.read_bytes() == only(taught / "whole", "*.h5").read_bytes()
    assert [entry.name for entry in (taught / "three").iterdir()] == [path.name]
    assert said(done.stderr) == []
    again = run_ranks(2, *words("three"), cwd=taught)
    assert "nothing to do, no teacher was loaded" in again.stdout, again.stderr


def test_killed_ranks_end_the_job_and_the_same_command_goes_on(taught: Path) -> None:
    """With another number of ranks each time."""
    store = taught / "killed"
    job = start_ranks(2, *words("killed"), cwd=taught)
    wait_until(lambda: _rows(store) > 0, job)
    os.kill(json.loads(sorted(store.glob("*.joined"))[-1].read_text())["process"], signal.SIGKILL)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 1
    (line,) = said(err)
    assert re.match(r"decant: ended by SIGTERM; everything made so far is kept. Go on with: ", line), line
    assert "SIGKILL" in err, "torchrun says which rank was killed"
    assert list(store.glob("*.h5")) == []
    (begun,) = store.glob("*.partial")
    inode = begun.stat().st_ino
    done = run_ranks(3, *words("killed", "--json"), cwd=taught)
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    assert 0 < made["rows"] < 40 * 1437
    path = only(store, "*.h5")
    assert path.stat().st_ino == inode, "one file from the first rank's start to the end"
    assert path.read_bytes() == only(taught / "whole", "*.h5").read_bytes()
    assert [entry.name for entry in store.iterdir()] == [path.name]
    assert LogitCache.open(path).verify() == []


def _rows(store: Path) -> int:
    """Rows that are written."""
    begun = [
        find_unfinished(path.with_name(path.name.split(".h5.")[0] + ".h5"))
        for path in store.glob("*.partial")
    ]
    return sum(found.rows for found in begun if found is not None)
