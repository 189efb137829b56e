"""Weights that users bring: what fits is loaded whatever its layout, what does not is refused by name, and all or
nothing is taken.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights import load_foreign_weights
from decant.pipeline.networks.weights import save_weights, weights_sha256
from tests.networks.test_weights import network, same


def refusal(module: nn.Module, path: Path, **options: Any) -> str:
    """What loading says; the module must be untouched."""
    before = weights_sha256(module.state_dict())
    with pytest.raises(WeightsError) as caught:
        load_foreign_weights(module, path, **options)
    assert weights_sha256(module.state_dict()) == before, "a refused file has changed the network"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


# Loading what others have published

WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "as it is": lambda state: state,
    "under state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "under model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "under model_state_dict": lambda state: {"model_state_dict": state},
    "under net": lambda state: {"net": state, "acc": 71.3},
    "with the options of its script": lambda state: {"opt": argparse.Namespace(lr=0.1), "model": state},
    "from DataParallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "compiled from DataParallel": lambda state: {f"module._orig_mod.{n}": t for n, t in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_published_checkpoint_fits_the_body_and_leaves_the_preprocessing(
    tmp_path: Path, wrapping: str, suffix: str
) -> None:
    published, loaded = network(1), network(2)
    loaded.preprocess.mean.fill_(0.125)
    path = tmp_path / f"published{suffix}"
    torch.save(WRAPPINGS[wrapping](published.body.state_dict()), path)
    load_foreign_weights(loaded, path)
    assert same(published.body, loaded.body)
    assert loaded.preprocess.mean.item() == 0.125


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_checkpoint_of_a_whole_network_brings_its_preprocessing(tmp_path: Path, wrapping: str) -> None:
    published, loaded = network(1), network(2)
    published.preprocess.mean.fill_(0.125)
    torch.save(WRAPPINGS[wrapping](published.state_dict()), tmp_path / "a.pth")
    load_foreign_weights(loaded, tmp_path / "a.pth")
    assert same(published, loaded)


def test_a_compiled_body_inside_a_network_fits(tmp_path: Path) -> None:
    published, loaded = network(1), network(2)
    state = {name.replace("body.", "body._orig_mod."): t for name, t in published.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    load_foreign_weights(loaded, tmp_path / "a.pth")
    assert same(published, loaded)


def test_a_safetensors_file_of_the_body_alone_fits(tmp_path: Path) -> None:
    published, loaded = network(1), network(2)
    save_weights(tmp_path / "a.safetensors", published.body, {})
    load_foreign_weights(loaded, tmp_path / "a.safetensors")
    assert same(published, loaded)


def test_checkpoints_from_before_batch_counters_fit(tmp_path: Path) -> None:
    published, loaded = network(1), network(2)
    state = {n: t for n, t in published.body.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth")
    load_foreign_weights(loaded, tmp_path / "a.pth")
    assert same(published, loaded)


# What is refused


def test_other_classes_are_said_plainly(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", network(num_classes=100), {})
    said = refusal(network(num_classes=10), tmp_path / "a.safetensors")
    assert "has 100 classes, the data has 10" in said
    assert "body.11.weight is (100, 16), expected (10, 16)" in said


def test_another_width_names_three_tensors_and_counts_the_rest(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", network(width=8), {})
    said = refusal(network(width=4), tmp_path / "a.safetensors")
    assert "body.0.weight is (8, 1, 3, 3), expected (4, 1, 3, 3)" in said
    assert said.count("expected") == 3
    assert said.endswith("more")
    assert "classes" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("body.0.weight"), "body.0.weight is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra is unexpected"),
    ],
)
def test_missing_and_unexpected_tensors_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    state = network(1).state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pth")
    assert said in refusal(network(2), tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.onnx"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    assert "no such weights file" in refusal(network(), tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02 cut short", b"text"])
@pytest.mark.parametrize(
    ("name", "said"),
    [("a.safetensors", "not a readable safetensors file"), ("a.pth", "not a readable torch file")],
)
def test_a_file_that_is_no_weights_is_said_to_be_unreadable(
    tmp_path: Path, name: str, said: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(network(), tmp_path / name)


def test_a_truncated_file_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(), {})
    path.write_bytes(path.read_bytes()[:-1])
    assert "not a readable safetensors file" in refusal(network(), path)


class Trap:
    """Unpickled in earnest, this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "a.pth")
    assert "mkdir, and unpickling that could run code" in refusal(network(), tmp_path / "a.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "a.pth")
    assert "save its state dict alone" in refusal(network(), tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("found", "said"),
    [({"epoch": 3, "acc": 1.0}, "found epoch, acc"), ([1, 2], "found list"), ({}, "found nothing")],
)
def test_a_checkpoint_without_a_state_dict_says_what_it_has(tmp_path: Path, found: Any, said: str) -> None:
    torch.save(found, tmp_path / "a.pth")
    assert f"holds no state dict; {said}" in refusal(network(), tmp_path / "a.pth")
