"""Checkpoints that the libraries themselves write; where one is not installed, its tests are skipped and say so."""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights import load_foreign_weights
from decant.pipeline.networks.preprocess import Network, Preprocess
from tests.helpers.extras import needing
from tests.networks.test_checkpoint_layouts import STATE, Tiny, differing, loaded, ours, tiny
from tests.networks.test_foreign_weights import refusal

BATCHES = DataLoader(TensorDataset(torch.rand(8, 3, 9, 9), torch.arange(8) % 3), batch_size=4)


def library(name: str) -> Any:
    """A library, which not every installation has."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return pytest.skip(f"{name} is not installed")


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Its tensors now."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


# Lightning


def fitted(folder: Path, network: Tiny, **trainer: Any) -> tuple[Any, Any]:
    """A module of Lightning's around `network` after an epoch, and its trainer."""
    lightning = library("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1, "folder": folder})
            self.model = network

        def training_step(self, batch: Any) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    made, quiet = Module(), {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of = lightning.Trainer(
            max_epochs=2, accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **trainer
        )
        trainer_of.fit(made, BATCHES)
    return made, trainer_of


@needing("lightning")
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_of_lightning_loads(weights_only: bool, tmp_path: Path) -> None:
    network = tiny(1)
    _, trainer = fitted(tmp_path, network, enable_checkpointing=False)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=weights_only)
    assert loaded(tmp_path / "last.ckpt", state_of(network)).notes == ()


@needing("lightning")
def test_averages_of_lightning_are_preferred_to_what_was_trained(tmp_path: Path) -> None:
    callbacks = library("lightning.pytorch.callbacks")
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("this lightning has no EMAWeightAveraging")
    network, average = tiny(1), callbacks.EMAWeightAveraging(decay=0.5)
    fitted(
        tmp_path, network, callbacks=[average, callbacks.ModelCheckpoint(dirpath=tmp_path, filename="ema")]
    )
    path = tmp_path / "ema.ckpt"
    content = torch.load(path, weights_only=False)
    averages = {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}
    raw = {name.removeprefix("model."): tensor for name, tensor in content["current_model_state"].items()}
    assert any(not torch.equal(averages[name], raw[name]) for name in raw)
    assert 'took the averaged, under "state_dict.model"' in loaded(path, averages).notes[0]
    loaded(path, raw, key="current_model_state.model")


# Accelerate


@needing("accelerate")
@pytest.mark.parametrize("form", ["state", "model", "model in shards", "without safetensors"])
def test_what_accelerate_saves_loads(form: str, tmp_path: Path) -> None:
    accelerate = library("accelerate")
    accelerator, network = accelerate.Accelerator(cpu=True), tiny(1)
    optimizer = torch.optim.AdamW(network.parameters())
    prepared, optimizer = accelerator.prepare(network, optimizer)
    if form == "state":
        accelerator.save_state(str(tmp_path / "made"))
    else:
        size = "1KB" if form == "model in shards" else "1GB"
        accelerator.save_model(
            prepared, str(tmp_path / "made"), max_shard_size=size, safe_serialization="without" not in form
        )
    assert loaded(tmp_path / "made", state_of(network)).notes == ()
    if form == "model in shards":
        assert len(list((tmp_path / "made").glob("model-*.safetensors"))) > 1


# timm


@needing("timm")
def test_what_timms_saver_writes_loads_and_its_average_is_preferred(tmp_path: Path) -> None:
    timm, helpers = library("timm"), library("timm.utils")
    given = timm.create_model("resnet10t", num_classes=3)
    average = helpers.ModelEmaV3(given, decay=0.5)
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.add_(1)
    saver = helpers.CheckpointSaver(
        given,
        torch.optim.SGD(given.parameters(), lr=0.1),
        args=None,
        model_ema=average,
        checkpoint_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=0.5)
    body = timm.create_model("resnet10t", num_classes=3)
    network = Network(Preprocess([0.5] * 3, [0.5] * 3), body)
    (note,) = load_foreign_weights(network, tmp_path / "last.pth.tar").notes
    assert 'took the averaged, under "state_dict_ema"' in note
    assert differing(body, state_of(average.module)) == []
    assert not load_foreign_weights(network, tmp_path / "last.pth.tar", key="state_dict").notes
    assert differing(body, state_of(given)) == []


@needing("timm")
def test_a_network_of_timms_in_a_folder_of_the_hub_loads_and_gets_a_new_last_layer(tmp_path: Path) -> None:
    timm, hub = library("timm"), library("timm.models")
    given = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32, depth=2)
    hub.save_for_hf(given, str(tmp_path / "hub"), safe_serialization=True)
    body = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=2)
    network = Network(Preprocess([0.5] * 3, [0.5] * 3), body)
    assert "it has 7 classes, the data has 3" in refusal(network, tmp_path / "hub", num_classes=3)
    (note,) = load_foreign_weights(network, tmp_path / "hub", num_classes=3, new_head=True).notes
    assert "body.head: a new last layer, from 7 to 3 classes" in note
    assert torch.equal(body.patch_embed.proj.weight, given.patch_embed.proj.weight)


# transformers, huggingface_hub, torch.distributed


def test_a_checkpoint_of_transformers_loads_or_says_that_the_library_renames_tensors(tmp_path: Path) -> None:
    transformers = library("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)
    given, body = (transformers.ViTForImageClassification(config) for _ in range(2))
    given.half().save_pretrained(tmp_path / "checkpoint-3")
    torch.save({"state": {}}, tmp_path / "checkpoint-3/optimizer.pt")
    torch.save(config, tmp_path / "checkpoint-3/training_args.bin")
    network = Network(Preprocess([0.5] * 3, [0.5] * 3), body)
    try:
        load_foreign_weights(network, tmp_path / "checkpoint-3")
    except WeightsError as error:
        assert "have your function load it, with from_pretrained(FOLDER)" in str(error)  # noqa: PT017
        body = transformers.ViTForImageClassification.from_pretrained(tmp_path / "checkpoint-3")
    assert differing(body.half(), state_of(given)) == []


def test_shards_of_the_hubs_own_splitter_load(tmp_path: Path) -> None:
    hub = library("huggingface_hub")
    if not hasattr(hub, "save_torch_state_dict"):
        pytest.skip("this huggingface_hub has no save_torch_state_dict")
    hub.save_torch_state_dict(dict(STATE), tmp_path, max_shard_size=600)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert loaded(tmp_path).notes == ()


def test_a_folder_of_distributed_checkpoint_is_called_what_it_is(tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save({"model": dict(STATE)}, checkpoint_id=tmp_path / "dcp")
    said = refusal(ours(), tmp_path / "dcp")
    assert (
        "a distributed checkpoint of torch; run: python -m torch.distributed.checkpoint.format_utils" in said
    )
