"""The head that a cache of hidden states holds, on the devices where it is used."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decant.cache import Head


class TeacherHead:
    """Makes logits of stored hidden states. Its weights are copied to a device once.

    >>> head = TeacherHead(Head.of(np.eye(3, 2), scale=2.0))
    >>> head.logits(torch.tensor([[1.0, 4.0]])).tolist()
    [[2.0, 8.0, 0.0]]
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._on: dict[torch.device, tuple[Tensor, Tensor | None]] = {}

    def logits(self, hidden: Tensor) -> Tensor:
        """(Q, C) float32 from (Q, d), on the device of these."""
        if hidden.device not in self._on:
            self._on[hidden.device] = self._copied(hidden.device)
        weight, bias = self._on[hidden.device]
        made = functional.linear(hidden.float(), weight)
        made = made if self._head.scale == 1 else made * self._head.scale
        made = made if bias is None else made + bias
        cap = self._head.soft_cap
        return made if cap is None else torch.tanh(made / cap) * cap

    def __reduce__(self) -> tuple[type[TeacherHead], tuple[Head]]:
        return TeacherHead, (self._head,)

    def _copied(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        weight = torch.from_numpy(np.array(self._head.weight, np.float32)).to(device)
        bias = self._head.bias
        return weight, None if bias is None else torch.from_numpy(np.array(bias, np.float32)).to(device)
