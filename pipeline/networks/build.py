"""The network of a recipe: its spec for the data, and a network of a spec, with fresh weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from decant.pipeline.config.settings import Network
from decant.pipeline.data.samples import channel_statistics, num_outputs, vocabulary
from decant.pipeline.errors import ModelError, PipelineError, is_out_of_memory
from decant.pipeline.networks import library_networks, registry, text
from decant.pipeline.networks.spec import CAUSAL, KEPT_CLASSES, NetworkSpec
from decant.pipeline.networks.undrawn import Undrawn
from decant.pipeline.support.plugins import in_words
from decant.pipeline.support.source_code import is_users, warn_without_source
from decant.pipeline.views import ViewedData

_RESERVED = ("num_classes", "input_shape", "vocabulary", "fetch", KEPT_CLASSES)


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
        try:
            return library_networks.build_causal(spec.args[CAUSAL])
        except ModelError as error:
            raise ModelError(f"network {spec.name!r}: {error}") from error.__cause__
    args = {name: value for name, value in spec.args.items() if name != KEPT_CLASSES}
    if "vocabulary" in args:
        return text.build_text_network(
            spec.name, spec.own_outputs, input_shape=spec.input_shape, fetch=fetch, **args
        )
    return registry.build_by_name(
        spec.name, spec.own_outputs, input_shape=spec.input_shape, mean=spec.mean, std=spec.std, **args
    )


def specify_network(network: Network, viewed: ViewedData, *, measured: bool = True) -> NetworkSpec:
    """The spec of `network` for views of these data.

    Inputs are normalised by the statistics of the data, or by the arguments `mean` and `std`, which weights from
    elsewhere need. Texts are not normalised. With `measured` false no statistics are computed, for which images are
    decoded: the spec tells whether the network can be built, and is not one to train. Raises ModelError.
    """
    args, tokens = network.args, vocabulary(viewed.data)
    reserved = next((name for name in _RESERVED if name in args), None)
    if reserved is not None:
        raise ModelError(
            f"network {network.name!r}: {reserved}: is a reserved argument, given by the data "
            f"({num_outputs(viewed.data):,} outputs, inputs of shape {viewed.input_shape}); leave it out"
        )
    if tokens is not None:
        outputs = num_outputs(viewed.data)
        args = text.arguments(network.name, args, outputs, viewed.data.classes, viewed.input_shape, tokens)
        return NetworkSpec(network.name, args, outputs, viewed.input_shape, (), ())
    if text.is_for_texts(network.name):
        raise ModelError(f"network {network.name!r}: takes texts, and {viewed.data.name} has none")
    channels = viewed.data.input_shape[0]
    mean, std = channel_statistics(viewed.data) if measured else ([0.0] * channels, [1.0] * channels)
    mean = _per_channel(network, "mean", args.pop("mean", mean))
    std = _per_channel(network, "std", args.pop("std", std))
    return NetworkSpec(
        network.name, args, num_outputs(viewed.data), viewed.input_shape, tuple(mean), tuple(std)
    )


def _per_channel(network: Network, name: str, values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ModelError(
            f"network {network.name!r}: {name}: expected a list, a number a channel, got {values!r}"
        )
    return [float(value) for value in values]


def num_parameters(network: nn.Module) -> int:
    """The number of trainable parameters.

    >>> num_parameters(nn.Linear(4, 3))
    15
    """
    return sum(parameter.numel() for parameter in network.parameters())
