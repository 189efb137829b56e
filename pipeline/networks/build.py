"""A network from its spec, with fresh weights."""

from __future__ import annotations

import torch
from torch import nn

from decant.pipeline.networks import registry, text
from decant.pipeline.networks.spec import NetworkSpec


def build_network(spec: NetworkSpec, seed: int = 0, fetch: bool = True) -> nn.Module:
    """Builds the network, with initial weights that depend on `seed` alone.

    A network for texts downloads the pretrained weights that it starts from, unless `fetch` is false. Raises
    ModelError, and WeightsError when pretrained weights cannot be fetched.

    >>> spec = NetworkSpec("linear", {}, num_classes=3, input_shape=(4,), mean=(0.0,) * 4, std=(1.0,) * 4)
    >>> build_network(spec)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """
    torch.manual_seed(seed)
    if "vocabulary" in spec.args:
        return text.build_text_network(
            spec.name, spec.num_classes, input_shape=spec.input_shape, fetch=fetch, **spec.args
        )
    return registry.build_by_name(
        spec.name, spec.num_classes, input_shape=spec.input_shape, mean=spec.mean, std=spec.std, **spec.args
    )


def num_parameters(network: nn.Module) -> int:
    """The number of trainable parameters.

    >>> num_parameters(nn.Linear(4, 3))
    15
    """
    return sum(parameter.numel() for parameter in network.parameters())
