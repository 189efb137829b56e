"""A student that would see other pixels than its teacher did stops at the first, whatever has changed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from decant.cache import MismatchError, Store
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.views import geometry
from tests.helpers.small import CPU, build_cache, recipe

LEVELS = 3


def brighten(image: torch.Tensor) -> torch.Tensor:
    """An augmentation of one's own: brighter by a random number of levels."""
    return (image.int() + int(torch.randint(LEVELS, (1,)))).clamp(0, 255).to(torch.uint8)


OWN = ("views.count=2", f'views.augment=[{{op="transform", name="{__name__}:brighten"}}]')
TURNED = ("views.count=2", 'views.augment=[{op="transform", name="torchvision:RandomRotation", degrees=20}]')
SHIFTED = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


def train(folder: Path, *options: str, check: Any = "sample") -> None:
    one_epoch = (*options, "student.epochs=1", "student.baseline=false")
    list(
        train_students(
            Plan.of(recipe(*one_epoch), folder / "runs", Store(folder / "caches")), CPU, check_inputs=check
        )
    )


@pytest.mark.parametrize("options", [OWN, TURNED, SHIFTED])
def test_unchanged_every_input_is_what_the_teacher_saw(tmp_path: Path, options: tuple[str, ...]) -> None:
    build_cache(tmp_path, *options)
    train(tmp_path, *options, check="all")


def test_a_changed_parameter_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cache(tmp_path, *OWN)
    monkeypatch.setitem(globals(), "LEVELS", 4)
    with pytest.raises(MismatchError, match="is not what the teacher saw"):
        train(tmp_path, *OWN)


def test_a_changed_function_of_a_library_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cache(tmp_path, *TURNED)
    drawn = v2.RandomRotation.make_params

    def other(self: v2.RandomRotation, inputs: list[Any]) -> dict[str, Any]:
        return {"angle": drawn(self, inputs)["angle"] + 1}

    monkeypatch.setattr(v2.RandomRotation, "make_params", other)
    with pytest.raises(MismatchError, match="the transform has changed"):
        train(tmp_path, *TURNED)


def test_a_changed_function_of_our_own_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_cache(tmp_path, *SHIFTED)
    pad_crop = geometry.pad_crop
    monkeypatch.setattr(
        geometry, "pad_crop", lambda images, padding, top, left: pad_crop(images, padding, left, top)
    )
    with pytest.raises(MismatchError, match="the transform has changed"):
        train(tmp_path, *SHIFTED)


@pytest.mark.parametrize(("check", "caught"), [("all", True), ("off", False)])
def test_one_changed_pixel_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, caught: bool
) -> None:
    """Of one image, as it is read: the digest of the data was taken of the right one."""
    build_cache(tmp_path, *SHIFTED)
    raw = ArrayData.raw

    def misread(data: ArrayData, indices: NDArray[np.integer]) -> NDArray[Any]:
        images = raw(data, indices)
        images[indices == 700, 0, 4, 4] ^= 1
        return images

    monkeypatch.setattr(ArrayData, "raw", misread)
    if caught:
        with pytest.raises(MismatchError, match=r"sample 700, view 0(.|\n)*1 of these [\d,]+ inputs differ"):
            train(tmp_path, *SHIFTED, check=check)
    else:
        train(tmp_path, *SHIFTED, check=check)
