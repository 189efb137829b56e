"""How much memory the weights of a network take, before any of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from decant.cache.io.system import available_memory
from decant.pipeline.errors import ModelError

_DRAWS: tuple[Any, ...] = (Tensor.normal_, nn.init.normal_)


def weights_size(build: Callable[[], nn.Module]) -> int:
    """Bytes of the state dict of the network that `build` makes, which is made without memory. Raises ModelError where
    they are more than can be counted.

    >>> weights_size(lambda: nn.Linear(1_000_000, 1_000_000))
    4000004000000
    """
    try:
        with torch.device("meta"), _Undrawn():
            network = build()
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ModelError(f"its weights take more memory than can be counted ({_first_line(error)})") from None
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def require_room(build: Callable[[], nn.Module]) -> None:
    """Raises ModelError where the weights of the network that `build` makes take more memory than is free."""
    needed, free = weights_size(build), available_memory()
    if needed > free:
        raise ModelError(
            f"its weights take {needed:,} bytes, and {free:,} bytes of memory are free; make it smaller"
        )


class _Undrawn(TorchFunctionMode):
    """Within it nothing is drawn: PyTorch draws normal numbers without memory by `torch._dynamo`, which takes a second
    to import.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        given = named or {}
        if function in _DRAWS:
            return arguments[0] if arguments else given["tensor"]
        return function(*arguments, **given)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
