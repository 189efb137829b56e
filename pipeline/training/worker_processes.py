"""The processes that read data for a DataLoader: how they are started, what is said where that fails or one dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Iterator

from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import in_words


def start_method() -> str | None:
    """How workers are started: as the program chose, which is None here, and on Linux by fork where it chose nothing.
    Forked ones share data in memory, and these may hold functions and classes that cannot be pickled. Python 3.14 would
    start them anew.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return "fork" if chosen is None and sys.platform == "linux" else None


@contextlib.contextmanager
def sent(started_by: str | None) -> Iterator[None]:
    """Says in words that the data cannot be pickled, and so not be sent to a process that is started anew, which is an
    error of pickle's and a warning of PyTorch's. started_by: what `start_method` returned. Raises DataError.
    """
    if not _is_anew(started_by):
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")
            yield
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        forked = ", or multiprocessing.set_start_method('fork') first" if sys.platform == "linux" else ""
        raise DataError(
            f"the data cannot be sent to the processes that read them, which are started anew ({in_words(error)}): put "
            f"their functions and classes at the top level of a module, or use num_workers=0{forked}"
        ) from error


@contextlib.contextmanager
def alive(started_by: str | None) -> Iterator[None]:
    """Says in words that a worker process was killed, which is a bare RuntimeError of PyTorch. Raises DataError."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        if "DataLoader worker" not in said or not ("killed" in said or "exited unexpectedly" in said):
            raise
        raise DataError(_words_of_death(said.rstrip(". "), started_by)) from error


def _words_of_death(said: str, started_by: str | None) -> str:
    again = "run the same command again, it goes on from what is saved"
    if "exited unexpectedly" in said and _is_anew(started_by):
        return (
            f"a process that reads the data has ended ({said}), and what it said is above; one that said nothing was "
            "killed, most often because memory ran out; it was started anew, so a script must do its work under "
            'if __name__ == "__main__":, and a notebook must import the dataset from a module, or use num_workers=0; '
            f"{again}"
        )
    return f"a process that reads the data was killed ({said}), most often because memory ran out; {again}"


def _is_anew(started_by: str | None) -> bool:
    return (started_by or multiprocessing.get_start_method(allow_none=True)) in ("spawn", "forkserver")
