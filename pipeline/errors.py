"""The exceptions of `pipeline`; the command line prints each as one line and exits with 1.

PipelineError
├── RecipeError     a recipe that cannot be read, or a value in it that cannot be right
├── DataError       a dataset that is missing, empty or unreadable
│   └── ChangedError  files that have changed while they were read
├── ModelError      an unknown network, or arguments that it does not take
├── WeightsError    weights that are missing, unreadable or do not fit their network
├── ServerError     a server that has the teacher, and does not answer, or not as it must
├── DeviceError     a device that this machine does not have
├── DivergedError   a training whose loss is no number any more
├── RankError       ranks of one job that differ, or that do not reach each other
├── DamagedError    a file of an earlier run that is not as it was written
└── NotMadeError    an earlier phase has not been run; the message names the command that runs it

What is wrong with a cache file is a `cache.CacheError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """The base of every exception of `pipeline`; its message is one line that says what to do."""


class RecipeError(PipelineError):
    """A recipe that cannot be read, or a value in it that cannot be right."""


class DataError(PipelineError):
    """A dataset that is missing, empty or unreadable."""


class ChangedError(DataError):
    """Files have changed while they were read."""


class ModelError(PipelineError):
    """An unknown network, or arguments that it does not take."""


class WeightsError(PipelineError):
    """Weights that are missing, unreadable or do not fit their network."""


class ServerError(PipelineError):
    """A server that has the teacher, and does not answer, or not as it must."""


class DeviceError(PipelineError):
    """A device that this machine does not have."""


class DivergedError(PipelineError):
    """A training whose loss or metrics are no numbers any more."""


class RankError(PipelineError):
    """Ranks of one job that differ, that do not reach each other, or of which one is lost."""


class DamagedError(PipelineError):
    """A file of an earlier run that is not as it was written."""


class NotMadeError(PipelineError):
    """An earlier phase has not been run; the message names the command that runs it."""


_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a device: torch says so by an error of many kinds.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory."))
    (True, True)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _NO_MEMORY)


_MOST_NAMES = 40


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown NAME" message: the nearest known names, or all of them when none is near and they are few.

    >>> nearest("conw", ["conv", "mlp"]), nearest("x", map(str, range(100, 200)))[-20:]
    ('did you mean conv?', '138, 139 and 60 more')
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.51)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"known: {', '.join(names[:_MOST_NAMES])}{more}"
