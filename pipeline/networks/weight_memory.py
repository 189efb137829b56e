"""How much memory the weights of a network take, before any of it is taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from decant.cache.io.system import available_memory
from decant.pipeline.errors import ModelError
from decant.pipeline.networks.undrawn import Undrawn


def weights_size(build: Callable[[], nn.Module]) -> int:
    """Bytes of the state dict of the network that `build` makes, which is made without memory. Raises ModelError where
    they are more than can be counted, or it cannot be built.

    >>> weights_size(lambda: nn.Linear(1_000_000, 1_000_000))
    4000004000000
    """
    try:
        with torch.device("meta"), Undrawn():
            network = build()
    except (RuntimeError, OverflowError, TypeError) as error:
        is_size = isinstance(error, OverflowError) or "overflow" in str(error).lower()
        said = "its weights take more memory than can be counted" if is_size else "it cannot be built"
        raise ModelError(f"{said} ({_first_line(error)})") from None
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def require_room(needed: int) -> None:
    """Raises ModelError where weights of so many bytes take more memory than is free."""
    free = available_memory()
    if needed > free:
        raise ModelError(
            f"its weights take {needed:,} bytes, and {free:,} bytes of memory are free; make it smaller"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
