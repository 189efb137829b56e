"""What is given as the rows of `SparseTargets.of`: looked at, and refused by the row."""

from __future__ import annotations

import math
from typing import SupportsFloat

import torch
from torch import Tensor

_ROUNDING = 0.01  # of a row's mass, in arrays of bfloat16


def require_temperature(temperature: object) -> float:
    """A temperature as a float. Raises ValueError for what is no number above 0."""
    if isinstance(temperature, str | bytes | bool) or not isinstance(temperature, SupportsFloat):
        raise ValueError(f"temperature: expected a number above 0, found {temperature!r}")
    value = float(temperature)
    if not 0 < value < math.inf:
        raise ValueError(f"temperature: expected a number above 0, found {temperature!r}")
    return value


def as_ids(given: object, num_outputs: object) -> Tensor:
    """Ids (Q, k) as int64; no floats, which would be cut off. Raises ValueError."""
    if type(num_outputs) is not int or num_outputs < 1:
        raise ValueError(f"num_outputs: expected a whole number of 1 or more, found {num_outputs!r}")
    try:
        found = torch.as_tensor(given)
    except (TypeError, RuntimeError, ValueError):
        raise ValueError(f"ids: expected integers (Q, k), found {type(given).__name__}") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"ids: expected integers, found {found.dtype}")
    return found.long()


def require_rows(ids: Tensor, log_probs: Tensor, num_outputs: int) -> None:
    """Raises ValueError for ids and log-probabilities (Q, k) that cannot be."""
    if not len(ids):
        return
    if not 0 <= int(ids.min()) <= int(ids.max()) < num_outputs:
        raise ValueError(
            f"ids: expected 0 to {num_outputs - 1:,}, found {int(ids.min())} to {int(ids.max())}"
        )
    ordered = ids.sort(dim=1).values
    problems = {
        "ids: one is there twice": (ordered[:, 1:] == ordered[:, :-1]).any(dim=1),
        "log_probs: must be 0 or below, and not NaN": ~(log_probs <= 0).all(dim=1),
    }
    for problem, bad in problems.items():
        if bad.any():
            raise ValueError(f"{problem}, in row {int(bad.nonzero()[0])}")


def as_masses(rest: Tensor, mass: Tensor | None, temperatures: tuple[float, ...]) -> Tensor:
    """The others' mass (Q, m), 0 where rounding made it less; `mass` (Q, 1) is what it adds up to 1 with at T = 1, None
    where it was made so. Raises ValueError.
    """
    bad = ~((rest >= -_ROUNDING) & (rest <= 1 + _ROUNDING)).all(dim=1)
    if mass is not None:
        at_1 = rest[:, temperatures.index(1.0)]
        bad |= ~((mass[:, 0] + at_1 - 1).abs() <= _ROUNDING)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            "tail: a mass of 0 to 1 that adds up to 1 with the probabilities at T = 1 is expected, found "
            f"{[round(value, 4) for value in rest[row].tolist()]} in row {row}"
        )
    return rest.clamp(0, 1)
