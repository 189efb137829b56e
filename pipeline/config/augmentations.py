"""What `views.augment` may list: one frozen class an operation, with the range of every value. Imports nothing
heavy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from decant.pipeline.config.sections import Count, Section, Share

Positive = Annotated[float, Field(gt=0)]
AreaShare = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
Strength = Annotated[float, Field(ge=0, le=10)]
"""Factors are drawn from max(0, 1 − strength) … 1 + strength."""


class PadCrop(Section):
    """Pad with zeros on every side, then crop the original size at a random offset."""

    op: Literal["pad-crop"]
    padding: Annotated[int, Field(ge=1, le=128)] = 4


class Flip(Section):
    """Mirror left to right with probability `p`."""

    op: Literal["flip"]
    p: Share = 0.5


class CenterCrop(Section):
    """The square of `size` pixels in the middle."""

    op: Literal["center-crop"]
    size: Count


class RandomResizedCrop(Section):
    """A random box of the image, scaled to `size` × `size` (Szegedy et al., 2015)."""

    op: Literal["random-resized-crop"]
    size: Count | None = None
    """None is the size of the image."""
    scale: tuple[AreaShare, ...] = (0.08, 1.0)
    """The box's share of the area, from and to."""
    ratio: tuple[Ratio, ...] = (3 / 4, 4 / 3)
    """Width over height, from and to."""

    @model_validator(mode="after")
    def _ranges(self) -> RandomResizedCrop:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)
        return self


class ColorJitter(Section):
    """Brightness, contrast and saturation scaled and the hue turned, in random order."""

    op: Literal["color-jitter"]
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """In turns of the colour circle."""
    p: Share = 1.0


class RandAugment(Section):
    """torchvision's RandAugment (Cubuk et al., 2020)."""

    op: Literal["rand-augment"]
    num_ops: Count = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


class TrivialAugment(Section):
    """torchvision's TrivialAugmentWide (Müller, Hutter, 2021)."""

    op: Literal["trivial-augment"]


class Cutout(Section):
    """A square of zeros, its centre anywhere in the image (DeVries, Taylor, 2017)."""

    op: Literal["cutout"]
    size: Count


class RandomErasing(Section):
    """A random box filled with `value` with probability `p` (Zhong et al., 2020)."""

    op: Literal["random-erasing"]
    p: Share = 0.5
    scale: tuple[AreaShare, ...] = (0.02, 0.33)
    """The box's share of the area, from and to."""
    ratio: tuple[Ratio, ...] = (0.3, 3.3)
    """Height over width, from and to."""
    value: Annotated[int, Field(ge=0, le=255)] = 0

    @model_validator(mode="after")
    def _ranges(self) -> RandomErasing:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)
        return self


class Mixup(Section):
    """With probability `p`, a mean of two samples and of their labels, weighted with λ ~ Beta(α, α)
    (Zhang et al., 2018).
    """

    op: Literal["mixup"]
    alpha: Positive = 0.2
    p: Share = 1.0


class CutMix(Section):
    """With probability `p`, a box from another sample, and as much of its label; the area that is kept is
    λ ~ Beta(α, α) before the box is clipped (Yun et al., 2019).
    """

    op: Literal["cutmix"]
    alpha: Positive = 1.0
    p: Share = 1.0


class Transform(Section):
    """A transform of torchvision (`torchvision:ElasticTransform`) or one's own (`package.module:callable`);
    what else is written beside the name are its arguments.
    """

    model_config = ConfigDict(extra="allow")

    op: Literal["transform"]
    name: str

    @property
    def args(self) -> dict[str, Any]:
        """What is written beside the name."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _can_be_called(self) -> Transform:
        source, _, callable_ = self.name.partition(":")
        if not (source and callable_):
            raise ValueError(
                f"name: expected torchvision:NAME or package.module:callable, found {self.name!r}"
            )
        for key, value in self.args.items():
            try:
                json.dumps(value, allow_nan=False)
            except ValueError:
                raise ValueError(f"{key}: numbers must be finite, found {value}") from None
        return self


Augmentation = Annotated[
    PadCrop
    | Flip
    | CenterCrop
    | RandomResizedCrop
    | ColorJitter
    | RandAugment
    | TrivialAugment
    | Cutout
    | RandomErasing
    | Mixup
    | CutMix
    | Transform,
    Field(discriminator="op"),
]


def outcomes(operation: Augmentation) -> int | None:
    """How many ways an operation can go; None where they are too many to enumerate."""
    match operation:
        case PadCrop(padding=padding):
            return (2 * padding + 1) ** 2
        case Flip():
            return 2
        case _:
            return None


def _check_range(name: str, values: Sequence[float]) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: expected [from, to], the smaller first, found {list(values)}")
