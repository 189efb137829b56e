"""A network from its spec, with fresh weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from decant.pipeline.errors import ModelError, PipelineError, is_out_of_memory
from decant.pipeline.networks import causal, registry
from decant.pipeline.networks.spec import CAUSAL, KEPT_CLASSES, NetworkSpec
from decant.pipeline.networks.text import build_text_network
from decant.pipeline.networks.undrawn import Undrawn
from decant.pipeline.support.plugins import in_words
from decant.pipeline.support.source_code import is_users, warn_without_source


def build_network(spec: NetworkSpec, seed: int = 0, fetch: bool = True, drawn: bool = True) -> nn.Module:
    """Builds the network, with initial weights that depend on `seed` alone. With `drawn` false those of a network that
    is not the user's are 0, for who loads others next.

    A network for texts downloads the pretrained weights that it starts from, unless `fetch` is false. Raises
    ModelError, and WeightsError when pretrained weights cannot be fetched.

    >>> spec = NetworkSpec("linear", {}, num_classes=3, input_shape=(4,), mean=(0.0,) * 4, std=(1.0,) * 4)
    >>> build_network(spec)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    torch.manual_seed(seed)
    try:
        with nullcontext() if drawn or is_users(spec.name) else Undrawn():
            network = _built(spec, fetch)
    except (PipelineError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"network {spec.name!r}: out of memory while it was built ({in_words(error)}); make it smaller"
            ) from error
        raise
    if KEPT_CLASSES in spec.args:
        network.keep(spec.args[KEPT_CLASSES]["columns"])
    # For messages and checks.
    network.described, network.num_outputs = f"network {spec.name!r}", spec.num_classes
    warn_without_source(spec.name)
    return network


def _built(spec: NetworkSpec, fetch: bool) -> Any:
    if CAUSAL in spec.args:
        return causal.build_causal(spec.args[CAUSAL])
    args = {name: value for name, value in spec.args.items() if name != KEPT_CLASSES}
    if "vocabulary" in args:
        return build_text_network(
            spec.name, spec.own_outputs, input_shape=spec.input_shape, fetch=fetch, **args
        )
    return registry.build_by_name(
        spec.name, spec.own_outputs, input_shape=spec.input_shape, mean=spec.mean, std=spec.std, **args
    )


def num_parameters(network: nn.Module) -> int:
    """The number of trainable parameters.

    >>> num_parameters(nn.Linear(4, 3))
    15
    """
    return sum(parameter.numel() for parameter in network.parameters())
