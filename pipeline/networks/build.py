"""A network with its place on disk: built from a recipe or a finished run, saved with all that builds it
again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decant.pipeline.config.settings import Network
from decant.pipeline.data.samples import channel_statistics, num_outputs, vocabulary
from decant.pipeline.errors import ModelError
from decant.pipeline.networks import registry, text
from decant.pipeline.networks.weights import load_weights, save_weights, weights_sha256
from decant.pipeline.runs.result import WEIGHTS, NetworkSpec, Result
from decant.pipeline.views import ViewedData


def specify_network(network: Network, viewed: ViewedData) -> NetworkSpec:
    """What builds `network` for views of these data, normalised by the data's statistics, or by the `mean` and `std`
    among its arguments: those that weights from elsewhere were trained with. Of texts nothing is normalised.
    Raises ModelError.
    """
    args, tokens = network.args, vocabulary(viewed.data)
    if tokens is not None:
        outputs = num_outputs(viewed.data)
        args = text.arguments(network.name, args, outputs, viewed.data.classes, viewed.input_shape, tokens)
        return NetworkSpec(network.name, args, outputs, viewed.input_shape, (), ())
    if text.is_for_texts(network.name):
        raise ModelError(f"network {network.name!r}: takes texts, and {viewed.data.name} has none")
    mean, std = channel_statistics(viewed.data)
    mean = _by_channel(network, "mean", args.pop("mean", mean))
    std = _by_channel(network, "std", args.pop("std", std))
    return NetworkSpec(
        network.name, args, num_outputs(viewed.data), viewed.input_shape, tuple(mean), tuple(std)
    )


def _by_channel(network: Network, name: str, values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ModelError(
            f"network {network.name!r}: {name}: expected a list, a number a channel, got {values!r}"
        )
    return [float(value) for value in values]


def build_network(spec: NetworkSpec, seed: int = 0, fetch: bool = True) -> nn.Module:
    """The network with weights that are a function of `seed`; one for texts fetches those that it begins with, unless
    `fetch` is false. Raises ModelError, and WeightsError where they cannot be had.
    """
    torch.manual_seed(seed)
    if "vocabulary" in spec.args:
        return text.build(spec.name, spec.num_classes, input_shape=spec.input_shape, fetch=fetch, **spec.args)
    return registry.build(
        spec.name, spec.num_classes, input_shape=spec.input_shape, mean=spec.mean, std=spec.std, **spec.args
    )


def save_network(folder: Path, network: nn.Module, spec: NetworkSpec) -> tuple[int, str]:
    """Writes `weights.safetensors`; its size in bytes and the SHA-256 of the weights."""
    path = folder / WEIGHTS
    save_weights(path, network, {"network": json.dumps(asdict(spec))})
    return path.stat().st_size, weights_sha256(network.state_dict())


def load_network(result: Result) -> nn.Module:
    """The network of a finished run with its weights. Raises WeightsError where they are not the ones that
    were saved.
    """
    network = build_network(result.network, fetch=False)
    load_weights(network, result.folder / WEIGHTS)
    if weights_sha256(network.state_dict()) != result.weights_sha256:
        from decant.pipeline.errors import WeightsError

        raise WeightsError(
            f"{result.folder / WEIGHTS}: not the weights that {result.folder / 'result.json'} speaks of"
        )
    return network


def num_parameters(network: nn.Module) -> int:
    """Learnable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
