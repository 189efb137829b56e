"""Devices by name, and inputs there: as they are, images with their channels last if asked, texts name by name."""

from __future__ import annotations

import pytest
import torch

from decant.pipeline.errors import DeviceError
from decant.pipeline.training.device import pick_device, to_device

CPU = torch.device("cpu")


def test_values_stay_what_they_are() -> None:
    for inputs in (torch.arange(12).view(3, 4), torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4)):
        for channels_last in (False, True):
            assert torch.equal(to_device(inputs, CPU, channels_last), inputs)


def test_images_alone_have_their_channels_last_and_only_if_asked() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert to_device(images, CPU, channels_last=True).is_contiguous(memory_format=torch.channels_last)
    assert to_device(images, CPU).is_contiguous()
    assert to_device(images[0], CPU, channels_last=True).is_contiguous()


def test_a_dictionary_is_moved_name_by_name() -> None:
    inputs = {"input_ids": torch.arange(6).view(2, 3), "attention_mask": torch.ones(2, 3)}
    moved = to_device(inputs, torch.device("meta"), channels_last=True)
    assert list(moved) == ["input_ids", "attention_mask"]
    assert {value.device.type for value in moved.values()} == {"meta"}
    assert torch.equal(to_device(inputs, CPU)["input_ids"], inputs["input_ids"])


def test_a_device_can_be_named() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(DeviceError, match=f"--device {name}: cannot be used here"):
        pick_device(name)
