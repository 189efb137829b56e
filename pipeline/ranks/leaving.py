"""How a rank, or a command that a signal ends, leaves: what it tells torchrun, and the end of its process."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from decant.pipeline.ranks.launch import launched

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


def record(message: str) -> None:
    """Leaves the message for torchrun, which shows it in its page in the place of a traceback."""
    name = os.environ.get(_ERROR_FILE)
    if launched() is None or not name:
        return
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(name).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code, after everything that Python does at its end but waiting for threads and
    taking the interpreter apart.

    The threads of gloo may still hold tensors then; one that lets go of them without an interpreter aborts the process
    ("terminate called without an active exception"), whose work is done. A thread that waits for a server may wait for
    minutes.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
