"""The classes that a pretrained network of a library knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decant.pipeline.errors import ModelError
from decant.pipeline.networks import bert, external
from decant.pipeline.support.plugins import optional


def classes_of_library(name: str, args: Mapping[str, Any]) -> list[str] | None:
    """The names of the classes that the weights of `name` (SOURCE:NAME) with `args` were trained for, in their order;
    None where the network is not pretrained, or no library's. Raises ModelError for weights that there are not.

    >>> len(classes_of_library("torchvision:resnet18", {"weights": "DEFAULT"}))
    1000
    >>> classes_of_library("torchvision:resnet18", {}) is None
    True
    """
    source, _, rest = name.partition(":")
    try:
        match source:
            case "torchvision":
                return external.torchvision_classes(rest, args.get("weights"))
            case "timm" if args.get("pretrained"):
                return _of_timm(rest)
            case "transformers":
                return bert.class_names(rest)
            case _:
                return None
    except ModelError as error:
        raise ModelError(f"network {name!r}: {error}") from error.__cause__


def _of_timm(name: str) -> list[str]:
    """By their names in ImageNet where timm knows them, else by number."""
    timm = optional("timm", "timm", ModelError)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        raise ModelError("timm has no pretrained weights of it")
    names = list(config.label_names or ())
    return names if len(names) == config.num_classes else [str(label) for label in range(config.num_classes)]
