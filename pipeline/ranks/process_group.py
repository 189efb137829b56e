"""torch's process group: what the ranks of a job exchange tensors through."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from torch import distributed

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import Job, connect, timeout
from decant.pipeline.ranks.launch import launched

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def process_group(job: Job, device: torch.device) -> Iterator[None]:
    """Starts the process group of a job and ends it: gloo for tensors of the CPU, beside it NCCL where the ranks
    compute on GPUs, each on one of its own.

    Drop every object that uses the group, as a DistributedDataParallel, before the block ends. Raises RankError where
    ranks would share a GPU, which NCCL does not do, or do not reach each other.
    """
    on_gpu = device.type == "cuda"
    if on_gpu and job.launch.local_size > torch.cuda.device_count():
        raise RankError(
            f"{job.launch.local_size} ranks on a machine with {torch.cuda.device_count()} GPUs: each needs one of its "
            "own; start as many ranks as there are GPUs, or give --device cpu"
        )
    # A connection of its own: while the group waits for a rank there, other threads still give signs through the job's.
    store = distributed.PrefixStore(
        f"{job.session}/group/{job.number('group')}", connect(job.launch, timeout())
    )

    def begin() -> None:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=job.rank,
            world_size=job.size,
            timeout=timedelta(seconds=timeout()),
            device_id=device if on_gpu else None,
        )

    try:
        if on_gpu:  # whose calls belong to the thread that chose the GPU
            begin()
        else:
            _heeding(job, begin)
    except RankError:
        raise
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        raise RankError(f"rank {job.rank}: does not reach the other ranks ({said})") from error
    try:
        yield
        distributed.barrier()  # nobody takes down connections that others still use
    finally:
        gc.collect()  # what is in a circle may hold tensors, which threads of the group must not be the last to drop
        distributed.destroy_process_group()


def _heeding(job: Job, begin: Callable[[], None]) -> None:
    """Calls a function that blocks until every rank has called it, in another thread: this one hears signals, and that
    another rank has failed, meanwhile. Raises what the function raises, and OtherRankFailedError.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            begin()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="process group", daemon=True)
    thread.start()
    for _ in job.polls("all ranks to join the process group"):
        thread.join(_POLL_SECONDS)
        if not thread.is_alive():
            break
    if failed:
        raise failed[0]


def local_device(device: torch.device) -> torch.device:
    """The GPU of this rank among those of its machine, where it is one of several and `device` is no certain one.

    >>> local_device(torch.device("cpu"))
    device(type='cpu')
    """
    launch = launched()
    if launch is None or device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", launch.local_rank % torch.cuda.device_count())
