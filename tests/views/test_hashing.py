"""The bits of (seed, sample, view, operation): the same for ever, uniform, and each its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from decant.pipeline.views.hashing import below, chance, choices
from tests.helpers.pixels import longhand_choices


@pytest.mark.parametrize(
    ("seed", "index", "view", "operation", "first"),
    [
        (0, 0, 0, 0, [2391539541053276776, 920862675595841680]),
        (1, 2, 3, 1, [5840950290273555683, 17462712064989517324]),
        (9223372036854775807, 1281166, 239, 5, [8328777569078034416, 15170868099965003772]),
    ],
)
def test_the_hash_can_never_change_unnoticed(
    seed: int, index: int, view: int, operation: int, first: list[int]
) -> None:
    found = choices(seed, np.array([index]), np.array([view]), operation)
    assert found.shape == (1, 16)
    assert found[0, :2].tolist() == first
    assert found[0].tolist() == longhand_choices(seed, index, view, operation)


def test_the_bits_of_a_sample_are_those_it_has_alone() -> None:
    indices, views = np.arange(100)[::-1], np.arange(100) % 7
    together = choices(5, indices, views, 2)
    alone = [choices(5, indices[i : i + 1], views[i : i + 1], 2)[0] for i in range(100)]
    assert np.array_equal(together, alone)


N = 50_000


def uniform(
    seed: int = 0, shift: int = 0, view: int = 0, operation: int = 0, place: int = 0
) -> NDArray[np.float64]:
    """A number in 0..1 for each of N samples."""
    bits = choices(seed, np.arange(N) + shift, np.full(N, view), operation)[:, place]
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def test_offsets_are_uniform_and_independent_of_each_other() -> None:
    bits = choices(0, np.arange(N), np.zeros(N, int), 0)
    top, left = below(bits[:, 0], 9), below(bits[:, 1], 9)
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 8, 0, 8)
    probability = chisquare(np.bincount(9 * top + left, minlength=81)).pvalue
    assert probability > 1e-4, f"chi-square over 81 cells: p = {probability:.2g}"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_chance_comes_as_often_as_it_says(p: float) -> None:
    share = float(chance(choices(3, np.arange(N), np.zeros(N, int), 1)[:, 0], p).mean())
    assert abs(share - p) < 4 * (p * (1 - p) / N) ** 0.5, f"{share:.4f} of {N:,}"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"view": 1},
        {"shift": 1},
        {"operation": 1},
        {"place": 1},
        {"seed": 2**62},
        {"shift": 1, "view": 1},
    ],
)
def test_draws_of_neighbours_are_uncorrelated(other: dict[str, int]) -> None:
    correlation = float(np.corrcoef(uniform(), uniform(**other))[0, 1])
    assert abs(correlation) < 4 / N**0.5, f"{correlation:.4f}"


def test_draws_are_uncorrelated_with_the_index() -> None:
    correlation = float(np.corrcoef(uniform(), np.arange(N))[0, 1])
    assert abs(correlation) < 4 / N**0.5, f"{correlation:.4f}"


def test_no_two_samples_views_or_seeds_share_their_bits() -> None:
    grid = [choices(seed, np.arange(200), np.full(200, view), 0) for seed in range(10) for view in range(10)]
    assert len(np.unique(np.concatenate(grid).ravel())) == 10 * 10 * 200 * 16
