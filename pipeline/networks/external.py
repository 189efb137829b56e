"""Networks from elsewhere: torchvision:NAME, timm:NAME, and package.module:function.

torchvision's are made for images of 224 × 224; `stem_stride = 1` has the first convolution keep the size of small ones.

`size` has images resized for a network alone, so that a teacher can take larger ones than its student.

Pretrained networks have the mean, standard deviation and image size that they were trained with. Every network is tried
on one batch of zeros, so that one which cannot take the data is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decant.pipeline.errors import ModelError, WeightsError, nearest
from decant.pipeline.networks import resizing
from decant.pipeline.networks.builders import Shape, image_channels
from decant.pipeline.networks.kept_columns import check_outputs
from decant.pipeline.networks.preprocess import Network, Preprocess
from decant.pipeline.networks.resizing import Resize
from decant.pipeline.support import trust
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import Plugin, in_words, optional

_WEIGHTS_OF_TIMM = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments that say where timm's weights come from, which a run folder could set to anything."""
_REFUSALS = (TypeError, ValueError, RuntimeError, AssertionError, IndexError, KeyError, NotImplementedError)


def build_external(
    name: str, num_classes: int, *, input_shape: Shape, preprocess: Preprocess, args: dict[str, Any]
) -> Network:
    """The network that `name` (SOURCE:NAME) stands for, behind `preprocess` or what its own weights ask for.

    Raises ModelError when there is no such network, when it does not take `args` or such inputs, or gives
    other than (B, num_classes), and WeightsError when pretrained weights cannot be fetched.
    """
    source, _, rest = name.partition(":")
    build_source = {"torchvision": _torchvision, "timm": _timm}.get(source)
    if build_source is not None:
        network = build_source(rest, num_classes, input_shape, preprocess, dict(args))
    else:
        seen = Resize(preprocess.size).of(input_shape)
        network = Network(preprocess, from_function(name, num_classes, seen, args))
    _try_once(network, num_classes, input_shape)
    return network


def takes_size(name: str) -> bool:
    """Whether `name` is a function of the user's that takes `size` itself. Raises ModelError where there is none."""
    if ":" not in name or name.partition(":")[0] in ("torchvision", "timm"):
        return False
    return resizing.takes_size(Plugin(name, "", ModelError).load())


def _torchvision(
    name: str, num_classes: int, input_shape: Shape, preprocess: Preprocess, args: dict[str, Any]
) -> Network:
    models = _torchvision_models()
    known = models.list_models(module=models)  # the classifiers, not detectors and the like
    if name not in known:
        raise ModelError(f"torchvision has no such classifier; {nearest(name, known)}")
    if image_channels(input_shape) != 3:
        raise ModelError(f"torchvision's networks take 3 channels, the data has {input_shape[0]}")
    stem_stride = args.pop("stem_stride", None)
    weights = _torchvision_weights(name, args.pop("weights", None))
    if name in ("googlenet", "inception_v3"):  # their auxiliary heads would make the output a tuple
        args.setdefault("aux_logits", False)
        if weights is None:
            args.setdefault("init_weights", True)
    if weights is None:
        body = _call(models.get_model, name, {**args, "num_classes": num_classes})
        _set_stem_stride(body, stem_stride)
        return Network(preprocess, body)
    if stem_stride is not None:
        raise ModelError("stem_stride: pretrained weights bring the image size that they were trained with")
    body = _call(models.get_model, name, {**args, "weights": weights})
    pretrained_classes = len(weights.meta["categories"])
    _replace_head(body, pretrained_classes, num_classes)
    transforms = weights.transforms()
    height, width = (*transforms.crop_size, *transforms.crop_size)[:2]  # one number is a square
    size = preprocess.size or (height, width)
    network = Network(Preprocess(transforms.mean, transforms.std, size, preprocess.interpolation), body)
    network.untrained_head = _untrained_head(pretrained_classes, num_classes)
    return network


def torchvision_classes(name: str, weights: object) -> list[str] | None:
    """The names of the classes that these weights of torchvision were trained for; None without weights. Raises
    ModelError for a network or weights that there are not.
    """
    models = _torchvision_models()
    if name not in models.list_models(module=models):
        return None  # which is refused where it is built
    entry = _torchvision_weights(name, weights)
    return None if entry is None else list(entry.meta["categories"])


def _torchvision_models() -> Any:
    """The module, imported where it is needed: that takes as long as importing torch does."""
    import torchvision.models

    return torchvision.models


def _torchvision_weights(name: str, weights: object) -> Any:
    """The member of the network's weights enumeration that `weights` names, or None."""
    if weights is None:
        return None
    known = _torchvision_models().get_model_weights(name).__members__  # DEFAULT is an alias among them
    member = str(weights).rpartition(".")[2]
    if member not in known and Path(str(weights)).is_file():
        raise ModelError(f"weights: {weights} is a file; give it as teacher.weights, beside the network")
    if member not in known:
        raise ModelError(f"no weights {weights!r}; {nearest(member, known)}")
    return known[member]


def _set_stem_stride(body: nn.Module, stride: object) -> None:
    """Give the first convolution another stride; its weights stay the same in number."""
    if stride is None:
        return
    stem = next(module for module in body.modules() if isinstance(module, nn.Conv2d))
    if type(stride) is not int or stride not in (1, 2) or stem.kernel_size == stem.stride:
        raise ModelError(
            f"stem_stride must be 1 or 2, of a network whose first windows overlap, got {stride!r}"
        )
    stem.stride = (stride, stride)


def _replace_head(body: nn.Module, pretrained_classes: int, num_classes: int) -> None:
    """Put a fresh last layer in place when the classes differ; it is a 1 × 1 convolution in some."""
    if pretrained_classes == num_classes:
        return
    heads = [
        (path, module)
        for path, module in body.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == pretrained_classes
    ]
    path, old = heads[-1]
    head: nn.Module
    if isinstance(old, nn.Conv2d):
        head = nn.Conv2d(old.in_channels, num_classes, 1)
    else:
        head = nn.Linear(old.in_features, num_classes)
    body.set_submodule(path, head)


def _timm(
    name: str, num_classes: int, input_shape: Shape, preprocess: Preprocess, args: dict[str, Any]
) -> Network:
    timm = optional("timm", "timm", ModelError)
    channels = image_channels(input_shape)
    if not timm.is_model(name):
        raise ModelError(f"timm has no such network; {nearest(name, timm.list_models())}")
    elsewhere = sorted(_WEIGHTS_OF_TIMM & set(args))
    if elsewhere and not trust.trusts_everything():
        raise ModelError(
            f"{elsewhere[0]}: has timm read weights from a file or an address; give them as teacher.weights, which are "
            f"checked; {trust.TRUST} passes it on all the same"
        )
    body = _call(timm.create_model, name, {**args, "num_classes": num_classes, "in_chans": channels})
    if args.get("pretrained"):
        config = timm.data.resolve_model_data_config(body)
        if len(config["mean"]) != channels:
            raise ModelError(f"pretrained for {len(config['mean'])} channels, the data has {channels}")
        size = preprocess.size or config["input_size"][1:]
        preprocess = Preprocess(config["mean"], config["std"], size, preprocess.interpolation)
    network = Network(preprocess, body)
    if args.get("pretrained"):
        pretrained: Any = body.pretrained_cfg
        network.untrained_head = _untrained_head(pretrained["num_classes"], num_classes)
    return network


def _untrained_head(pretrained_classes: int, num_classes: int) -> str:
    """Why a pretrained network has a last layer that was never trained; empty where it has none."""
    if pretrained_classes == num_classes:
        return ""
    return f"the weights are of {pretrained_classes:,} classes, and the data have {num_classes:,}"


def from_function(name: str, num_classes: int, input_shape: Shape, args: dict[str, Any]) -> nn.Module:
    """The module that `package.module:function` returns for num_classes, input_shape and `args`. Raises ModelError."""
    plugin = Plugin(name, "", ModelError)
    function = plugin.load()
    arguments = {"num_classes": num_classes, "input_shape": input_shape, **args}
    plugin.check_arguments(function, **arguments)
    try:
        body = function(**arguments)
    except RAISED as error:  # it may raise anything
        raise plugin.refusal(f"failed when it was called ({in_words(error)})") from error
    if not isinstance(body, nn.Module):
        raise plugin.refusal(f"must return a torch.nn.Module, got {type(body).__name__}")
    return body


def _call(builder: Callable[..., nn.Module], name: str, args: dict[str, Any]) -> nn.Module:
    """`builder(name, **args)`, its refusals as ModelError and failed downloads as WeightsError."""
    try:
        return builder(name, **args)
    except OSError as error:
        raise WeightsError(f"cannot fetch its weights: {first_line(error)}") from error
    except _REFUSALS as error:
        raise ModelError(first_line(error)) from error


def _try_once(network: Network, num_classes: int, input_shape: Shape) -> None:
    dtype = torch.uint8 if len(input_shape) == 3 else torch.float32
    network.eval()
    try:
        with torch.no_grad():
            logits = network(torch.zeros(2, *input_shape, dtype=dtype))
    except RAISED as error:  # the network may be the user's, and raise anything
        resized = network.preprocess.size is not None or len(input_shape) != 3
        hint = "" if resized else "; where it needs images of another size, give it `size`"
        if "dtype" in str(error):
            hint = "; its weights must be float32, as its inputs are: precision says what is computed in"
        channels = re.search(r"to have ([13]) channels, but got [13] channels", str(error))
        hint = f"; views.channels = {channels[1]} brings images to that" if channels else hint
        raise ModelError(f"cannot take inputs of shape {input_shape}: {_reason(error)}{hint}") from error
    finally:
        network.train()
    check_outputs(logits, num_classes, "for a batch of 2")


def _reason(error: BaseException) -> str:
    """The first line of an error of another library; of the user's code also its type and line."""
    words = in_words(error)
    said_elsewhere = isinstance(error, _REFUSALS) and not words.endswith("]")
    return first_line(error) if said_elsewhere else words


def first_line(error: BaseException) -> str:
    """The first line of an error of another library."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
