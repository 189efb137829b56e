"""Processes of one machine that share a sweep. Each takes trials from the journal; this one starts them, shows how far
they have come, and records what a process could not, as it was killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decant.pipeline.errors import DamagedError, PipelineError
from decant.pipeline.ranks.cores import own_cores
from decant.pipeline.support.notices import say
from decant.pipeline.sweeps.record import RECORD, SweepRecord, load_record
from decant.pipeline.sweeps.searches import fail_trials_of, worker_name
from decant.pipeline.training.device import devices_in_turn

_POLL_SECONDS = 0.2
_ERROR = "decant: "


def end_with_parent() -> Callable[[], None]:
    """A function that ends this process at once where the one that started it has died: another command may have begun
    to go on with the sweep, and every epoch is kept.
    """
    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            os._exit(1)

    return check


def threads_each(jobs: int) -> int:
    """Threads of each of `jobs` processes, which share the cores that this one may use."""
    return max(1, own_cores() // jobs)


@dataclass
class _Worker:
    """A process that runs trials, and what it said last."""

    process: subprocess.Popen[str]
    error: str = ""
    said: set[str] = field(default_factory=set)

    def listen(self) -> None:
        """Repeats what it says on stderr, each line once of all workers, but for its own last word."""
        for line in self.process.stderr or ():
            text = line.rstrip("\n")
            if text.startswith(_ERROR):
                self.error = text.removeprefix(_ERROR)
            elif text and text not in self.said:
                self.said.add(text)
                say(text)


def run_workers(
    words: Sequence[str], device: str, jobs: int, folder: Path, told: Callable[[SweepRecord], None]
) -> None:
    """Runs `decant sweep WORDS` in so many processes until each has ended. One that is killed is replaced, and its
    trial recorded as failed. Raises PipelineError with what one of them says where that ends the sweep.
    """
    said = set[str]()
    # A container that is started again may give the next command the same process id, and its trials are not its own.
    words = [*words, "--worker", f"{worker_name()}, {secrets.token_hex(4)}"]
    with contextlib.ExitStack() as ended:
        workers = [
            ended.enter_context(_started(words, each, jobs, said)) for each in devices_in_turn(device, jobs)
        ]
        while workers:
            time.sleep(_POLL_SECONDS)
            with contextlib.suppress(OSError, DamagedError):
                if (folder / RECORD).exists():
                    told(load_record(folder))
            for worker in list(workers):
                code = worker.process.poll()
                if code is None:
                    continue
                workers.remove(worker)
                if code < 0:
                    reason = (
                        f"its process was ended by signal {-code}; where that is 9, memory may have run out"
                    )
                    fail_trials_of(folder, worker_name(worker.process.pid), reason)
                    place = devices_in_turn(device, jobs)[len(workers) % jobs]
                    workers.append(ended.enter_context(_started(words, place, jobs, said)))
                elif code:
                    time.sleep(_POLL_SECONDS)  # for its last word
                    raise PipelineError(worker.error or f"a process of the sweep ended with exit code {code}")


@contextlib.contextmanager
def _started(words: Sequence[str], device: str, jobs: int, said: set[str]) -> Iterator[_Worker]:
    """A worker, which is ended with the block."""
    threads = str(threads_each(jobs))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "decant", "sweep", *words, "--device", device],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = _Worker(process, said=said)
    threading.Thread(target=worker.listen, daemon=True).start()
    try:
        yield worker
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
