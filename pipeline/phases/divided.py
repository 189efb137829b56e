"""Ranks that each train whole students."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.beside import require_alive
from decant.pipeline.ranks.job import Job
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
        done = _await(ranks, f"{call}/done/{number}", maker, job)
        made = find(job)
        if made is None:
            raise RankError(
                f"{job.folder}: another rank has made it, and it is not to be seen here: --runs must be a folder that "
                "every machine of the job sees"
            )
        yield made, done == "found"


def _await(ranks: Job, name: str, rank: int, job: StudentJob) -> str:
    """What a rank says of a student when it is finished, however long that takes."""
    for _ in ranks.polls(f"{job.folder}", rank):
        require_alive()
        if ranks.has(name):
            break
    return ranks.get_now(name)
