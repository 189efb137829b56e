"""The operations of `views.augment`, a frozen class each: the range of every value, the images that it takes, and the
function that does it. Imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from decant.pipeline.config.sections import Count, Section, Share, kinds, one_of

Positive = Annotated[float, Field(gt=0)]
AreaShare = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
Strength = Annotated[float, Field(ge=0, le=10)]
"""Factors are drawn from max(0, 1 − strength) … 1 + strength."""


class Operation(Section):
    """One operation of `views.augment` on (B, C, H, W) images."""

    function: ClassVar[str]
    """`module:function` in `decant.pipeline.views`: (images, bits (B, 16), settings) → images."""
    draws: ClassVar[int] = 16
    """How many of the bits it looks at, which are the first."""
    any_dtype: ClassVar[bool] = False
    """Whether it takes images of any dtype; else of uint8 alone."""
    any_channels: ClassVar[bool] = True
    """Whether it takes any number of channels; else 1 or 3."""

    op: str

    @property
    def num_outcomes(self) -> int | None:
        """How many outcomes the operation has; None where they are too many to enumerate."""
        return None

    @property
    def output_size(self) -> int | None:
        """Height and width of its output; None where they are those of its input."""
        return None

    def misfit(self, height: int, width: int) -> str | None:
        """Why it cannot take images of this size; None where it can."""
        return None


class Countable(Operation):
    """An operation whose outcomes are numbered from 0, so that `count = "all"` can make a view of each. Its function
    is (images, outcomes (B,), settings) → images.
    """

    draw: ClassVar[str]
    """`module:function` in `decant.pipeline.views`: (bits (B, 16), settings) → outcomes (B,)."""


class Mixing(Operation):
    """An operation that takes in a second sample. Its function is (images, partners, bits (B, 16), settings) → images,
    and the share (B,) that each keeps of its own label.
    """


class PadCrop(Countable):
    """Pad with zeros on every side, then crop the original size at a random offset."""

    draw = "geometry:draw_pad_crop"
    function = "geometry:apply_pad_crop"
    draws = 2
    any_dtype = True

    op: Literal["pad-crop"]
    padding: Annotated[int, Field(ge=1, le=128)] = 4

    @property
    def num_outcomes(self) -> int:
        """Offsets from 0 to 2·padding, down and across."""
        return (2 * self.padding + 1) ** 2


class Flip(Countable):
    """Mirror left to right with probability `p`."""

    draw = "geometry:draw_flip"
    function = "geometry:apply_flip"
    draws = 1
    any_dtype = True

    op: Literal["flip"]
    p: Share = 0.5

    @property
    def num_outcomes(self) -> int:
        """As it is, and mirrored."""
        return 2


class CenterCrop(Operation):
    """The square of `size` pixels in the middle."""

    function = "geometry:apply_center_crop"
    any_dtype = True

    op: Literal["center-crop"]
    size: Count

    @property
    def output_size(self) -> int:
        return self.size

    def misfit(self, height: int, width: int) -> str | None:
        if self.size > min(height, width):
            return f"size = {self.size} is larger than the images, {height} × {width}"
        return None


class RandomResizedCrop(Operation):
    """A random box of the image, scaled to `size` × `size` (Szegedy et al., 2015)."""

    function = "geometry:apply_random_resized_crop"

    op: Literal["random-resized-crop"]
    size: Count | None = None
    """None is the size of the image."""
    scale: tuple[AreaShare, ...] = (0.08, 1.0)
    """The box's share of the area, from and to."""
    ratio: tuple[Ratio, ...] = (3 / 4, 4 / 3)
    """Width over height, from and to."""

    @property
    def output_size(self) -> int | None:
        return self.size

    @model_validator(mode="after")
    def _ranges(self) -> RandomResizedCrop:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)
        return self


class ColorJitter(Operation):
    """Brightness, contrast and saturation scaled and the hue turned, in random order."""

    function = "colour:apply_color_jitter"
    any_channels = False

    op: Literal["color-jitter"]
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """In turns of the colour circle."""
    p: Share = 1.0


class RandAugment(Operation):
    """torchvision's RandAugment (Cubuk et al., 2020)."""

    function = "external:apply_rand_augment"
    any_channels = False

    op: Literal["rand-augment"]
    num_ops: Count = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


class TrivialAugment(Operation):
    """torchvision's TrivialAugmentWide (Müller, Hutter, 2021)."""

    function = "external:apply_trivial_augment"
    any_channels = False

    op: Literal["trivial-augment"]


class Cutout(Operation):
    """A square of zeros, its centre anywhere in the image (DeVries, Taylor, 2017)."""

    function = "erasing:apply_cutout"
    any_dtype = True

    op: Literal["cutout"]
    size: Count


class RandomErasing(Operation):
    """A random box filled with `value` with probability `p` (Zhong et al., 2020)."""

    function = "erasing:apply_random_erasing"

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


class Mixup(Mixing):
    """With probability `p`, a mean of two samples and of their labels, weighted with λ ~ Beta(α, α)
    (Zhang et al., 2018).
    """

    function = "mixing:apply_mixup"

    op: Literal["mixup"]
    alpha: Positive = 0.2
    p: Share = 1.0


class CutMix(Mixing):
    """With probability `p`, a box from another sample, and as much of its label; the area that is kept is
    λ ~ Beta(α, α) before the box is clipped (Yun et al., 2019).
    """

    function = "mixing:apply_cutmix"
    any_dtype = True

    op: Literal["cutmix"]
    alpha: Positive = 1.0
    p: Share = 1.0


class Transform(Operation):
    """A transform of torchvision (`torchvision:ElasticTransform`) or of the user's (`package.module:callable`); the
    keys beside the name are its arguments.
    """

    model_config = ConfigDict(extra="allow")
    function = "external:apply_transform"

    op: Literal["transform"]
    name: str

    @property
    def args(self) -> dict[str, Any]:
        """The keys beside the name."""
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


if TYPE_CHECKING:
    Augmentation = Operation
else:
    Augmentation = one_of(kinds(vars(), Operation), "op")
"""Any of the operations above."""


def _check_range(name: str, values: Sequence[float]) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: expected [from, to], the smaller first, found {list(values)}")
