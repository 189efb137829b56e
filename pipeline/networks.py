"""A network with its place on disk: built from a recipe or a finished run, saved with all that builds it
again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from pipeline import models
from pipeline.runs import WEIGHTS, NetworkSpec, Result
from pipeline.samples import channel_statistics, num_classes
from pipeline.settings import Network
from pipeline.views import ViewedData
from pipeline.weights import load_weights, save_weights, weights_sha256


def specify(network: Network, viewed: ViewedData) -> NetworkSpec:
    """What builds `network` for views of these data, normalised by the data's statistics."""
    mean, std = channel_statistics(viewed.data)
    return NetworkSpec(
        network.name, network.args, num_classes(viewed.data), viewed.input_shape, tuple(mean), tuple(std)
    )


def build(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """The network with weights that are a function of `seed`. Raises ModelError."""
    torch.manual_seed(seed)
    return models.build(
        spec.name, spec.num_classes, input_shape=spec.input_shape, mean=spec.mean, std=spec.std, **spec.args
    )


def save(folder: Path, network: nn.Module, spec: NetworkSpec) -> tuple[int, str]:
    """Writes `weights.safetensors`; its size in bytes and the SHA-256 of the weights."""
    path = folder / WEIGHTS
    save_weights(path, network, {"network": json.dumps(asdict(spec))})
    return path.stat().st_size, weights_sha256(network.state_dict())


def load(result: Result) -> nn.Module:
    """The network of a finished run with its weights. Raises WeightsError where they are not the ones that
    were saved.
    """
    network = build(result.network)
    load_weights(network, result.folder / WEIGHTS)
    if weights_sha256(network.state_dict()) != result.weights_sha256:
        from pipeline.errors import WeightsError

        raise WeightsError(
            f"{result.folder / WEIGHTS}: not the weights that {result.folder / 'result.json'} speaks of"
        )
    return network


def num_parameters(network: nn.Module) -> int:
    """Learnable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
