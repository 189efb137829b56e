"""Initial weights (He, Zhang, Ren, Sun, 2015: "Delving deep into rectifiers", equation 14)."""

from __future__ import annotations

from torch import nn


def initialise_convolutions(network: nn.Module) -> None:
    """Every 2-D convolution: weights normal with variance 2 / (k² · channels out), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
