"""Weights of runs on disk: what is saved comes back, and nothing is left half done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights import load_foreign_weights
from decant.pipeline.networks.preprocess import Network
from decant.pipeline.networks.registry import build_by_name
from decant.pipeline.networks.weights import load_weights, save_weights, weights_sha256


def metadata_of(path: Path) -> dict[str, str]:
    """What stands in the header of a safetensors file beside its tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def network(seed: int = 0, num_classes: int = 10, width: int = 4) -> Network:
    torch.manual_seed(seed)
    return build_by_name("conv", num_classes, input_shape=(1, 8, 8), mean=[0.3], std=[0.4], width=width)


def same(first: nn.Module, second: nn.Module) -> bool:
    return weights_sha256(first.state_dict()) == weights_sha256(second.state_dict())


def refusal(module: nn.Module, path: Path) -> str:
    """What loading says; the module must be untouched."""
    before = weights_sha256(module.state_dict())
    with pytest.raises(WeightsError) as caught:
        load_weights(module, path)
    assert weights_sha256(module.state_dict()) == before, "a refused file has changed the network"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


# Saving


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = network(seed=1), network(seed=2)
    assert not same(saved, loaded)
    save_weights(tmp_path / "a.safetensors", saved, {})
    load_weights(loaded, tmp_path / "a.safetensors")
    assert same(saved, loaded)


def test_metadata_is_read_as_it_was_saved(tmp_path: Path) -> None:
    metadata = {"network": "conv", "epochs": "30"}
    save_weights(tmp_path / "a.safetensors", network(), metadata)
    assert metadata_of(tmp_path / "a.safetensors") == metadata


def test_a_file_without_metadata_has_none(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert metadata_of(tmp_path / "a.safetensors") == {}


def test_saving_makes_the_folder_and_leaves_one_file_there(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.safetensors"
    for seed in (1, 2):
        save_weights(path, network(seed), {})
    assert os.listdir(path.parent) == ["a.safetensors"]


def test_a_save_that_fails_leaves_the_file_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(1), {})
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_weights(path, network(2), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_tied_and_channels_last_weights_are_saved(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        first, second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        second.weight = first.weight
        return nn.Sequential(first, second).to(memory_format=torch.channels_last)

    saved, loaded = tied(), tied()
    save_weights(tmp_path / "a.safetensors", saved, {})
    load_weights(loaded, tmp_path / "a.safetensors")
    assert same(saved, loaded)


# Loading


def test_a_network_that_asks_for_the_version_of_its_weights_is_loaded(tmp_path: Path) -> None:
    saved, loaded = (torchvision.models.mnasnet0_5(num_classes=2) for _ in range(2))
    save_weights(tmp_path / "a.safetensors", saved, {})
    load_weights(loaded, tmp_path / "a.safetensors")
    assert same(saved, loaded)
    torch.save(dict(saved.state_dict()), tmp_path / "a.pth")
    foreign = torchvision.models.mnasnet0_5(num_classes=2)
    load_foreign_weights(foreign, tmp_path / "a.pth")
    assert same(saved, foreign)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("body.0.weight"), "body.0.weight is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is unexpected"),
        (
            lambda state: state.update({"body.0.weight": torch.zeros(2)}),
            r"body.0.weight is (2,), expected (4, 1, 3, 3)",
        ),
    ],
)
def test_only_the_weights_that_were_saved_are_loaded(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    state = dict(network(1).state_dict())
    change(state)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    assert said in refusal(network(2), tmp_path / "a.safetensors")


def test_a_file_that_is_missing_or_damaged_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "no such weights file" in refusal(network(), path)
    save_weights(path, network(), {})
    path.write_bytes(path.read_bytes()[:-1])
    assert "not a readable safetensors file" in refusal(network(), path)


# The hash


def test_the_hash_is_that_of_the_bytes_as_specified() -> None:
    state = {"b": torch.tensor([1.0]), "a": torch.tensor([[1, 2]], dtype=torch.uint8)}
    stream = b'["a", "uint8", [1, 2]]\n\x01\x02["b", "float32", [1]]\n\x00\x00\x80\x3f'
    assert weights_sha256(state) == hashlib.sha256(stream).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_of_every_kind_are_hashed(dtype: torch.dtype) -> None:
    hashes = {
        weights_sha256({"a": torch.ones(shape, dtype=dtype)}) for shape in [(), (1,), (0,), (2, 3), (3, 2)]
    }
    assert len(hashes) == 5


def test_neither_order_nor_memory_format_changes_the_hash() -> None:
    state = network().state_dict()
    backwards = dict(reversed(state.items()))
    last = network().to(memory_format=torch.channels_last).state_dict()
    strided = {name: t.repeat_interleave(2, dim=0)[::2] if t.ndim else t for name, t in state.items()}
    assert {weights_sha256(s) for s in (state, backwards, last, strided)} == {weights_sha256(state)}


def test_any_change_changes_the_hash() -> None:
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2)}
    flipped = torch.tensor([1.0, 2.0])
    flipped.view(torch.int32)[1] ^= 1
    others: list[dict[str, Tensor]] = [
        state,
        {**state, "a": flipped},
        {"b": state["a"], "a": state["b"]},
        {**state, "a": state["a"].view(2, 1)},
        {**state, "a": state["a"].view(torch.int32)},
        {"a": state["a"]},
        {**state, "c": torch.zeros(0)},
    ]
    assert len({weights_sha256(other) for other in others}) == len(others)
