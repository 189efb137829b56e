"""What the terms of the loss add up to over an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

_MOST_WAITING = 128


class LossTotals:
    """Of each term of the loss, the sum over batches of its mean times what the batch counts.

    A batch is only noted. Many are multiplied and added up at a time, when the sums are read at the latest. Between two
    steps of a small network an operation would take several times as long, as the steps have driven its code out of the
    processor's caches. Batches are added in order, so the sums are those of one batch after the other, bit for bit.

    >>> totals = LossTotals()
    >>> totals.add({"loss": torch.tensor(0.5), "soft": None}, 4)
    >>> totals.add({"loss": torch.tensor(2.0), "soft": None}, 3)
    >>> totals.sums
    {'loss': tensor(8.)}
    """

    def __init__(self, sums: Mapping[str, Tensor] | None = None) -> None:
        """Goes on from `sums`: scalars on the device, or (S,) of several networks."""
        self._sums = dict(sums or {})
        self._waiting = list[list[Tensor | float]]()
        self._names: tuple[str, ...] = ()
        self._size = 0

    def add(self, terms: Mapping[str, Tensor | None], size: int) -> None:
        """Adds the means of a batch that counts `size`; a term that is None is left out. Nothing waits for the device.
        The tensors are kept, and must not be written over.
        """
        found = {name: term for name, term in terms.items() if term is not None}
        if size != self._size or len(self._waiting) == _MOST_WAITING or tuple(found) != self._names:
            self._add_up()
            self._names, self._size = tuple(found), size
        self._waiting.append([_noted(term) for term in found.values()])

    @property
    def sums(self) -> dict[str, Tensor]:
        """By name: scalars on the device, or (S,) of several networks."""
        self._add_up()
        return self._sums

    @classmethod
    def joined(cls, each: Sequence[LossTotals]) -> LossTotals:
        """Those of several networks with the same terms as one."""
        return cls({name: torch.stack([one.sums[name] for one in each]) for name in each[0].sums})

    def divided(self, count: int) -> list[LossTotals]:
        """Those of each of so many networks."""
        return [
            LossTotals({name: total[place].clone() for name, total in self.sums.items()})
            for place in range(count)
        ]

    def _add_up(self) -> None:
        if not self._waiting:
            return
        together = _joined([term for terms in self._waiting for term in terms]) * self._size
        batches = together.unflatten(0, (-1, len(self._names)))  # each with a row for each term
        before = [
            self._sums.get(name, torch.zeros_like(row))
            for name, row in zip(self._names, batches[0], strict=True)
        ]
        totals = _added_in_order(torch.stack(before), batches)
        self._sums |= dict(zip(self._names, totals, strict=True))
        self._waiting.clear()


def _noted(term: Tensor) -> Tensor | float:
    """A number where that is the same and waits for no device: it takes less time to keep, and to be done with."""
    return term.item() if term.is_cpu and not term.ndim and term.dtype is torch.float32 else term


def _joined(terms: Sequence[Tensor | float]) -> Tensor:
    """All in one tensor, in their order."""
    if all(isinstance(term, float) for term in terms):
        return torch.tensor(terms, dtype=torch.float32)
    return torch.stack(
        [torch.tensor(term, dtype=torch.float32) if isinstance(term, float) else term for term in terms]
    )


def _added_in_order(total: Tensor, rows: Tensor) -> Tensor:
    """`total` (…) and then each of `rows` (R, …), one after the other, as `torch.sum` does not add."""
    if total.is_cpu and total.dtype == rows.dtype and total.dtype in (torch.float32, torch.float64):
        every = torch.cat([total[None], rows]).detach().numpy()
        return torch.from_numpy(np.add.accumulate(every, axis=0)[-1])
    for row in rows.unbind():
        total += row
    return total
