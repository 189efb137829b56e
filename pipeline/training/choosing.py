"""Which epoch of a training is kept, and when the training ends, by the metric of the validation part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import headline


class Choice:
    """The best epoch so far: its number, its metric, and where `keep` is "best" its weights.

    >>> choice = Choice(Training(network={"name": "linear"}, epochs=9, patience=2))
    >>> for epoch, top1 in enumerate([0.5, 0.7, 0.6, 0.7], start=1):
    ...     choice.consider(epoch, {"top1": top1}, nn.Identity())
    ...     print(choice.best_epoch, choice.is_over(epoch))
    1 False
    2 False
    2 False
    2 True
    """

    def __init__(self, settings: Training) -> None:
        self._keeps, self._patience = settings.keep == "best", settings.patience
        self._every = settings.evaluate_every
        self.best_epoch = 0
        """Counted from 1; 0 while none was measured."""
        self._value: float | None = None
        self._weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, metrics: Mapping[str, Any], network: nn.Module) -> None:
        """Takes an epoch, counted from 1, as the best if its metric is better than that of all before."""
        figure = headline(metrics)
        value = figure.value(metrics)
        if value is None or (self._value is not None and figure.gain(value, self._value) <= 0):
            return
        self.best_epoch, self._value = epoch, value
        if self._keeps:
            state = network.state_dict()
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def is_over(self, epoch: int) -> bool:
        """Whether the training ends after `epoch` epochs: the one that was measured last came `patience` or more after
        the best.
        """
        measured = epoch - epoch % self._every
        return bool(self._patience and self.best_epoch) and measured - self.best_epoch >= (
            self._patience or 0
        )

    def restore(self, network: nn.Module) -> bool:
        """Gives a network the weights of the best epoch; whether there are any to be kept."""
        if self._weights:
            network.load_state_dict(self._weights)
        return bool(self._weights)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"epoch": self.best_epoch, "value": self._value, "weights": self._weights}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned. Raises ValueError or KeyError for what is none."""
        epoch, value = state["epoch"], state["value"]
        if type(epoch) is not int or epoch < 0 or not isinstance(value, float | None):
            raise ValueError(f"choice: expected an epoch and a metric, found {epoch!r:.40} and {value!r:.40}")
        self.best_epoch, self._value, self._weights = epoch, value, dict(state["weights"])
