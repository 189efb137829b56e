"""A watch over the launcher's store: a rank that it does not answer any more ends, instead of waiting for ever.

A call of the store blocks until the store answers. Where the machine that runs it is cut off or stopped, no answer
comes and no connection breaks, so that nothing in this process would ever know.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.launch import Launch
from decant.pipeline.ranks.leaving import leave, record

_ASKING_SECONDS = 5.0
_TICKS = 20
"""Of the watch, in the time that the store may take. They are counted, and not the clock's seconds: a process that was
stopped itself, as by Ctrl-Z, has waited for nobody meanwhile.
"""
_LEAVING_SECONDS = 10.0


def watch_store(launch: Launch, connect: Callable[[], Any], seconds: float) -> None:
    """Has two threads ask the store for a sign and end this process where none comes for so many seconds.

    connect: a connection of the watch's own; one that is shared is blocked while another thread waits for a value.
    """
    answered, over = threading.Event(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError, RankError):  # a store that is gone: who needs it says so
            store = connect()
            while True:
                store.check(["watch"])
                answered.set()
                over.wait(min(_ASKING_SECONDS, seconds / 4))
        over.set()

    def watch() -> None:
        missed = 0
        while missed < _TICKS:
            if over.wait(seconds / _TICKS):
                return
            missed = 0 if answered.is_set() else missed + 1
            answered.clear()
        _end(launch, seconds)

    for run in (ask, watch):
        threading.Thread(target=run, name=f"{run.__name__} the store", daemon=True).start()


def _end(launch: Launch, seconds: float) -> None:
    """Ends this process; the first rank of its machine says why, as all on it lose the store at once."""
    last = threading.Timer(_LEAVING_SECONDS, os._exit, (1,))  # whatever else keeps it from leaving
    last.daemon = True
    last.start()
    if launch.local_rank == 0:
        said = (
            f"rank {launch.rank} of {launch.size} on {socket.gethostname()}: the job's store at "
            f"{launch.address}:{launch.port} has not answered for {seconds:,.0f} s: the machine or the launcher that "
            "runs it is cut off or stopped; run the same command again, it goes on from what is saved"
        )
        # An address comes from outside: nothing in it may act on a terminal.
        said = "".join(letter if letter.isprintable() else "?" for letter in said)
        record(said)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"decant: {said}\n")
    leave(1)
