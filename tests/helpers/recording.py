"""A stand-in for a GPU that records work and replays it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OnTheProcessor:
    """Stands in for a CUDA graph: nothing holds a value before the first replay, and each fills the same places."""

    def __init__(self) -> None:
        self.recordings = 0

    def __call__(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.recordings += 1
        state = torch.get_rng_state()
        result = work()
        torch.set_rng_state(state)
        places = list(tensors(result))
        for place in places:
            place.fill_(torch.nan)

        def replay() -> None:
            for place, value in zip(places, tensors(work()), strict=True):
                place.copy_(value)

        return result, replay


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result or () for tensor in tensors(part)]
