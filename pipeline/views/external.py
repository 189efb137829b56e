"""Transforms that use the global random generators: run on one image at a time, with seeds from the hash."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from decant.pipeline.config.augmentations import RandAugment, Transform, TrivialAugment
from decant.pipeline.errors import DataError, RecipeError, nearest
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import Plugin, in_words
from decant.pipeline.views.arrays import Images
from decant.pipeline.views.generators import generators_kept, seed_generators
from decant.pipeline.views.hashing import Bits

Function = Callable[[torch.Tensor], torch.Tensor]
"""(C, H, W) uint8 → (C, H', W') uint8, both on the CPU."""


def apply_transform(images: Images, bits: Bits, settings: Transform) -> Images:
    """`transform`: the function or class that `name` stands for, with the arguments written beside it."""
    return _apply_named(settings.name, settings.args, images, bits)


def apply_rand_augment(images: Images, bits: Bits, settings: RandAugment) -> Images:
    """`rand-augment`: torchvision's."""
    args = {"num_ops": settings.num_ops, "magnitude": settings.magnitude}
    return _apply_named("torchvision:RandAugment", args, images, bits)


def apply_trivial_augment(images: Images, bits: Bits, settings: TrivialAugment) -> Images:
    """`trivial-augment`: torchvision's TrivialAugmentWide."""
    return _apply_named("torchvision:TrivialAugmentWide", {}, images, bits)


def _apply_named(name: str, args: dict[str, Any], images: Images, bits: Bits) -> Images:
    return seeded(resolve(name, args), images, bits, name)


def seeded(function: Function, images: Images, bits: Bits, name: str) -> Images:
    """`function` on each image (B, C, H, W) uint8, its seeds from bits (B, 16): (B, C', H', W') uint8.

    torch's generator of the CPU, NumPy's global one and Python's are seeded before each image, and afterwards
    restored, also after an error. A transform that uses other generators, or keeps state between images, is not
    repeatable. Raises DataError, naming the transform by `name`, where it fails or gives anything else.
    """
    if not len(images):
        return images
    on_cpu = torch.from_numpy(images.copy()) if isinstance(images, np.ndarray) else images.cpu().clone()
    with generators_kept():
        results = [_one(function, image, row, name) for image, row in zip(on_cpu, bits.tolist(), strict=True)]
    for result in results:
        if result.shape != results[0].shape:
            raise DataError(
                f"views.augment: {name}: must give images of one shape, gave {tuple(results[0].shape)} and "
                f"{tuple(result.shape)}"
            )
    stacked = torch.stack(results)
    return stacked.numpy() if isinstance(images, np.ndarray) else stacked.to(images.device)


def resolve(name: str, args: dict[str, Any]) -> Function:
    """What `torchvision:NAME` or `package.module:callable` stands for: a class is built with `args`, a function
    is called with the image and `args`.

    The names of torchvision are those of its transforms.v2. Raises RecipeError where there is no such transform,
    or it does not take `args`. A class that draws random numbers when it is built draws the same ones each time.
    """
    plugin = Plugin(name, f"views.augment: {name}", RecipeError)
    transform = _of_torchvision(plugin) if name.startswith("torchvision:") else plugin.load()
    if not isinstance(transform, type):
        plugin.check_arguments(transform, "image", **args)
        return partial(transform, **args)
    plugin.check_arguments(transform, **args)
    try:
        with generators_kept():
            seed_generators([0, 0, 0])
            return transform(**args)
    except RAISED as error:  # a constructor may raise anything
        raise plugin.wrong_arguments(error, **args) from error


def _one(function: Function, image: torch.Tensor, bits: list[int], name: str) -> torch.Tensor:
    seed_generators(bits)
    try:
        result = function(image)
    except RAISED as error:  # the user's code may raise anything
        raise DataError(
            f"views.augment: {name}: failed on an image {tuple(image.shape)} ({in_words(error)})"
        ) from error
    if isinstance(result, torch.Tensor) and result.dtype == torch.uint8 and result.ndim == 3:
        return result
    found = type(result).__name__
    if isinstance(result, torch.Tensor):
        found = f"{result.dtype} {tuple(result.shape)}"
    raise DataError(f"views.augment: {name}: must give a uint8 tensor (C, H, W), gave {found}")


def _of_torchvision(plugin: Plugin) -> type[Any]:
    from torchvision.transforms import v2

    name = plugin.name.removeprefix("torchvision:")
    known = {
        key: value
        for key, value in vars(v2).items()
        if isinstance(value, type) and issubclass(value, v2.Transform)
    }
    if name not in known:
        raise plugin.refusal(f"torchvision has no such transform; {nearest(name, known)}")
    return known[name]
