"""A store that does not answer any more: a rank ends, and does not wait for ever."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.helpers import commands
from tests.helpers.forked_ranks import environment
from tests.helpers.processes import wait_until

WAITING = """
import sys, threading, time
from decant.pipeline.ranks import job as jobs, leaving
jobs._answer_seconds = lambda: 2.0
job = jobs.join()
open(f"joined-{job.rank}", "w").close()
if sys.argv[1] == "waits":
    job.get("nothing", "what nobody gives")
time.sleep(20)
leaving.leave(0)
"""
"""A rank that waits at the store, or that computes and asks it nothing."""


def hold_store(port_file: Path) -> None:
    """What a launcher does, until it is killed."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    port_file.with_suffix(".part").write_text(str(store.port))
    port_file.with_suffix(".part").rename(port_file)
    signal.pause()


def test_a_rank_whose_store_is_stopped_ends_and_one_of_its_machine_says_so(tmp_path: Path) -> None:
    script, port = tmp_path / "script.py", tmp_path / "port"
    script.write_text(WAITING)
    launcher = commands.FORKS.Process(target=hold_store, args=(port,))
    launcher.start()
    wait_until(port.exists)

    def stop(children: list[int]) -> None:
        wait_until(lambda: all((tmp_path / f"joined-{rank}").exists() for rank in range(2)))
        os.kill(launcher.pid or 0, signal.SIGSTOP)

    given = [environment(2, int(port.read_text()), rank) for rank in range(2)]
    try:
        done = commands.decant_at_once(
            [([script, does], given[rank]) for rank, does in enumerate(("computes", "waits"))], tmp_path, stop
        )
    finally:
        launcher.kill()
        launcher.join()
    assert [rank.returncode for rank in done] == [1, 1], done
    line = r"decant: rank 0 of 2 on \S+: the job's store at 127.0.0.1:\d+ has not answered for 2 s: .*\n"
    assert re.fullmatch(line, done[0].stderr), done
    assert done[1].stderr == "", "one of the ranks of a machine speaks"
