"""The optimizer of a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from decant.pipeline.config.settings import Training


def make_optimizer(network: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, over the parameters that require a gradient; fused where the device has
    that.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = device.type in ("cpu", "cuda")
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, momentum=settings.momentum, nesterov=settings.nesterov, **common
            )
        case "adam":
            return torch.optim.Adam(parameters, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, **common)
