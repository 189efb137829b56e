"""The checkpoints that real training scripts write: each is made as its library does, and loads."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from decant.pipeline.networks.foreign_weights import LoadedWeights, load_foreign_weights
from decant.pipeline.networks.preprocess import Network, Preprocess
from decant.pipeline.networks.text import TextNetwork
from tests.networks.test_foreign_weights import refusal

State = dict[str, Tensor]


class Tiny(nn.Module):
    """A network with inner modules, batch norm and a last layer, small enough for many tests."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.fc = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.conv1(images))).mean((2, 3)))


def tiny(seed: int, num_classes: int = 3) -> Tiny:
    torch.manual_seed(seed)
    network = Tiny(num_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features)
    return network


def ours(seed: int = 9, num_classes: int = 3) -> Network:
    return Network(Preprocess([0.5] * 3, [0.5] * 3), tiny(seed, num_classes))


RIGHT, OTHER = tiny(1), tiny(2)
STATE: State = dict(RIGHT.state_dict())


def put(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def differing(network: nn.Module, state: State) -> list[str]:
    """Names under which the network has not the tensors of `state`."""
    own = network.state_dict()
    assert own.keys() == state.keys()
    return [name for name in state if not torch.equal(own[name], state[name].to(own[name].dtype))]


def loaded(path: Path, state: State | None = None, **options: Any) -> LoadedWeights:
    """Loads a file, in which `state` must have been found."""
    network = ours()
    made = load_foreign_weights(network, path, **options)
    assert differing(network.body, STATE if state is None else state) == []
    return made


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def averaged() -> AveragedModel:
    """RIGHT, as the average of some steps, in torch's own class."""
    model = AveragedModel(RIGHT, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(3):
        model.update_parameters(RIGHT)
    model.module.load_state_dict(STATE)
    return model


ARGS = argparse.Namespace(model="tiny", lr=0.1, output_dir=pathlib.PurePosixPath("out"), seed=np.int64(3))
MOMENTUM = {
    "state": {0: {"momentum_buffer": torch.ones(4, 3, 3, 3)}, 1: {"momentum_buffer": torch.ones(4)}},
    "param_groups": [{"lr": 0.1, "params": [0, 1]}],
}
LAYOUTS: dict[str, Callable[[], object]] = {
    "RepDistiller": lambda: {"epoch": 3, "model": STATE, "accuracy": torch.tensor(71.0), "optimizer": MOMENTUM},
    "mdistiller's teachers": lambda: {"model": STATE},
    "mdistiller's best": lambda: {"model": put(STATE, "module.student."), "best_acc": np.float64(70.1), "epoch": 3},
    "DeiT": lambda: {"model": STATE},
    "PyTorch's ImageNet example": lambda: {
        "epoch": 90,
        "arch": "tiny",
        "state_dict": put(STATE, "module."),
        "best_acc1": torch.tensor(70.1),
        "optimizer": MOMENTUM,
        "scheduler": {},
    },
    "Lightning": lambda: {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": put(STATE, "model."),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "x.ckpt", "kth_best_model": {}}},
        "optimizer_states": [MOMENTUM],
        "lr_schedulers": [{"base_lrs": [0.1], "last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "steps": (1, 2)},
    },
    "DeepSpeed, consolidated": lambda: {"module": STATE, "ds_version": "0.14", "dp_world_size": 2, "optimizer": None},
    "DeepSpeed's mp_rank_00_model_states.pt": lambda: {
        "module": STATE,
        "buffer_names": ["layer1.1.running_mean"],
        "optimizer": None,
        "param_shapes": [collections.OrderedDict((name, tensor.shape) for name, tensor in STATE.items())],
        "frozen_param_shapes": None,
        "sparse_tensor_module_names": set(),
        "ds_config": {"zero_optimization": {"stage": 2}},
        "ds_version": "0.15.1",
    },
    "a head under another name": lambda: {"state_dict": {n.replace("fc.", "classifier."): STATE[n] for n in STATE}},
    "torch.compile of DistributedDataParallel": lambda: put(STATE, "module._orig_mod."),
    "FSDP": lambda: {"model": {name.replace("layer1.", "layer1._fsdp_wrapped_module."): STATE[name] for name in STATE}},
    "torch.compile": lambda: torch.compile(RIGHT).state_dict(),
    "torch.compile of DataParallel": lambda: put(STATE, "_orig_mod.module."),
    "DataParallel": lambda: nn.DataParallel(RIGHT).state_dict(),
    "DataParallel of inner modules": lambda: {
        "state_dict": {re.sub(r"(layer.)", r"\1.module", name): tensor for name, tensor in STATE.items()}
    },
    "activation checkpoints": lambda: {
        name.replace("layer1.", "layer1._checkpoint_wrapped_module."): STATE[name] for name in STATE
    },
    "a wrapper of one's own": lambda: {"net": {"weights": put(STATE, "my.wrapper.of.my.own.")}},
    "a backbone and a head": lambda: {"model": {**put({n: STATE[n] for n in STATE if "fc" not in n}, "backbone."),
                                                **{n: STATE[n] for n in STATE if "fc" in n}}},
    "a dict for each part": lambda: {
        part: {n.removeprefix(f"{part}."): STATE[n] for n in STATE if n.startswith(f"{part}.")}
        for part in ("conv1", "layer1", "layer2", "fc")
    },
    "(state dict, epoch)": lambda: (STATE, 3),
    "a list of names and tensors": lambda: list(STATE.items()),
    "an AveragedModel alone": lambda: averaged().state_dict(),
    "a defaultdict, a deque, a Path and a date beside it": lambda: {
        "model": collections.OrderedDict(STATE),
        "log": collections.defaultdict(list, {"loss": [1.0]}),
        "last": collections.deque([1, 2], maxlen=2),
        "path": pathlib.PureWindowsPath("c:/out"),
        "when": datetime.datetime(2024, 1, 2),
        "best": np.float32(3.0),
        "history": np.arange(4.0),
        "args": ARGS,
        "torch": torch.__version__,
        "sizes": [torch.Size([3]), torch.device("cpu"), torch.float16, {1, 2}, frozenset({3})],
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch.compile, about torch's own code
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_each_layout_loads_and_nothing_is_left_to_say(
    layout: str, legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(LAYOUTS[layout](), path, _use_new_zipfile_serialization=not legacy)
    assert loaded(path).notes == ()


# Averaged weights beside raw ones

EMA: dict[str, tuple[Callable[[], object], str, str]] = {
    "torchvision's references": (
        lambda: {
            "model": OTHER.state_dict(),
            "model_ema": averaged().state_dict(),
            "optimizer": MOMENTUM,
            "lr_scheduler": {"last_epoch": 3},
            "epoch": 3,
            "args": ARGS,
        },
        "model_ema.module",
        "model",
    ),
    "timm's train.py": (
        lambda: {
            "epoch": 3,
            "arch": "tiny",
            "state_dict": OTHER.state_dict(),
            "state_dict_ema": STATE,
            "optimizer": MOMENTUM,
            "version": 2,
            "args": ARGS,
            "amp_scaler": {"scale": 1.0},
            "metric": 71.0,
        },
        "state_dict_ema",
        "state_dict",
    ),
    "DeiT, while it trains": (
        lambda: {
            "model": OTHER.state_dict(),
            "optimizer": MOMENTUM,
            "lr_scheduler": {"last_epoch": 3},
            "epoch": 3,
            "model_ema": STATE,
            "scaler": {"scale": 65536.0},
            "args": ARGS,
        },
        "model_ema",
        "model",
    ),
    "EMA of a parallel network": (
        lambda: {"state_dict": put(dict(OTHER.state_dict()), "module."), "ema": put(STATE, "module.")},
        "ema.module",
        "state_dict.module",
    ),
    "a key of one's own": (
        lambda: {"net": OTHER.state_dict(), "ema_state_dict": STATE},
        "ema_state_dict",
        "net",
    ),
    "Lightning's WeightAveraging": (
        lambda: {
            "state_dict": put(STATE, "model."),
            "current_model_state": put(dict(OTHER.state_dict()), "model."),
            "averaging_state": {"n_averaged": torch.tensor(3)},
        },
        "state_dict.model",
        "current_model_state.model",
    ),
    "a callback of Lightning": (
        lambda: {
            "state_dict": put(dict(OTHER.state_dict()), "model."),
            "callbacks": {"EMACallback": {"weights": put(STATE, "model.")}},
        },
        "callbacks.EMACallback.weights.model",
        "state_dict.model",
    ),
    "beside each other": (
        lambda: {**put(dict(OTHER.state_dict()), "online."), **put(STATE, "ema.")},
        "ema",
        "online",
    ),
}


@pytest.mark.parametrize("layout", EMA)
def test_averaged_weights_are_preferred_and_a_key_takes_the_others(layout: str, tmp_path: Path) -> None:
    make, averages, raw = EMA[layout]
    path = saved(tmp_path / "a.pth", make())
    (note, *rest) = loaded(path).notes
    assert f'took the averaged, under "{averages}"; for the others set teacher.weights_key to "{raw}"' in note
    assert all("left out" in note for note in rest), rest
    loaded(path, dict(OTHER.state_dict()), key=raw)
    assert loaded(path, key=averages)


def test_an_average_of_no_step_is_not_preferred(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": STATE, "swa_model": AveragedModel(OTHER).state_dict()})
    assert loaded(path).notes == ()


@pytest.mark.parametrize(
    "averages",
    [
        {"shadow_params": [parameter.detach() for parameter in OTHER.parameters()], "decay": 0.9},
        {name: tensor for name, tensor in OTHER.state_dict().items() if "running" not in name},
    ],
    ids=["without names", "without buffers"],
)
def test_averages_that_lack_something_are_left_out_and_that_is_said(tmp_path: Path, averages: Any) -> None:
    (note,) = loaded(saved(tmp_path / "a.pth", {"model": STATE, "ema": averages})).notes
    assert "has averaged weights under ema" in note
    assert "took the raw ones" in note


def test_equal_weights_under_two_keys_are_no_choice(tmp_path: Path) -> None:
    copied = {name: tensor.clone() for name, tensor in STATE.items()}
    assert loaded(saved(tmp_path / "a.pth", {"model": STATE, "model_ema": copied})).notes == ()


def test_weights_that_may_mean_two_things_are_refused_with_the_keys(tmp_path: Path) -> None:
    content = {"model": {**put(STATE, "student."), **put(dict(OTHER.state_dict()), "teacher.")}}
    path = saved(tmp_path / "a.pth", content)
    said = refusal(ours(), path)
    assert 'set teacher.weights_key to one of "model.student", "model.teacher"' in said
    loaded(path, key="model.student")
    loaded(path, dict(OTHER.state_dict()), key="model.teacher")


def test_the_top_is_a_key_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {**STATE, "ema": OTHER.state_dict()})
    assert 'for the others set teacher.weights_key to "."' in loaded(path, dict(OTHER.state_dict())).notes[0]
    assert loaded(path, key=".").notes == ()


def test_a_key_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": STATE, "optimizer": MOMENTUM})
    said = refusal(ours(), path, key="modle")
    assert "no tensors under modle (teacher.weights_key); they lie under model, optimizer" in said


# What a file has more or less than the network


def test_tensors_of_other_modules_are_left_out_counted_and_named(tmp_path: Path) -> None:
    state = {**put(STATE, "model."), "criterion.weight": torch.ones(3), "metric.total": torch.ones(1)}
    (note,) = loaded(saved(tmp_path / "a.ckpt", {"state_dict": state})).notes
    named = "state_dict.criterion.weight, state_dict.metric.total"
    assert note.endswith(f"2 tensors are of no layer of this network and were left out: {named}")


def test_a_larger_network_is_not_taken_for_a_smaller_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", torchvision.models.resnet34(num_classes=3).state_dict())
    network = Network(Preprocess([0.5] * 3, [0.5] * 3), torchvision.models.resnet18(num_classes=3))
    said = refusal(network, path)
    assert "layer1.2.conv1.weight is unexpected" in said
    assert said.endswith("more")


PARTS: dict[str, tuple[Callable[[], object], str]] = {
    "an optimizer": (lambda: MOMENTUM, "it has an optimizer's state alone: the weights lie in another file"),
    "LoRA": (
        lambda: {**STATE, "fc.lora_A.weight": torch.ones(2, 6), "fc.lora_B.weight": torch.ones(3, 2)},
        "it has LoRA adapters: merge them into the weights first",
    ),
    "pruning": (
        lambda: {
            **{name: tensor for name, tensor in STATE.items() if name != "fc.weight"},
            "fc.weight_orig": STATE["fc.weight"],
            "fc.weight_mask": torch.ones(3, 6),
        },
        "it has masks of pruning: make them permanent first",
    ),
    "FSDP's flat parameters": (
        lambda: {"model": {"_fsdp_wrapped_module.flat_param": torch.ones(99)}},
        "it has the flat parameters of FSDP: save a full state dict",
    ),
    "a part of ZeRO 2": (
        lambda: {
            "optimizer_state_dict": {"single_partition_of_fp32_groups": [torch.ones(99)], "zero_stage": 2}
        },
        "give what zero_to_fp32.py makes of them",
    ),
    "a part of ZeRO 3": (
        lambda: {"module": {name: torch.ones(0) for name in STATE}, "ds_version": "0.15.1"},
        "all of its tensors are empty, as in a part of a DeepSpeed ZeRO 3 run",
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_file_of_a_part_says_what_it_is(part: str, tmp_path: Path) -> None:
    make, says = PARTS[part]
    assert says in refusal(ours(), saved(tmp_path / "a.pth", make()))


def test_the_output_of_zero_to_fp32_loads(tmp_path: Path) -> None:
    for shards in (1, 3):
        write_bin(tmp_path / str(shards), STATE, shards)
        assert loaded(tmp_path / str(shards)).notes == ()


def test_another_network_is_refused_with_the_names_of_both(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.pth", {"state_dict": torchvision.models.squeezenet1_1().state_dict(), "arch": "squeeze"}
    )
    said = refusal(ours(), path)
    assert "0 of the network's 20 tensors are in it by name and shape" in said
    assert "the file has features.0.weight (64, 3, 3, 3), " in said
    assert "the network has conv1.weight (4, 3, 3, 3), layer1.0.weight (5, 4, 3, 3), " in said
    assert "tried names under state_dict" in said
    assert said.endswith("the file says that it is of squeeze")


def test_another_number_of_classes_is_refused_or_begins_a_new_last_layer(tmp_path: Path) -> None:
    of_imagenet = dict(tiny(1, 1000).state_dict())
    path = saved(tmp_path / "a.pth", {"state_dict": put(of_imagenet, "module.")})
    said = refusal(ours(), path, num_classes=3)
    assert "it has 1,000 classes, the data has 3" in said
    assert "set teacher.epochs to train a new last layer" in said
    network, fresh = ours(), ours()
    (note,) = load_foreign_weights(network, path, num_classes=3, new_head=True).notes
    assert "body.fc: a new last layer, from 1,000 to 3 classes" in note
    assert set(differing(network.body, of_imagenet)) == {"fc.weight", "fc.bias"}
    assert torch.equal(network.body.fc.weight, fresh.body.fc.weight), "as it was drawn"


@pytest.mark.parametrize(
    "more", [{}, {"head.weight": torch.ones(7, 6), "head.bias": torch.ones(7)}], ids=["none", "another"]
)
def test_a_file_without_this_last_layer_is_refused_or_begins_one(tmp_path: Path, more: State) -> None:
    state = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}
    path = saved(tmp_path / "a.pth", {**state, **more})
    refused = refusal(ours(), path, num_classes=3)
    assert "no last layer for the 3 classes of the data; body.fc.weight is missing" in refused
    network = ours()
    notes = load_foreign_weights(network, path, num_classes=3, new_head=True).notes
    assert "body.fc: a new last layer, from none in the file to 3 classes" in notes[-1]
    assert len(notes) == (2 if more else 1)
    assert set(differing(network.body, STATE)) == {"fc.weight", "fc.bias"}


def test_a_layer_in_the_middle_is_no_last_layer(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in STATE.items() if not name.startswith("layer1.")}
    assert "body.layer1.0.weight is missing" in refusal(
        ours(), saved(tmp_path / "a.pth", state), new_head=True
    )


def test_a_layer_with_as_many_outputs_as_classes_is_no_last_layer_before_others(tmp_path: Path) -> None:
    network = nn.Sequential(collections.OrderedDict(first=nn.Linear(4, 3), last=nn.Linear(3, 3)))
    state = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("last.")}
    path = saved(tmp_path / "a.pth", {"model": state, "epoch": 3})
    assert "first.weight is missing" in refusal(network, path, num_classes=3, new_head=True)


def test_the_normalisation_of_other_channels_is_no_last_layer(tmp_path: Path) -> None:
    grey = {
        name: tensor[:1] if "preprocess" in name else tensor for name, tensor in ours().state_dict().items()
    }
    said = refusal(ours(), saved(tmp_path / "a.pth", grey), num_classes=3, new_head=True)
    assert "preprocess.mean is (1,), expected (3,)" in said


def test_a_layer_is_not_taken_from_another_network_of_the_file(tmp_path: Path) -> None:
    student = {name: tensor for name, tensor in STATE.items() if not name.startswith("layer2.0.")}
    teacher = {name: tensor for name, tensor in OTHER.state_dict().items() if name.startswith("layer2.0.")}
    path = saved(tmp_path / "a.pth", {**put(student, "student."), **put(teacher, "teacher.")})
    assert "layer2.0.weight is missing" in refusal(tiny(3), path)


def test_of_two_layers_that_may_be_meant_none_is_taken(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in STATE.items() if not name.startswith("layer2.0.")}
    for inner in ("a", "b"):
        state |= {
            f"layer2.{inner}.0.weight": STATE["layer2.0.weight"],
            f"layer2.{inner}.0.bias": STATE["layer2.0.bias"],
        }
    said = refusal(ours(), saved(tmp_path / "a.pth", {"model": state}))
    assert "does not fit this network" in said
    assert "layer2." in said


def test_names_of_older_releases_are_known(tmp_path: Path) -> None:
    network = torchvision.models.densenet121(num_classes=2)
    old = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
        for name, tensor in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    torch.manual_seed(5)
    fresh = Network(Preprocess([0.5] * 3, [0.5] * 3), torchvision.models.densenet121(num_classes=2))
    load_foreign_weights(fresh, saved(tmp_path / "a.pth", old))
    assert differing(fresh.body, dict(network.state_dict())) == []


def test_one_layer_is_found_by_its_shape_and_not_beside_others(tmp_path: Path) -> None:
    network = Network(Preprocess([0.0], [1.0]), nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    layer = nn.Linear(4, 3)
    load_foreign_weights(network, saved(tmp_path / "a.pth", put(dict(layer.state_dict()), "fc.")))
    assert torch.equal(network.body[1].weight, layer.weight)
    more = {**put(dict(layer.state_dict()), "fc."), "conv.weight": torch.ones(3, 3)}
    assert "conv.weight is unexpected" in refusal(network, saved(tmp_path / "b.pth", more))


# transformers and Accelerate


def bert(seed: int, classes: int = 3) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 40,
    }
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, num_labels=classes))


@pytest.mark.parametrize(
    "form", ["safetensors", "sharded", "bin", "sharded bin", "file of the folder", "index", "Accelerate"]
)
def test_what_transformers_saves_loads(form: str, tmp_path: Path) -> None:
    given, network = bert(1), TextNetwork(bert(2))
    path = tmp_path / "checkpoint"
    if form.endswith("bin"):
        write_bin(path, dict(given.state_dict()), shards=3 if form.startswith("sharded") else 1)
    else:
        given.save_pretrained(path, max_shard_size="10KB" if form in ("sharded", "index") else "1GB")
    if form in ("sharded", "index"):
        assert len(list(path.glob("model-*.safetensors"))) > 1
    if form == "Accelerate":
        torch.save(MOMENTUM, path / "optimizer.bin")
        torch.save({"last_epoch": 3}, path / "scheduler.bin")
        torch.save({"step": 3}, path / "random_states_0.pkl")
    inner = {"file of the folder": "model.safetensors", "index": "model.safetensors.index.json"}.get(form)
    assert load_foreign_weights(network, path / inner if inner else path).notes == ()
    assert differing(network.body, dict(given.state_dict())) == []


def write_bin(folder: Path, state: State, shards: int) -> None:
    """As transformers wrote before safetensors: pytorch_model.bin, or shards of it with an index."""
    folder.mkdir()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map = {
        name: f"pytorch_model-{1 + place % shards:05}-of-{shards:05}.bin" for place, name in enumerate(state)
    }
    for file in set(weight_map.values()):
        torch.save(
            {name: tensor for name, tensor in state.items() if weight_map[name] == file}, folder / file
        )
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_language_model_gives_its_body_and_begins_a_new_last_layer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = TextNetwork(bert(2))
    masked = transformers.BertForPreTraining(bert(1).config)
    masked.save_pretrained(tmp_path / "lm")
    notes = load_foreign_weights(network, tmp_path / "lm", num_classes=3, new_head=True).notes
    assert any("cls.predictions" in note and "left out" in note for note in notes), notes
    assert any("body.classifier: a new last layer" in note for note in notes), notes
    assert torch.equal(network.body.bert.pooler.dense.weight, masked.bert.pooler.dense.weight)
