"""Networks without initial weights, for those whose weights are loaded or only counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS: tuple[Any, ...] = (
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_),
    *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_),
)


class Undrawn(TorchFunctionMode):
    """Within it weights that would be drawn at random are 0: to draw those of a ResNet-50 takes a second or two. Where
    there is no memory, PyTorch draws normal numbers by `torch._dynamo`, which takes a second to import.

    >>> with Undrawn():
    ...     layer = nn.Linear(2, 2)
    >>> layer.weight.tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        given = named or {}
        if function not in _DRAWS:
            return function(*arguments, **given)
        with torch.no_grad():
            return (arguments[0] if arguments else given["tensor"]).zero_()
