"""The processes that train one network together: what each of them computes, and how they put it together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import joined

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among the ranks that train one network. `count` 1, as of `ALONE`, has nobody to send to.

    Where `count` is more, torch's process group must have been started; tensors are sent from where they lie. Every
    method that sends must be called by all ranks, in the same order. Each raises RankError where a rank is lost.
    """

    rank: int = 0
    count: int = 1
    least: int = 1
    """Rows that each rank must get for a batch to be divided; a smaller batch is computed whole by every rank."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, and speaks for all."""
        return self.rank == 0

    def divides(self, size: int) -> bool:
        """Whether a batch of `size` rows is divided; where not, every rank has all of them."""
        return self.count > 1 and size >= self.least * self.count

    def rows(self, size: int) -> slice:
        """The rows of this rank, of `size` that are divided into runs of nearly the same length.

        >>> [Group(rank, 3).rows(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        >>> Group(1, 3).rows(2)
        slice(0, 2, None)
        """
        return self._rows_of(self.rank, size) if self.divides(size) else slice(0, size)

    def gather(self, values: Sequence[Tensor], size: int) -> list[Tensor]:
        """The `size` rows of all ranks, in order, of tensors that hold those of this rank, `rows(size)`. Dtypes and
        shapes of rows must be the same on all ranks. A gradient flows through the rows of this rank alone.
        """
        if not self.divides(size):
            return list(values)
        own = self._rows_of(self.rank, size)
        octets = [_octets(value.detach()) for value in values]
        gathered = self._gather(torch.cat(octets, dim=1), size)
        columns = gathered.split([one.shape[1] for one in octets], dim=1)
        return [_with_own(value, column, own) for value, column in zip(values, columns, strict=True)]

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, which alone calls it; it is sent to the others as a pickle. They wait for it
        however long it takes.
        """
        if self.count == 1:
            return make()
        made = [make() if self.is_first else None]
        with self.after_first(contextlib.nullcontext()), naming_loss():
            dist.broadcast_object_list(made, device=torch.device("cpu"))
        return made[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def after_first(self, context: AbstractContextManager[object]) -> Iterator[None]:
        """Rank 0 enters the context, however long it waits there, and holds it to the end; the others wait until it has
        entered. They wait at the job's store, as long as rank 0 lives.
        """
        job = joined() if self.count > 1 else None
        name = "" if job is None else f"entered/{job.number('entered')}"
        with context if self.is_first else contextlib.nullcontext():
            if job is not None and self.is_first:
                job.set(name, "yes")
            elif job is not None:
                job.get(name, "what it makes alone")
            yield

    @torch.no_grad()
    def take_buffers_of_first(self, network: nn.Module) -> None:
        """Gives the network of every rank the buffers of rank 0's, such as running statistics."""
        if self.count == 1:
            return
        for buffer in network.buffers():
            sent = buffer.detach().contiguous()
            with naming_loss():
                dist.broadcast(sent, 0)
            buffer.copy_(sent)

    def _rows_of(self, rank: int, size: int) -> slice:
        return slice(rank * size // self.count, (rank + 1) * size // self.count)

    def _gather(self, rows: Tensor, size: int) -> Tensor:
        """(size, …) of the rows of each rank, which are padded to the same number on their way."""
        of_each = [self._rows_of(rank, size) for rank in range(self.count)]
        lengths = [part.stop - part.start for part in of_each]
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        with naming_loss():
            dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


ALONE = Group()
"""A process that trains by itself."""


@contextlib.contextmanager
def naming_loss() -> Iterator[None]:
    """Raises RankError where a rank does not answer any more, which is a bare RuntimeError of torch's."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        if not (isinstance(error, dist.DistError) or "gloo" in said or "onnection" in said):
            raise
        raise RankError(
            f"another rank is lost ({said.rpartition('] ')[2]}); run the same command again, also with another number "
            "of ranks: it goes on from the last checkpoint"
        ) from error


def _octets(rows: Tensor) -> Tensor:
    """(N, bytes of a row) of tensors (N, …) of any dtype."""
    return rows.reshape(len(rows), -1).contiguous().view(torch.uint8)


def _with_own(own: Tensor, octets: Tensor, rows: slice) -> Tensor:
    """The rows of all ranks, in which those of this one are the tensor that its gradient flows through."""
    everyones = octets.contiguous().view(own.dtype).reshape(len(octets), *own.shape[1:])
    return torch.cat([everyones[: rows.start], own, everyones[rows.stop :]])
