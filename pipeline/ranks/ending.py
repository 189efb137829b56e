"""The end of a rank: one of a job says why it ended, the others leave without a word.

A launcher starts with "rank N failed" and a page of its own for whatever rank ended with another exit code than 0; no
rank can keep it from that. What a rank can do is done here: only one says something, its message is in the file that
torchrun shows in that page, and the others wait for torchrun to end them, which it does not count as failures.
"""

from __future__ import annotations

import time

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import FAILED, OtherRankFailedError, connect, joined, over
from decant.pipeline.ranks.launch import launched

_CONNECTING_SECONDS = 10.0
_LINGERING_SECONDS = 5.0
_NO_STORE = (RankError, RuntimeError, ImportError, AttributeError)
"""What asking the store raises where it is gone, or where a signal came while torch, which asks it, was imported."""


def is_first_to_end(why: str, error: BaseException | None = None) -> bool:
    """Whether this rank is the one to say why the job ends: the first of those that come to the same end.

    why: FAILED, or what is no failure, as "ended". True for a process that is no rank. Where no store of the job can
    be reached, rank 0 speaks.
    """
    launch = launched()
    if launch is None:
        return True
    if isinstance(error, OtherRankFailedError):
        return False
    job = joined()
    if why != FAILED and job is None and not launch.has_store:
        return launch.rank == 0  # in which the store is, or would be
    try:
        if job is not None:
            return job.is_first_to_end(why)
        return bool(connect(launch, _CONNECTING_SECONDS).add(over(launch, why), 1) == 1)
    except _NO_STORE:
        return launch.rank == 0


def has_failed() -> bool:
    """Whether another rank of this job is known to have failed."""
    launch, job = launched(), joined()
    try:
        if job is not None:
            return job.has_failed()
        if launch is None or not launch.has_store:
            return False
        return bool(connect(launch, _CONNECTING_SECONDS).check([over(launch, FAILED)]))
    except _NO_STORE:
        return False


def linger() -> None:
    """Waits some seconds for the launcher to end this process, as it does when another has failed."""
    time.sleep(_LINGERING_SECONDS)
