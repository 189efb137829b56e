"""The end of a rank: one of a job says why it ended, the others leave without a word.

A launcher starts with "rank N failed" and a page of its own for whatever rank ended with another exit code than 0; no
rank can keep it from that. What a rank can do is done here: only one says something, its message is in the file that
torchrun shows in that page, and the others wait for torchrun to end them, which it does not count as failures.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import OtherRankFailedError, connect, failure, joined
from decant.pipeline.ranks.launch import launched

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_CONNECTING_SECONDS = 10.0
_LINGERING_SECONDS = 5.0


def is_first_to_end(why: str, error: BaseException | None = None) -> bool:
    """Whether this rank is the one to say why the job ends: the first of those that come to the same end.

    why: "failed", or what is no failure, as "ended". True for a process that is no rank. Where no store of the job can
    be reached, rank 0 speaks.
    """
    launch = launched()
    if launch is None:
        return True
    if isinstance(error, OtherRankFailedError):
        return False
    try:
        job = joined()
        store = connect(launch, _CONNECTING_SECONDS) if job is None else job.store
        name = failure(launch) if why == "failed" else f"over/{launch.attempt}/{why}"
        return bool(store.add(name, 1) == 1)
    except (RankError, RuntimeError):
        return launch.rank == 0


def has_failed() -> bool:
    """Whether another rank of this job is known to have failed."""
    launch, job = launched(), joined()
    try:
        if job is not None:
            return job.has_failed()
        if launch is None or not launch.has_store:
            return False
        return bool(connect(launch, _CONNECTING_SECONDS).check([failure(launch)]))
    except (RankError, RuntimeError):
        return False


def record(message: str) -> None:
    """Leaves the message for torchrun, which shows it in its page in the place of a traceback."""
    name = os.environ.get(_ERROR_FILE)
    if launched() is None or not name:
        return
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(name).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))


def linger() -> None:
    """Waits some seconds for the launcher to end this process, as it does when another has failed."""
    time.sleep(_LINGERING_SECONDS)


def leave(code: int) -> NoReturn:
    """Ends a rank with an exit code, after everything that Python does at its end but taking the interpreter apart.

    The threads of gloo may still hold tensors then; one that lets go of them without an interpreter aborts the process
    ("terminate called without an active exception"), whose work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
