"""The student: any torch.nn.Module that gives logits (B, num_classes). Put your own in place of `small`."""

from __future__ import annotations

from torch import nn


def small(num_classes: int, input_shape: tuple[int, int, int], width: int = 12) -> nn.Module:
    """What the recipe names; `width` and other arguments stand beside the name there.

    Inputs are float32 (B, C, H, W), normalised. Return logits: no softmax.
    """
    channels, height, size = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * (height // 4) * (size // 4), num_classes),
    )
