"""Transforms that draw from the global generators see the same draws for a view, and leave none behind."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.views.external import resolve, seeded
from tests.helpers.pixels import bits, crc32, images, operate

INPUTS = images(shape=(3, 8, 8))


def with_torch(image: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 256, image.shape, dtype=torch.uint8)


def with_numpy(image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.random.randint(0, 256, tuple(image.shape), np.uint8))  # noqa: NPY002


def with_python(image: torch.Tensor) -> torch.Tensor:
    return torch.tensor(list(random.randbytes(image.numel())), dtype=torch.uint8).reshape(image.shape)


def brighter(image: torch.Tensor, by: int = 1) -> torch.Tensor:
    return image.clamp(max=255 - by) + by


def in_place(image: torch.Tensor) -> torch.Tensor:
    return image.zero_()


def some_floats(image: torch.Tensor) -> torch.Tensor:
    return image if random.random() < 0.5 else image.float()


def some_smaller(image: torch.Tensor) -> torch.Tensor:
    return image if random.random() < 0.5 else image[:, 1:]


def to_numpy(image: torch.Tensor) -> Any:
    return image.numpy()


def one_plane(image: torch.Tensor) -> torch.Tensor:
    return image[0]


def failing(image: torch.Tensor) -> torch.Tensor:
    with_torch(image), with_numpy(image), with_python(image)
    raise ValueError("no such colour")


class Noise:
    """Draws when it is built and when it is called."""

    def __init__(self, most: int) -> None:
        self.most, self.first = most, random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image + torch.randint(0, self.most, image.shape, dtype=torch.uint8)).clamp(max=255)


HERE = f"{__name__}:"
DRAWING = [with_torch, with_numpy, with_python]


def states() -> list[Any]:
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), kind, words.tolist(), rest, random.getstate()]


@pytest.mark.parametrize(
    "function", [*DRAWING, brighter, in_place, v2.RandAugment(), v2.TrivialAugmentWide(), v2.RandomCrop(5)]
)
def test_an_image_is_the_same_in_any_batch_and_the_generators_are_left_alone(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    before = states()
    found = operate(lambda images, bits: seeded(function, images, bits, "it"), INPUTS, bits())
    assert states() == before
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    assert np.array_equal(seeded(function, INPUTS, bits(), "it"), found)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("function", DRAWING)
def test_every_image_has_seeds_of_its_own(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    found = seeded(function, INPUTS, bits(), "it")
    assert len(np.unique(found.reshape(300, -1), axis=0)) == 300
    assert not np.array_equal(found, seeded(function, INPUTS, bits(place=1), "it"))


def test_the_seeds_are_the_bits() -> None:
    given = bits(3)
    for place, row in enumerate(given.tolist()):
        torch.manual_seed(row[0] // 2)
        np.random.seed([row[1] // 2**32, row[1] % 2**32])  # noqa: NPY002
        random.seed(row[2])
        for function in DRAWING:
            expected = function(torch.from_numpy(INPUTS[place])).numpy()
            assert np.array_equal(seeded(function, INPUTS[:3], given, "it")[place], expected)


WRONG = [
    (failing, r"failed on an image \(3, 8, 8\) \(ValueError: no such colour \[test_external.py:\d+\]\)"),
    (some_floats, r"must give a uint8 tensor \(C, H, W\), gave torch.float32 \(3, 8, 8\)"),
    (one_plane, r"must give a uint8 tensor \(C, H, W\), gave torch.uint8 \(8, 8\)"),
    (to_numpy, r"must give a uint8 tensor \(C, H, W\), gave ndarray"),
    (some_smaller, r"must give images of one shape, gave \(3, [78], 8\) and \(3, [78], 8\)"),
]


@pytest.mark.parametrize(("function", "says"), WRONG)
def test_what_goes_wrong_is_told_and_the_generators_are_left_alone(function: Any, says: str) -> None:
    before = states()
    with pytest.raises(DataError, match=f"^views.augment: mine:it: {says}$"):
        seeded(function, INPUTS, bits(), "mine:it")
    assert states() == before


# By name


@pytest.mark.parametrize(
    ("name", "args", "same"),
    [
        ("torchvision:RandAugment", {"num_ops": 3, "magnitude": 12}, v2.RandAugment(3, 12)),
        ("torchvision:GaussianBlur", {"kernel_size": [3, 3]}, v2.GaussianBlur([3, 3])),
        (HERE + "brighter", {}, brighter),
        (HERE + "brighter", {"by": 7}, lambda image: brighter(image, 7)),
        (HERE + "with_numpy", {}, with_numpy),
    ],
)
def test_a_name_stands_for_a_transform_with_its_arguments_also_once_pickled(
    name: str, args: dict[str, Any], same: Any
) -> None:
    expected = seeded(same, INPUTS, bits(), name)
    assert np.array_equal(seeded(resolve(name, args), INPUTS, bits(), name), expected)
    again = pickle.loads(pickle.dumps(resolve(name, args)))
    assert np.array_equal(seeded(again, INPUTS, bits(), name), expected)


def test_a_class_is_built_from_the_same_draws_each_time_and_draws_from_no_one() -> None:
    before = states()
    found = [resolve(HERE + "Noise", {"most": 9}) for _ in range(2)]
    assert states() == before
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    found.append(resolve(HERE + "Noise", {"most": 9}))
    assert found[0].first == found[1].first == found[2].first  # type: ignore[attr-defined]
    assert seeded(found[0], INPUTS, bits(), "it").shape == INPUTS.shape


UNKNOWN = [
    ("torchvision:RandAugmnt", {}, "torchvision has no such transform; did you mean .*RandAugment"),
    ("torchvision:functional", {}, "torchvision has no such transform"),
    ("torchvision:InterpolationMode", {}, "torchvision has no such transform"),
    ("torchvision:RandAugment", {"strength": 2}, r"does not take strength = 2 \(TypeError: .*'strength'"),
    ("torchvision:RandomCrop", {}, r"does not take no arguments \(TypeError: .*'size'"),
    ("torchvision:RandomHorizontalFlip", {"p": 2.0}, r"does not take p = 2.0 \(ValueError: "),
    ("no_such_module:it", {}, r"cannot be imported \(ModuleNotFoundError: "),
    (HERE + "brigter", {}, r"module [\w.]+ has no 'brigter'; did you mean brighter"),
    (HERE + "INPUTS", {}, "INPUTS is not callable, it is of type ndarray"),
    (HERE + "brighter", {"buy": 3}, r"does not take image, buy = 3 \(TypeError: .*'buy'"),
]


@pytest.mark.parametrize(("name", "args", "says"), UNKNOWN)
def test_what_cannot_be_found_or_built_is_told(name: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=f"^views.augment: {re.escape(name)}: {says}"):
        resolve(name, args)


# For ever, and in workers


def test_a_worker_gives_the_same() -> None:
    def all_of_them(functions: list[Any]) -> list[int]:
        return [crc32(seeded(function, INPUTS, bits(), "it")) for function in functions]

    (elsewhere,) = DataLoader(
        [DRAWING], batch_size=None, collate_fn=all_of_them, num_workers=1, multiprocessing_context="fork"
    )
    assert elsewhere == all_of_them(DRAWING)


def test_draws_never_change_unnoticed() -> None:
    found = {function.__name__: crc32(seeded(function, INPUTS, bits(), "it")) for function in DRAWING}
    assert found == {"with_torch": 1_387_360_164, "with_numpy": 743_290_409, "with_python": 3_103_629_929}
