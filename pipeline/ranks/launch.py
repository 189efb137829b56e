"""Whether this process is a rank of a job, as its environment says; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """What the launcher says of this rank."""

    rank: int
    """Of all ranks, from 0."""
    size: int
    """The number of ranks, at least 2."""
    local_rank: int
    """Of the ranks on this machine, from 0."""
    local_size: int
    """The number of ranks on this machine."""
    address: str
    port: int
    """Where the store of the job is."""
    has_store: bool
    """Whether the launcher itself runs that store, as torchrun does; it then outlives every rank."""
    attempt: str
    """Differs from one start of the ranks to the next where the launcher starts them again."""


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """This process as a rank of a job; None where it is a process by itself, or the only rank.

    environment: by default the process's own.

    >>> launched({}), launched({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
    (None, None)
    >>> of = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}
    >>> found = launched(of)
    >>> found.rank, found.size, found.local_rank
    (3, 4, 1)
    """
    given = os.environ if environment is None else environment
    try:
        rank, size, port = (int(given[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        local_rank, address = int(given.get("LOCAL_RANK", "0")), given["MASTER_ADDR"]
        local_size = int(given.get("LOCAL_WORLD_SIZE", "1"))
    except (KeyError, ValueError):
        return None
    if not 0 <= rank < size or size == 1:
        return None
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE")
    return Launch(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=local_size,
        address=address,
        port=port,
        has_store=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt="-".join(given.get(name, "") for name in names),
    )


def is_first() -> bool:
    """Whether this process is rank 0, or no rank at all: who prints, draws progress and writes what is one of a job.

    >>> is_first()
    True
    """
    launch = launched()
    return launch is None or launch.rank == 0
