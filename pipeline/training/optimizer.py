"""The optimizer of a recipe, and its steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.errors import ModelError
from decant.pipeline.training.forward import name_of
from decant.pipeline.training.fused_step import fused_step


def make_optimizer(network: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, over the parameters that require a gradient; fused where the device has
    that. Raises ModelError where there is none.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        why = (
            "none of its parameters requires a gradient"
            if list(network.parameters())
            else "it has no parameters"
        )
        raise ModelError(f"{name_of(network)}: there is nothing to train: {why}")
    fused = device.type in ("cpu", "cuda")
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    match settings.optimizer:
        case "sgd":
            return without_compiler(torch.optim.SGD)(
                parameters, momentum=settings.momentum, nesterov=settings.nesterov, **common
            )
        case "adam":
            return without_compiler(torch.optim.Adam)(parameters, **common)
        case "adamw":
            return without_compiler(torch.optim.AdamW)(parameters, **common)


@functools.cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer whose methods are those of `kind` without the wrappers that are for `torch.compile` of a step: each
    wrapper imports the whole compiler when it is first called, which takes as long as to import PyTorch, and takes its
    time in every step. What is computed is the same.

    >>> weight = nn.Parameter(torch.ones(1))
    >>> optimizer = without_compiler(torch.optim.SGD)([weight], lr=0.5)
    >>> (3 * weight).sum().backward()
    >>> optimizer.step()
    >>> weight
    Parameter containing:
    tensor([-0.5000], requires_grad=True)
    """
    update: Callable[..., Any] = inspect.unwrap(kind.step)

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        with torch.no_grad():
            return update(self, closure)

    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**plain, "step": step})


class Stepper:
    """Backward passes, and a step of the optimizer after every `settings.accumulate` of them, along the gradient of the
    mean over all their samples. Gradients are clipped as one.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Training,
        scaler: torch.amp.GradScaler | None = None,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        """`scaler` is that of float16, None scales nothing; `frozen` are the modules that stay in evaluation mode."""
        self.network, self.optimizer, self.settings, self.scaler = network, optimizer, settings, scaler
        self.frozen = frozen
        self.after_step: Callable[[], None] = lambda: None
        """Called after each step of the optimizer."""
        self._batches = self._samples = 0

    def add(self, loss: Tensor, size: int) -> None:
        """The backward pass of the mean loss of a batch of `size` samples, and perhaps a step."""
        self.backward(loss, size)
        self.count(size)

    def backward(self, loss: Tensor, size: int) -> None:
        """Adds the gradient of the mean loss of a batch of `size` samples; the first after a step takes its place."""
        if not self._batches:
            self._forget_gradients()
        if self.settings.accumulate > 1:
            loss = loss * (size / self._full)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def count(self, size: int) -> None:
        """Counts a batch of `size` samples whose gradient was added, and makes a step where it is the last of one."""
        self._batches, self._samples = self._batches + 1, self._samples + size
        if self._batches == self.settings.accumulate:
            self.finish()

    @property
    def is_between_steps(self) -> bool:
        """Whether no gradient waits for a step."""
        return not self._batches

    @property
    def steps_next(self) -> bool:
        """Whether a step follows the next batch."""
        return self._batches + 1 == self.settings.accumulate

    def finish(self) -> None:
        """A step along what was added since the last one, if anything was."""
        if not self._batches:
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.settings.accumulate > 1 and self._samples != self._full:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._full / self._samples)
        if self.settings.clip_norm is not None:
            self.clip(self.settings.clip_norm)
        if self.scaler is None:
            if not fused_step(self.optimizer):
                self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self._batches = self._samples = 0
        self.after_step()

    def _forget_gradients(self) -> None:
        """`optimizer.zero_grad`, without what that notes for PyTorch's profiler, which takes ten times as long."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def clip(self, norm: float) -> None:
        """Clips the gradients to a norm."""
        nn.utils.clip_grad_norm_(self.network.parameters(), norm)

    @property
    def _full(self) -> int:
        """Samples of a whole step."""
        return self.settings.accumulate * self.settings.batch_size
