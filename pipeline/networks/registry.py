"""A network by name, with its arguments checked before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, get_type_hints

from torch import nn

from decant.pipeline.errors import ModelError, WeightsError, nearest
from decant.pipeline.networks import cifar_resnet, external, lenet, mobilenet, small, vgg, wide_resnet
from decant.pipeline.networks.builders import Builder, Shape
from decant.pipeline.networks.preprocess import Network, Preprocess
from decant.pipeline.networks.resizing import Resize, split_resize
from decant.pipeline.networks.weight_memory import require_room, weights_size

_NETWORKS: dict[str, Builder] = {
    **small.NETWORKS,
    **cifar_resnet.NETWORKS,
    **wide_resnet.NETWORKS,
    **vgg.NETWORKS,
    **mobilenet.NETWORKS,
    **lenet.NETWORKS,
}


def names() -> list[str]:
    """The networks that ship, sorted. `build_by_name` also takes those of torchvision and timm, and the user's own."""
    return sorted(_NETWORKS)


def build_by_name(
    name: str,
    num_classes: int,
    *,
    input_shape: Shape,
    mean: Sequence[float],
    std: Sequence[float],
    **args: Any,
) -> Network:
    """The network `name` for inputs (B, *input_shape), giving float32 logits (B, num_classes).

    `input_shape` is (C, H, W) for uint8 images and (F,) for float features; `mean` and `std` have a value a
    channel or feature, of pixels between 0 and 1 or of the features as they are. `args` are the network's
    own, and `size` and `interpolation`, which resize images for it; a function of the user's that takes `size` is given
    it instead. Weights are drawn from torch's global generator unless `args` ask for pretrained ones, which bring
    their own mean and std.
    Raises ModelError when the name or an argument is unknown, or the network cannot take such inputs, and
    WeightsError when pretrained weights cannot be fetched.
    """
    try:
        _check_problem(num_classes, input_shape, mean)
        resize = Resize()
        if not external.takes_size(name):
            resize, args = split_resize(args, input_shape)
        preprocess = Preprocess(mean, std, *resize)
        if ":" in name:
            return external.build_external(
                name, num_classes, input_shape=input_shape, preprocess=preprocess, args=args
            )
        build = _builder(name, resize.of(input_shape), num_classes, args)
        require_room(_size_of(build))
        return Network(preprocess, build())
    except (ModelError, WeightsError) as error:
        error.args = (f"network {name!r}: {error}",)
        raise


def weights_size_of(name: str, num_classes: int, input_shape: Shape, args: dict[str, Any]) -> int | None:
    """Bytes of the weights of a network that ships; None of others. Raises ModelError as `build_by_name` does.

    >>> weights_size_of("linear", 3, (4,), {})
    60
    """
    if name not in _NETWORKS:
        return None
    try:
        resize, args = split_resize(args, input_shape)
        return _size_of(_builder(name, resize.of(input_shape), num_classes, args))
    except ModelError as error:
        error.args = (f"network {name!r}: {error}",)
        raise


_sizes: dict[str, int] = {}
"""Bytes of weights, by all that they depend on: to weigh a network takes as long as to build it, and the file of a run
is compared with them before the network is built.
"""


def _size_of(build: partial[nn.Module]) -> int:
    """Bytes of the weights of a network that ships. Raises ModelError."""
    key = repr((build.func, build.args, sorted(build.keywords.items())))
    if key not in _sizes:
        _sizes[key] = weights_size(build)
    return _sizes[key]


def _builder(name: str, input_shape: Shape, num_classes: int, args: dict[str, Any]) -> partial[nn.Module]:
    """What makes the body of a network that ships. Raises ModelError."""
    builder = _find(name)
    check_arguments(builder, args)
    return partial(builder, input_shape, num_classes, **args)


def _find(name: str) -> Builder:
    if name not in _NETWORKS:
        elsewhere = "others are written torchvision:NAME, timm:NAME or package.module:function"
        raise ModelError(f"unknown; {nearest(name, names())} ({elsewhere})")
    return _NETWORKS[name]


def _check_problem(num_classes: int, input_shape: Shape, mean: Sequence[float]) -> None:
    if num_classes < 1:
        raise ModelError(f"num_classes must be 1 or more, got {num_classes}")
    if len(input_shape) not in (1, 3) or min(input_shape) < 1:
        raise ModelError(f"input_shape must be (C, H, W) or (F,), got {input_shape}")
    if len(mean) != input_shape[0]:
        raise ModelError(
            f"mean has {len(mean)} values, the inputs have {input_shape[0]} channels or features"
        )


def check_arguments(builder: Builder, args: dict[str, Any]) -> None:
    """Raises ModelError, naming what a builder takes, for an argument that it does not."""
    hints = get_type_hints(builder)
    parameters = inspect.signature(builder).parameters.values()
    accepted = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    takes = ", ".join(f"{arg} ({hints[arg].__name__}, default {value})" for arg, value in accepted.items())
    for arg, value in args.items():
        if arg not in accepted:
            raise ModelError(f"unknown argument {arg!r}; it takes {takes or 'none'}")
        if type(value) is not hints[arg]:  # not isinstance: true is no width
            raise ModelError(f"{arg} must be {hints[arg].__name__}, got {value!r}; it takes {takes}")
