"""Which inputs an operation can work on."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from decant.pipeline.config.augmentations import (
    Augmentation,
    CenterCrop,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    PadCrop,
    RandAugment,
    TrivialAugment,
)

_ANY_DTYPE = (PadCrop, Flip, CenterCrop, Cutout, CutMix)
_GREY_OR_COLOUR = (ColorJitter, RandAugment, TrivialAugment)


def unsupported(operation: Augmentation, input_shape: tuple[int, ...], dtype: DTypeLike) -> str | None:
    """Why an operation cannot work on inputs of this shape and dtype, or None where it can."""
    if len(input_shape) != 3:
        return f"works on images (C, H, W), the inputs are {tuple(input_shape)}"
    channels, height, width = input_shape
    if np.dtype(dtype) != np.uint8 and not isinstance(operation, _ANY_DTYPE):
        return f"works on uint8 images, these are {np.dtype(dtype)}"
    if channels not in (1, 3) and isinstance(operation, _GREY_OR_COLOUR):
        return f"works on images of 1 or 3 channels, these have {channels}"
    if isinstance(operation, CenterCrop) and operation.size > min(height, width):
        return f"size = {operation.size} is larger than the images, {height} × {width}"
    return None
