"""The first layer of every network: uint8 pixels or float features → normalised float32.

Normalisation belongs to the network and is saved with its weights, so a teacher and a student that
normalise differently read the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.kept_columns import KeepsColumns


class Preprocess(nn.Module):
    """(B, C, H, W) or (B, F) inputs → the same, normalised by channel or feature, in the dtype of `mean`.

    uint8 inputs are pixels, 0 to 255, and are read as 0 to 1; float inputs are taken as they are. `size`
    (H, W) resizes images: "bilinear" or "bicubic", both antialiased, or "nearest". A channels_last input stays
    channels_last.
    Raises ModelError when `mean` and `std` differ in length or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ModelError(f"mean has {len(mean)} values and std has {len(std)}; one of each a channel")
        if not all(value > 0 for value in std):
            raise ModelError(f"std must be positive, got {tuple(std)}")
        self.register_buffer("mean", torch.tensor(tuple(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(tuple(std), dtype=torch.float32))
        self.size, self.interpolation = size, interpolation

    def forward(self, inputs: Tensor) -> Tensor:
        normalised = self._normalise(inputs)
        # Normalising first costs less where images grow, which is what pretrained networks ask of small ones;
        # the result is the same, as the weights of a resize sum to one.
        if self.size is None or tuple(inputs.shape[2:]) == self.size:
            return normalised
        if self.interpolation == "nearest":
            return F.interpolate(normalised, size=self.size, mode="nearest-exact")
        return F.interpolate(normalised, size=self.size, mode=self.interpolation, antialias=True)

    def _normalise(self, inputs: Tensor) -> Tensor:
        """(inputs / 255 − mean) / std, or without the 255: one multiply and one add, in place on a copy."""
        if not (inputs.dtype == torch.uint8 or inputs.is_floating_point()):
            raise TypeError(f"a network takes uint8 pixels or float features, got {inputs.dtype}")
        unit = 255.0 if inputs.dtype == torch.uint8 else 1.0
        by_channel = (-1,) + (1,) * (inputs.ndim - 2)
        scale = (1 / (unit * self.std)).view(by_channel)
        shift = (-self.mean / self.std).view(by_channel)
        return inputs.to(self.mean.dtype, copy=True).mul_(scale).add_(shift)

    def extra_repr(self) -> str:
        how = "" if self.interpolation == "bilinear" else f", interpolation={self.interpolation}"
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}, size={self.size}{how}"


class Network(KeepsColumns):
    """`body(preprocess(inputs))`: (B, C, H, W) uint8 or (B, F) float → logits (B, num_classes)."""

    def __init__(self, preprocess: Preprocess, body: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.body(self.preprocess(inputs))
        return self.kept(logits)
