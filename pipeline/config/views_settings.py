"""The section `[views]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from decant.pipeline.config.augmentations import Augmentation, CenterCrop
from decant.pipeline.config.sections import Count, Section


class ViewsSettings(Section):
    """`[views]`: the pixels that teacher and student both see."""

    count: Count | Literal["all"] = 1
    """V: epoch e of a student sees view e mod V. `"all"` is every outcome that pad-crop and flip can have
    (162 for padding 4), each sample drawing one an epoch, as it would before a live teacher.
    """
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Chooses the random crops, flips and colours; another seed gives other views."""
    size: Count | tuple[Count, Count] | None = None
    """Height and width that every image is brought to: one number for a square, `[H, W]` for a rectangle; None leaves
    them as they are. An image keeps its proportions: it is scaled until it covers this, and the middle is taken.
    """
    resize: Count | None = None
    """The shorter side before the centre crop to a square `size`; None is `size` itself."""
    channels: Literal[1, 3] | None = None
    """Channels that every image is brought to: 1 is grey, 3 is RGB. None leaves 3 of image files, and those that other
    data have.
    """
    augment: tuple[Augmentation, ...] = ()
    """The operations that make a view, in this order; none leaves the inputs as they are."""

    @property
    def num_views(self) -> int:
        """V as a number."""
        if self.count == "all":
            return math.prod(operation.num_outcomes or 1 for operation in self.augment)
        return self.count

    @property
    def plain(self) -> ViewsSettings:
        """What an input is measured through: its size where an operation changes it, by the crop in the middle,
        and nothing else.
        """
        sizes = [operation.output_size for operation in reversed(self.augment)]
        size = next((size for size in sizes if size is not None), None)
        crop = () if size is None else (CenterCrop(op="center-crop", size=size),)
        return self.model_copy(update={"augment": crop, "count": 1})

    @model_validator(mode="after")
    def _views_differ(self) -> ViewsSettings:
        if self.count != 1 and not self.augment:
            raise ValueError("count: views without augmentation are all the same; set augment, or count = 1")
        endless = [operation.op for operation in self.augment if operation.num_outcomes is None]
        if self.count == "all" and endless:
            raise ValueError(
                f'count: "all" counts the outcomes of pad-crop and flip; {endless[0]} has too many to count'
            )
        if self.resize is None:
            return self
        if isinstance(self.size, tuple):
            raise ValueError("resize: is of a square `size`; leave it out of a rectangle's")
        if self.size is None or self.resize < self.size:
            raise ValueError("resize: must be at least `size`, which must be given")
        return self
