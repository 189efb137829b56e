"""Calls a network. An error in a network of the user's own becomes one line that names the network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from decant.cache import CacheError
from decant.pipeline.errors import ModelError, PipelineError, is_out_of_memory
from decant.pipeline.objectives import Terms
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import in_words
from decant.pipeline.training.device import Inputs

Call = Callable[[nn.Module, Any, str], Any]
"""(network, inputs, the setting to name where memory runs out) → outputs, as many as the batch has labels."""

Criterion = Callable[..., Tensor | Terms]
"""(outputs (B, C), *what the dataset yields after the input, progress=share of the training done) → loss, or loss with
its hard and soft terms.
"""

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def forward(network: nn.Module, inputs: Inputs, batch_size_setting: str | None = None) -> Tensor:
    """`network(inputs)`: outputs (B, C) for a batch (B, …).

    `batch_size_setting` is named where memory runs out. Raises ModelError, naming the network, where it fails, or gives
    anything but a float tensor (B, C). The check compares two shapes, and waits for no device.
    """
    try:
        outputs = network(inputs)
    except RAISED as error:
        name_error(error, network, inputs, "failed", batch_size_setting)
        raise
    count, expected = _count(inputs), getattr(network, "num_outputs", None)
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"{name_of(network)}: must give a tensor (B, C), gave {_kind(outputs)} on a batch of {count:,} in "
            f"{_mode(network)}"
        )
    fits = outputs.ndim == 2 and len(outputs) == count and expected in (None, outputs.shape[1])
    if not fits or not outputs.is_floating_point():
        raise ModelError(
            f"{name_of(network)}: must give floats of shape ({count}, {expected or 'C'}) for a batch of {count:,} in "
            f"{_mode(network)}, gave {str(outputs.dtype).removeprefix('torch.')} {tuple(outputs.shape)}"
        )
    return outputs


def name_error(
    error: BaseException,
    network: nn.Module,
    inputs: Inputs,
    what: str,
    batch_size_setting: str | None = None,
    which: str | None = None,
) -> None:
    """Turns an error of a network into a ModelError that names the network, the batch and the line of the user's code,
    where the network is one from elsewhere or memory has run out. Returns for others, which are ours, and stay what
    they are. `which` batch it is, is said where memory runs out.
    """
    if isinstance(error, PipelineError | CacheError):
        return
    count = _count(inputs)
    if is_out_of_memory(error):
        hint = f"; set {batch_size_setting} lower" if batch_size_setting and count > 1 else ""
        size = str(getattr(inputs, "described", "")) or f"{count:,}"
        if batch_size_setting == "cache.batch_size":
            hint += ", rows that are written stay"  # it is no part of the key
        raise ModelError(
            f"{name_of(network)}: out of memory on a batch of {size}{f', {which}' if which else ''} "
            f"({in_words(error)}){hint}"
        ) from error
    if ":" in name_of(network):
        raise ModelError(
            f"{name_of(network)}: {what} on a batch of {count:,} in {_mode(network)} ({in_words(error)})"
        ) from error


def require_batch_of_one(network: nn.Module, inputs: Inputs, hint: str) -> None:
    """Raises ModelError, naming the layer, where batch normalisation cannot be trained on `inputs`, a batch of one:
    where it has one value a channel. `network` stays as it is; another error is left to the training.
    """
    tried, reached = copy.deepcopy(network).train(), list[str]()
    for path, module in tried.named_modules():
        if isinstance(module, _BATCH_NORM):
            where = f"{path.removeprefix('body.')} ({type(module).__name__})"
            module.register_forward_pre_hook(lambda *_, where=where: reached.append(where))
    try:
        with torch.no_grad():
            tried(inputs)
    except ValueError as error:
        if reached and "Expected more than 1 value per channel" in str(error):
            raise ModelError(
                f"{name_of(network)}: layer {reached[-1]} normalises one value a channel, and cannot be trained on a "
                f"batch of one; {hint}"
            ) from error
    except RAISED:
        return


def name_of(network: nn.Module) -> str:
    """How messages speak of a network: by its name in the recipe, where it was built from one."""
    return str(getattr(network, "described", "")) or type(network).__name__


def _mode(network: nn.Module) -> str:
    return "training" if network.training else "evaluation"


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)


def _kind(outputs: object) -> str:
    if isinstance(outputs, dict):
        return f"a dictionary of {', '.join(map(str, list(outputs)[:3]))}"
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {len(outputs)}"
    return type(outputs).__name__
