"""Ranks that each train whole students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import Job
from decant.pipeline.ranks.local_ranks import require_alive
from decant.pipeline.runs.result import Result


class StudentJob(Protocol):
    """What is known of a student before it is trained."""

    @property
    def folder(self) -> Path:
        """Where it is kept."""


T = TypeVar("T", bound=StudentJob)


def each_its_own(
    ranks: Job,
    jobs: Iterable[T],
    train: Callable[[T], tuple[Result, bool]],
    find: Callable[[T], Result | None],
) -> Iterator[tuple[Result, bool]]:
    """Every rank takes the next job that no other has taken. Rank 0 then waits for those of the others."""
    call, of_others = f"students/{ranks.number('students')}", list[tuple[int, T]]()
    for number, job in enumerate(jobs):
        if ranks.count(f"{call}/taken/{number}") > 1:
            of_others.append((number, job))
            continue
        ranks.set(f"{call}/by/{number}", str(ranks.rank))
        result, found = train(job)
        ranks.set(f"{call}/done/{number}", "found" if found else "made")
        yield result, found
    for number, job in of_others if ranks.is_first else ():
        maker = int(ranks.get(f"{call}/by/{number}", f"the rank that makes {job.folder}"))
        yield _of_other(ranks, f"{call}/done/{number}", maker, job, find)


def each_its_share(
    ranks: Job,
    jobs: Sequence[T],
    share: Callable[[T], int],
    train: Callable[[Sequence[T]], Iterator[tuple[Result, bool]]],
    find: Callable[[T], Result | None],
) -> Iterator[tuple[Result, bool]]:
    """Every rank trains the jobs of which `share` is its own number, modulo the number of ranks, all at once. Rank 0
    then waits for those of the others.
    """
    call, rank_of = f"students/{ranks.number('students')}", [share(job) % ranks.size for job in jobs]
    numbers = {job.folder: number for number, job in enumerate(jobs)}
    own = [job for job, rank in zip(jobs, rank_of, strict=True) if rank == ranks.rank]
    for result, found in train(own):
        ranks.set(f"{call}/done/{numbers[result.folder]}", "found" if found else "made")
        yield result, found
    for number, job in enumerate(jobs) if ranks.is_first else ():
        if rank_of[number] != ranks.rank:
            yield _of_other(ranks, f"{call}/done/{number}", rank_of[number], job, find)


def _of_other(
    ranks: Job, name: str, rank: int, job: T, find: Callable[[T], Result | None]
) -> tuple[Result, bool]:
    """The result of a job that another rank trains, and whether it was there before; waits for it."""
    done = _await(ranks, name, rank, job)
    made = find(job)
    if made is None:
        raise RankError(
            f"{job.folder}: another rank has made it, and it is not to be seen here: --runs must be a folder that "
            "every machine of the job sees"
        )
    return made, done == "found"


def _await(ranks: Job, name: str, rank: int, job: StudentJob) -> str:
    """What a rank says of a student when it is finished, however long that takes."""
    for _ in ranks.polls(f"{job.folder}", rank):
        require_alive()
        if ranks.has(name):
            break
    return ranks.get_now(name)
