"""Sums of the terms of a loss: the same as one batch after the other gives, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from decant.pipeline.training.loss_totals import _MOST_WAITING, LossTotals


def one_by_one(
    batches: list[tuple[dict[str, Tensor | None], int]], sums: dict[str, Tensor]
) -> dict[str, Tensor]:
    for terms, size in batches:
        for name, term in terms.items():
            if term is not None:
                sums = {**sums, name: sums.get(name, torch.zeros_like(term)) + term * size}
    return sums


def alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def some_batches(
    count: int, *shape: int, dtype: torch.dtype = torch.float32
) -> list[tuple[dict[str, Tensor | None], int]]:
    """The last is shorter; of some a term is missing."""
    generator = torch.Generator().manual_seed(0)
    sizes = [64] * (count - 1) + [13]
    return [
        (
            {
                "loss": torch.rand(shape, generator=generator, dtype=dtype) / 3,
                "hard": None
                if count // 3 < number < count // 2
                else torch.rand(shape, generator=generator, dtype=dtype),
                "soft": torch.rand(shape, generator=generator, dtype=dtype) / 7,
            },
            size,
        )
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("alone", [True, False])
def test_sums_are_those_of_one_batch_after_the_other(
    shape: tuple[int, ...], dtype: torch.dtype, alone: bool
) -> None:
    batches, totals = some_batches(2 * _MOST_WAITING + 50, *shape, dtype=dtype), LossTotals()
    if alone:  # a column by itself, which NumPy would add in pairs
        batches = [({"loss": terms["loss"]}, size) for terms, size in batches]
    for number, (terms, size) in enumerate(batches):
        totals.add(terms, size)
        if number == 7:  # as a checkpoint within the epoch reads them
            assert alike(totals.sums, one_by_one(batches[:8], {}))
    assert alike(totals.sums, one_by_one(batches, {}))


def test_they_go_on_from_others_and_are_divided_among_networks() -> None:
    batches = some_batches(9)
    begun = one_by_one(batches[:4], {})
    each = [LossTotals(begun), LossTotals({name: 2 * total for name, total in begun.items()})]
    together = LossTotals.joined(each)
    for terms, size in batches[4:]:
        together.add({name: term if term is None else term.repeat(2) for name, term in terms.items()}, size)
    for found, one in zip(together.divided(2), each, strict=True):
        assert alike(found.sums, one_by_one(batches[4:], one.sums))


def test_what_they_go_on_from_is_left_as_it_was() -> None:
    begun = {"loss": torch.tensor(3.0)}
    totals = LossTotals(begun)
    totals.add({"loss": torch.tensor(0.5)}, 4)
    assert float(totals.sums["loss"]) == 5
    assert float(begun["loss"]) == 3
