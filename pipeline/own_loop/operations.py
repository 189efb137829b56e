"""`decant.views`: the operations of `views.augment` as transforms of `decant.Views`, which work on whole batches.

Their random numbers are a hash of (seed, index, view), so that they are the same pixels as those of a recipe.

>>> import torch, decant
>>> data = torch.utils.data.TensorDataset(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8))
>>> views = decant.Views(data, [decant.views.pad_crop(4), decant.views.flip()], count=4, seed=0)
>>> image, label = views[5, 3]
>>> image.shape, torch.equal(image, views[5, 3][0])
(torch.Size([3, 32, 32]), True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decant.pipeline.config import augmentations as settings
from decant.pipeline.errors import DataError
from decant.pipeline.views import operations
from decant.pipeline.views.hashing import Bits

__all__ = [
    "ViewOperation",
    "center_crop",
    "color_jitter",
    "cutmix",
    "cutout",
    "flip",
    "mixup",
    "pad_crop",
    "random_erasing",
    "random_resized_crop",
]


@dataclass(frozen=True)
class ViewOperation:
    """One operation on images (C, H, W): uint8 arrays or tensors, or images of PIL, which become tensors."""

    settings: settings.Operation

    @property
    def mixes(self) -> bool:
        """Whether it takes in a second sample."""
        return isinstance(self.settings, settings.Mixing)

    def apply(self, images: list[Any], bits: Bits) -> list[Any]:
        """Each image after the operation; bits (B, 16) decide how. Raises DataError where it cannot take them."""
        parts = list(_stacks(images))
        results: list[Any] = [None] * len(images)
        for places, stack in parts:
            self._check(stack)
            _put(results, places, operations.apply(self.settings, stack, bits[places]))
        return results

    def mix(
        self, images: list[Any], partners: list[Any], bits: Bits
    ) -> tuple[list[Any], NDArray[np.float64]]:
        """Each image mixed with its partner, and the share (B,) of its own label."""
        assert isinstance(self.settings, settings.Mixing)
        (_, stack), *more = _stacks([*images, *partners])
        if more:
            raise DataError(
                f"{self!r}: mixes images of one shape, and these have several; resize them before"
            )
        self._check(stack)
        half = len(images)
        mixed, share = operations.mix(self.settings, stack[:half], stack[half:], bits)
        results: list[Any] = [None] * half
        _put(results, np.arange(half), mixed)
        return results, share

    def _check(self, stack: NDArray[Any]) -> None:
        reason = operations.unsupported(self.settings, stack.shape[1:], stack.dtype)
        if reason is not None:
            raise DataError(f"{self!r}: {reason}")

    def __repr__(self) -> str:
        said = self.settings.model_dump(exclude={"op"})
        name = self.settings.op.replace("-", "_")
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in said.items())})"


def pad_crop(padding: int = 4) -> ViewOperation:
    """Pads with zeros on every side, then crops the original size at a random offset. Images of any dtype.

    >>> pad_crop(2)
    pad_crop(padding=2)
    """
    return _operation(settings.PadCrop, op="pad-crop", padding=padding)


def flip(p: float = 0.5) -> ViewOperation:
    """Mirrors left to right with probability `p`. Images of any dtype.

    >>> flip()
    flip(p=0.5)
    """
    return _operation(settings.Flip, op="flip", p=p)


def center_crop(size: int) -> ViewOperation:
    """The square of `size` pixels in the middle. Images of any dtype.

    >>> center_crop(24)
    center_crop(size=24)
    """
    return _operation(settings.CenterCrop, op="center-crop", size=size)


def random_resized_crop(
    size: int | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> ViewOperation:
    """A random box, scaled to `size` × `size` (Szegedy et al., 2015); None is the size of the image. uint8 images.

    >>> random_resized_crop(32, scale=(0.5, 1.0), ratio=(1.0, 1.0))
    random_resized_crop(size=32, scale=(0.5, 1.0), ratio=(1.0, 1.0))
    """
    return _operation(
        settings.RandomResizedCrop, op="random-resized-crop", size=size, scale=scale, ratio=ratio
    )


def color_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1, p: float = 1.0
) -> ViewOperation:
    """Scales brightness, contrast and saturation and turns the hue, in random order. uint8 images of 1 or 3 channels.

    >>> color_jitter(hue=0.0).settings.hue
    0.0
    """
    given = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue, "p": p}
    return _operation(settings.ColorJitter, op="color-jitter", **given)


def cutout(size: int) -> ViewOperation:
    """A square of zeros, its centre anywhere in the image (DeVries, Taylor, 2017). Images of any dtype.

    >>> cutout(8)
    cutout(size=8)
    """
    return _operation(settings.Cutout, op="cutout", size=size)


def random_erasing(
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: int = 0,
) -> ViewOperation:
    """A random box filled with `value` with probability `p` (Zhong et al., 2020). uint8 images.

    >>> random_erasing(p=0.25).settings.p
    0.25
    """
    return _operation(settings.RandomErasing, op="random-erasing", p=p, scale=scale, ratio=ratio, value=value)


def mixup(alpha: float = 0.2, p: float = 1.0) -> ViewOperation:
    """With probability `p` a weighted mean of two samples and of their labels (Zhang et al., 2018). uint8 images.

    The partner is a function of (seed, index, view), so that the teacher saw the mixed image.

    >>> mixup(0.4)
    mixup(alpha=0.4, p=1.0)
    """
    return _operation(settings.Mixup, op="mixup", alpha=alpha, p=p)


def cutmix(alpha: float = 1.0, p: float = 1.0) -> ViewOperation:
    """With probability `p` a box from another sample, and as much of its label (Yun et al., 2019). Images of any dtype.

    The partner and the box are functions of (seed, index, view), so that the teacher saw the mixed image.

    >>> cutmix()
    cutmix(alpha=1.0, p=1.0)
    """
    return _operation(settings.CutMix, op="cutmix", alpha=alpha, p=p)


def _operation(kind: type[settings.Operation], **values: Any) -> ViewOperation:
    """Raises ValueError where a value is out of range."""
    return ViewOperation(kind(**values))


def _stacks(images: list[Any]) -> list[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Images of one shape and dtype as one array (B, C, H, W), with their places."""
    arrays = [_channels_first(image) for image in images]
    kinds: dict[Any, list[int]] = {}
    for place, array in enumerate(arrays):
        kinds.setdefault((array.shape, array.dtype.str), []).append(place)
    return [(np.array(places), np.stack([arrays[place] for place in places])) for places in kinds.values()]


def _channels_first(image: Any) -> NDArray[Any]:
    if not hasattr(image, "__array__") and not hasattr(image, "__array_interface__"):
        raise DataError(
            f"decant.views: its operations work on images (C, H, W), found {type(image).__name__}"
        )
    array = np.asarray(image)
    if hasattr(image, "getbands"):  # of PIL, whose array is (H, W) or (H, W, C)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return array


def _put(results: list[Any], places: NDArray[np.intp], stack: Any) -> None:
    tensors = torch.from_numpy(np.ascontiguousarray(stack))
    for place, tensor in zip(places.tolist(), tensors, strict=True):
        results[place] = tensor
