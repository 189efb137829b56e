"""Who is at unfinished work, and how far it is."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from decant.cache import FormatError, LogitCacheWriter
from decant.pipeline.runs.locks import holder
from decant.pipeline.status.live_progress import Progress, epoch_progress, row_progress, row_writers
from decant.pipeline.training.epoch_log import CHECKPOINT, METRICS
from tests.helpers.caches import build, manifest, write
from tests.helpers.commands import fork_python
from tests.helpers.processes import line

HOLDING = """
import os, sys, time
from pathlib import Path
from decant.pipeline.runs.locks import alone_with
with alone_with(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


def test_a_living_process_is_named_and_a_killed_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert holder(folder) is None
    assert list(tmp_path.iterdir()) == [], "to look makes a lock"
    process = fork_python(HOLDING, folder)
    pid = int(line(process))
    assert holder(folder) == f"process {pid} on {socket.gethostname()}"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert holder(folder) is None


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("process {own} on {here}", True),
        ("process 1 on {here}", True),  # another person's
        ("process 7 on another.machine", True),
        (f"process {10**30} on {{here}}", True),
        ("no process at all", True),
        (f"process {2**22 + 1} on {{here}}", False),  # above the largest id that Linux gives
        ("", False),  # who has just made the lock has not yet said who it is
    ],
)
def test_the_lock_is_not_touched_where_nobody_can_have_it(named: str, asked: bool, tmp_path: Path) -> None:
    named = named.format(own=os.getpid(), here=socket.gethostname())
    lock = tmp_path / ".run.lock"
    lock.write_text(named)
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(tmp_path / "run") == (named if asked else None)
    assert holder(tmp_path / "run") is None


def metrics(folder: Path, *seconds: float, torn: str = "") -> None:
    lines = [json.dumps({"epoch": place + 1, "seconds": each}) for place, each in enumerate(seconds)]
    (folder / METRICS).write_text("".join(f"{each}\n" for each in lines) + torn)


def test_epochs_are_counted_and_the_median_of_them_tells_what_is_left(tmp_path: Path) -> None:
    assert epoch_progress(tmp_path, 8) == Progress(0, 8, "epochs")
    (tmp_path / CHECKPOINT).touch()
    metrics(tmp_path, 30.0, 2.0, 4.0)
    assert epoch_progress(tmp_path, 8, seed=1) == Progress(3, 8, "epochs", 5 * 4.0, 1)


@pytest.mark.parametrize("torn", ['{"epoch": 3, "sec', "{}", "[]", "\x00", '{"seconds": null}'])
def test_a_torn_line_is_no_epoch(torn: str, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).touch()
    metrics(tmp_path, 2.0, 2.0, torn=torn)
    assert epoch_progress(tmp_path, 3) == Progress(2, 3, "epochs", 2.0)


def test_an_epoch_without_a_checkpoint_would_be_made_again(tmp_path: Path) -> None:
    metrics(tmp_path, 2.0)
    assert epoch_progress(tmp_path, 3) == Progress(0, 3, "epochs")


def test_written_rows_are_counted_by_whole_blocks_while_and_after_they_are_written(tmp_path: Path) -> None:
    path, of = tmp_path / "a.h5", manifest()  # two views of 50 rows, in blocks of 32
    assert row_progress(path) is None
    assert row_progress(tmp_path / "no folder" / "a.h5") is None
    with LogitCacheWriter(path, of) as writer:
        assert row_progress(path) == (Progress(0, 100, "rows"), True)
        write(writer, 0, range(32))
        write(writer, 1, range(40, 50))
        assert row_progress(path) == (Progress(32, 100, "rows"), True)
        write(writer, 0, range(32, 50))
        assert row_progress(path) == (Progress(50, 100, "rows"), True)
    assert row_progress(path) == (Progress(50, 100, "rows"), False)
    build(path, of)
    assert row_progress(path) is None


def test_of_several_unfinished_files_that_one_counts_that_somebody_is_at(tmp_path: Path) -> None:
    path, of = tmp_path / "a.h5", manifest()
    with LogitCacheWriter(path, of) as writer:
        write(writer, 0, range(50))
    begun = writer.partial
    fuller = begun.with_name("a.h5.another_machine-0.partial")
    begun.rename(fuller)
    with LogitCacheWriter(tmp_path / "b.h5", of) as writer:
        writer.partial.rename(tmp_path / "a.h5.third_machine-0.partial")
        assert row_progress(path) == (Progress(0, 100, "rows"), True)
    assert row_progress(path) == (Progress(50, 100, "rows"), False)


def test_a_damaged_file_is_said_unless_there_is_a_sound_one(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    damaged = tmp_path / "a.h5.some_machine-0.partial"
    damaged.write_bytes(b"nothing of a cache")
    with pytest.raises(FormatError, match=r"some_machine-0.partial: .*; delete it and run the command again"):
        row_progress(path)
    with LogitCacheWriter(path, manifest()):
        assert row_progress(path) == (Progress(0, 100, "rows"), True)


def test_processes_that_write_a_cache_together_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, of = tmp_path / "a.h5", manifest()
    with LogitCacheWriter(path, of):
        assert row_writers(path) is None
    first = LogitCacheWriter.join(path, of)
    assert row_writers(path) == f"process {os.getpid()}: 0 rows"
    assert first._rows._member is not None
    first._rows._member.close()
    monkeypatch.setenv("WORLD_SIZE", "9")
    writers = []
    for rank in range(9):
        monkeypatch.setenv("RANK", str(rank))
        writers.append(LogitCacheWriter.join(path, of))
        writers[-1]._rows._member.add(10 * rank, every=0.0)  # type: ignore[union-attr]
        if rank == 1:
            assert row_writers(path) == "rank 0: 0 rows, rank 1: 10 rows"
    assert row_writers(path) == "9 ranks, 0 to 80 rows each"
    for writer in writers:
        writer.close()
    assert row_writers(path) is None
