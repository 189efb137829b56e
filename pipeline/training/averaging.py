"""Averages of weights over a training: an exponential mean of its steps, or the mean of its last epochs."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from decant.pipeline.config.settings import Training

_DECAY, _START = 0.999, 0.75
_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


class Average:
    """The weights of a network, averaged as `settings.average` says by torch's `AveragedModel`.

    "ema" (Polyak, Juditsky, 1992) takes in every step t, with the decay min(`ema_decay`, (1 + t) / (10 + t)), so that
    the first steps do not weigh on a short training. "swa" (Izmailov et al., "Averaging Weights Leads to Wider Optima",
    2018) takes in each epoch from the share `swa_start` of them on.
    """

    def __init__(self, network: nn.Module, settings: Training) -> None:
        """`network` is the one that is trained; its weights are copied, and follow no step by themselves."""
        self._network, self._kind = network, settings.average
        self._decay = _DECAY if settings.ema_decay is None else settings.ema_decay
        start = _START if settings.swa_start is None else settings.swa_start
        self._first_epoch = math.floor(start * settings.epochs) + 1
        self._averaged = AveragedModel(network, multi_avg_fn=self._mean, use_buffers=True)
        self._averaged.requires_grad_(False)
        self._count = 0  # a number of the host, so that no step waits for a device

    def after_step(self) -> None:
        """Takes in the weights after a step of the optimizer."""
        if self._kind == "ema":
            self._take_in()

    def after_epoch(self, epoch: int) -> None:
        """Takes in the weights after an epoch, counted from 1."""
        if self._kind == "swa" and epoch >= self._first_epoch:
            self._take_in()

    @property
    def network(self) -> nn.Module:
        """The network with the average; the one that is trained while nothing was averaged."""
        return self._averaged.module if self._count else self._network

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"count": self._count, "weights": self._averaged.module.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned. Raises ValueError, RuntimeError or KeyError for what does not fit."""
        if type(state["count"]) is not int or state["count"] < 0:
            raise ValueError(f"average.count: expected a number of updates, found {state['count']!r:.40}")
        self._averaged.module.load_state_dict(state["weights"])
        self._count = state["count"]
        self._averaged.n_averaged.fill_(self._count)

    def _take_in(self) -> None:
        self._averaged.update_parameters(self._network)
        self._count += 1

    def _mean(self, averaged: _Tensors, current: _Tensors, _: Tensor | int) -> None:
        """Moves each tensor of `averaged` towards that of `current`; both lists are of one dtype."""
        taken = self._count
        decay = min(self._decay, (1 + taken) / (10 + taken)) if self._kind == "ema" else taken / (taken + 1)
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:  # as the number of batches that batch normalisation has seen
            torch._foreach_copy_(averaged, current)
