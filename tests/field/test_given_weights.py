"""What users do with weights of their own, through the real command: what fits is taken, what is wrong is refused,
what is doubtful is said once.
"""

from __future__ import annotations

import collections
import pathlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from decant.pipeline.networks.registry import build_by_name
from tests.field.conftest import Learnt, draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

TAKEN = "epochs = 0"
HEAD = "11"
"""The last layer of the network `conv`."""


def teacher(
    folder: Path, learnt: Learnt, weights: str, more: str = TAKEN, network: str = "", **env: str
) -> Any:
    """`decant teacher` with a file of weights."""
    recipe = write_recipe(folder, learnt.images, network or learnt.network, f'weights = "{weights}"\n{more}')
    return decant("teacher", "--recipe", recipe, cwd=folder, **env)


def right(done: Any) -> list[str]:
    """The warnings of a teacher that was taken and is right on every picture."""
    assert "100.00" in succeed(done), done.stdout
    return done.stderr.splitlines()


def spoilt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network, which has learnt nothing."""
    return {name: tensor + 7 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


# A pretrained teacher of other classes, taken as it is


def test_a_pretrained_network_of_other_classes_is_not_taken_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "torch/hub/checkpoints"
    kept.mkdir(parents=True)
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    torch.save(torchvision.models.squeezenet1_1().state_dict(), kept / entry.url.rpartition("/")[2])
    images = draw(tmp_path / "images", train=2, test=2)
    network = '{ name = "torchvision:squeezenet1_1", weights = "IMAGENET1K_V1" }'
    recipe = write_recipe(tmp_path, images, network, TAKEN)
    said = refused(decant("teacher", "--recipe", recipe, cwd=tmp_path, TORCH_HOME=str(tmp_path / "torch")))
    assert "its last layer is a new one, which epochs = 0 leaves untrained: the weights are of" in said
    assert "of 1,000 classes, and the data have 3; set teacher.epochs" in said
    assert not list(tmp_path.glob("runs/**/result.json"))


# A checkpoint of Lightning


@pytest.mark.parametrize("name", ["teacher.ckpt", "teacher.pth"])
def test_a_checkpoint_of_lightning_is_taken(name: str, learnt: Learnt, tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in learnt.state.items()}
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 8,
        "state_dict": state,
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, tmp_path / name)
    assert right(teacher(tmp_path, learnt, name)) == []


def test_a_loss_with_weights_beside_the_network_is_left_out_and_said_once(
    learnt: Learnt, tmp_path: Path
) -> None:
    state = {f"model.{key}": tensor for key, tensor in learnt.state.items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(3)}}, tmp_path / "a.ckpt")
    (said,) = right(teacher(tmp_path, learnt, "a.ckpt"))
    assert said.startswith("warning: a.ckpt: 1 tensor is of no layer of this network")
    assert said.endswith("left out: state_dict.loss.weight")
    again = teacher(tmp_path, learnt, "a.ckpt")
    assert "found " in succeed(again)
    assert again.stderr == "", "what is made says nothing more"


# Averaged weights

AVERAGED: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Tensor]], Any], str]] = {
    "references": (
        lambda raw, good: {
            "model": raw,
            "model_ema": {"n_averaged": torch.tensor(9), **{f"module.{name}": good[name] for name in good}},
            "args": None,
        },
        "model",
    ),
    "timm": (
        lambda raw, good: {"arch": "conv", "state_dict": raw, "state_dict_ema": good, "metric": 90.0},
        "state_dict",
    ),
}


@pytest.mark.parametrize("layout", AVERAGED)
def test_averaged_weights_are_taken_and_the_raw_ones_by_their_key(
    layout: str, learnt: Learnt, tmp_path: Path
) -> None:
    make, raw = AVERAGED[layout]
    torch.save(make(spoilt(learnt.state), learnt.state), tmp_path / "a.pth.tar")
    (said,) = right(teacher(tmp_path, learnt, "a.pth.tar"))
    assert "took the averaged" in said
    assert said.endswith(f'set teacher.weights_key to "{raw}"')
    chosen = teacher(tmp_path, learnt, "a.pth.tar", f'{TAKEN}\nweights_key = "{raw}"')
    assert "made " in succeed(chosen)
    assert "100.00" not in chosen.stdout
    assert len(list(tmp_path.glob("runs/**/result.json"))) == 2


def test_averaged_weights_alone_are_no_choice(learnt: Learnt, tmp_path: Path) -> None:
    torch.save({"state_dict_ema": learnt.state}, tmp_path / "a.pth")
    assert right(teacher(tmp_path, learnt, "a.pth")) == []


def test_a_key_without_a_file_is_refused(learnt: Learnt, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, learnt.images, learnt.network, 'epochs = 1\nweights_key = "model"')
    said = refused(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    assert "teacher.weights_key: is a place in the file `weights`, which is missing" in said


# Harmless values beside the weights, and others


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(91.25),
        np.array([1.0, 2.0]),
        pathlib.PurePosixPath("out"),
        pathlib.PureWindowsPath("c:/out"),
        collections.defaultdict(list, {"loss": [0.5]}),
    ],
    ids=["scalar", "array", "path", "path of Windows", "defaultdict"],
)
def test_harmless_values_beside_the_weights_are_no_hindrance(
    beside: object, learnt: Learnt, tmp_path: Path
) -> None:
    torch.save({"model": learnt.state, "beside": beside}, tmp_path / "a.pth")
    assert right(teacher(tmp_path, learnt, "a.pth")) == []


def test_a_whole_module_is_refused_with_the_way_to_save_it(learnt: Learnt, tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pth")
    said = refused(teacher(tmp_path, learnt, "a.pth"))
    assert "torch.nn.modules.linear.Linear" in said
    assert "save its state dict alone: torch.save(network.state_dict(), FILE)" in said
    assert len(said.splitlines()) == 1


# Other forms and endings


@pytest.mark.parametrize("name", ["student_best", "net.t7", "net.pkl", "net.pt"])
def test_a_file_is_read_whatever_its_ending(name: str, learnt: Learnt, tmp_path: Path) -> None:
    torch.save(
        {"model": {f"module.student.{key}": learnt.state[key] for key in learnt.state}}, tmp_path / name
    )
    assert right(teacher(tmp_path, learnt, name)) == []


def test_a_torchscript_archive_gives_its_state_dict(learnt: Learnt, tmp_path: Path) -> None:
    network = build_by_name("conv", 3, input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.5] * 3, width=4)
    network.body.load_state_dict(learnt.state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network.body.eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "a.pt")
    assert right(teacher(tmp_path, learnt, "a.pt")) == []


def test_a_real_file_of_lua_torch_is_refused_for_what_it_is(learnt: Learnt, tmp_path: Path) -> None:
    (tmp_path / "a.t7").write_bytes(b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1\x0d\0\0\0nn.Sequential")
    assert "it is a file of Lua Torch" in refused(teacher(tmp_path, learnt, "a.t7"))


def test_shards_are_read_by_their_folder_and_their_change_is_another_teacher(
    learnt: Learnt, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    names = list(learnt.state)
    for number, part in enumerate((names[::2], names[1::2])):
        torch.save({name: learnt.state[name] for name in part}, folder / f"part-{number}.bin")
    places = ", ".join(f'"{name}": "part-{place % 2}.bin"' for place, name in enumerate(names))
    (folder / "pytorch_model.bin.index.json").write_text(f'{{"weight_map": {{{places}}}}}')
    assert right(teacher(tmp_path, learnt, "model")) == []
    assert "found " in succeed(teacher(tmp_path, learnt, "model"))
    torch.save({name: spoilt(learnt.state)[name] for name in names[::2]}, folder / "part-0.bin")
    assert "made " in succeed(teacher(tmp_path, learnt, "model"))


# Weights of other classes as a start


def of_imagenet(learnt: Learnt) -> dict[str, Tensor]:
    """The same network with a last layer of 1,000 classes."""
    features = learnt.state[f"{HEAD}.weight"].shape[1]
    return {**learnt.state, f"{HEAD}.weight": torch.randn(1000, features), f"{HEAD}.bias": torch.randn(1000)}


def test_weights_of_other_classes_begin_a_new_last_layer_where_it_is_trained(
    learnt: Learnt, tmp_path: Path
) -> None:
    torch.save(of_imagenet(learnt), tmp_path / "a.pth")
    done = teacher(tmp_path, learnt, "a.pth", "epochs = 2\nlr = 0.02\nbatch_size = 12")
    assert "made " in succeed(done)
    (said,) = done.stderr.splitlines()
    assert "a new last layer, from 1,000 to 3 classes; it is trained from scratch" in said


def test_weights_of_other_classes_are_refused_where_it_is_not(learnt: Learnt, tmp_path: Path) -> None:
    torch.save(of_imagenet(learnt), tmp_path / "a.pth")
    said = refused(teacher(tmp_path, learnt, "a.pth"))
    assert "it has 1,000 classes, the data has 3" in said
    assert "set teacher.epochs" in said


@pytest.mark.parametrize("argument", ["num_classes = 1000", "input_shape = [3, 8, 8]"])
@pytest.mark.parametrize("network", ["conv", "torchvision:squeezenet1_1"])
def test_what_the_data_give_is_a_reserved_argument(
    argument: str, network: str, learnt: Learnt, tmp_path: Path
) -> None:
    written = f'{{ name = "{network}", {argument} }}'
    recipe = write_recipe(tmp_path, learnt.images, written, "epochs = 1")
    said = refused(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    name = argument.partition(" ")[0]
    assert f"{name}: is a reserved argument, given by the data (3 outputs, inputs of shape (3, 8, 8))" in said


def test_a_file_among_the_arguments_is_shown_its_place(learnt: Learnt, tmp_path: Path) -> None:
    torch.save(learnt.state, tmp_path / "a.pth")
    written = '{ name = "torchvision:squeezenet1_1", weights = "a.pth" }'
    recipe = write_recipe(tmp_path, learnt.images, written, "epochs = 1")
    said = refused(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    assert "a.pth is a file; give it as teacher.weights" in said


# Another normalisation, and a teacher that knows nothing


def dark(root: Path) -> Path:
    """Pictures that differ a little in brightness, near to black, where normalisations differ much."""
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(("ash", "elm", "oak")):
            (root / part / name).mkdir(parents=True)
            for number in range(20):
                pixels = 15.0 + 15 * label + random.normal(0, 4, (8, 8, 3))
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / part / name / f"{number:02}.png")
    return root


def by_brightness() -> dict[str, Tensor]:
    """A network that knows these classes by their mean, of pixels normalised by 0.5 and 0.5."""
    levels = torch.tensor([(15.0 + 15 * label) / 255 * 2 - 1 for label in range(3)])
    weight, bias = 2 * levels[:, None].repeat(1, 192) / 192, -(levels**2)
    return {"1.weight": 1000 * weight, "1.bias": 1000 * bias}


def test_weights_from_elsewhere_ask_once_for_their_normalisation(tmp_path: Path, learnt: Learnt) -> None:
    images = dark(tmp_path / "images")
    torch.save(by_brightness(), tmp_path / "a.pth")
    lines = f'weights = "a.pth"\n{TAKEN}'
    recipe = write_recipe(tmp_path, images, '"linear"', lines)
    wrong = decant("teacher", "--recipe", recipe, cwd=tmp_path)
    assert "100.00" not in succeed(wrong)
    asked = [
        line for line in wrong.stderr.splitlines() if "does not tell how its inputs were normalised" in line
    ]
    assert len(asked) == 1
    assert "set teacher.network.mean and teacher.network.std to what it was trained with" in asked[0]
    again = decant("teacher", "--recipe", recipe, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    told = '{ name = "linear", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }'
    recipe = write_recipe(tmp_path, images, told, lines)
    assert right(decant("teacher", "--recipe", recipe, cwd=tmp_path)) == []


def test_weights_of_a_run_have_their_normalisation(learnt: Learnt, tmp_path: Path) -> None:
    done = teacher(tmp_path, learnt, str(learnt.weights), network='{ name = "conv", width = 4 }')
    assert right(done) == []


def test_a_teacher_that_is_no_better_than_chance_is_said_to_be(learnt: Learnt, tmp_path: Path) -> None:
    order = torch.tensor([1, 2, 0])  # of classes: right answers, each under another name
    head = {name: learnt.state[name][order] for name in (f"{HEAD}.weight", f"{HEAD}.bias")}
    shuffled = {**learnt.state, **head}
    torch.save(shuffled, tmp_path / "a.pth")
    done = teacher(tmp_path, learnt, "a.pth")
    assert "made " in succeed(done)
    (said,) = done.stderr.splitlines()
    assert said.startswith("warning: the teacher's top-1 is 0.00% on 36 samples, and chance is 33.33%")
    assert "the teacher names 3 classes by those of others: 0 (ash) as 2 (oak), " in said
    assert (
        "classes in another order than those of the labels: take its columns in that order, [2, 0, 1], as"
        in said
    )
    assert 'teacher.at_chance = "accept" says nothing' in said
    quiet = ("--recipe", "mine.toml", "--set", "teacher.at_chance=accept")
    done = decant("cache-logits", *quiet[:2], cwd=tmp_path)
    succeed(done)
    assert "top-1 is 0.00% on 36 samples" in done.stderr
    for left in [*tmp_path.glob("caches/*.h5"), *tmp_path.glob("runs/mine/teacher-*/result.json")]:
        left.unlink()
    for phase in ("teacher", "cache-logits"):
        done = decant(phase, *quiet, cwd=tmp_path)
        assert "made " in succeed(done)
        assert done.stderr == ""
    assert "at_chance" not in only(tmp_path, "runs/**/recipe.toml").read_text()


def test_a_network_of_ones_own_with_a_last_layer_that_nobody_trained_is_said_to_be_at_chance(
    learnt: Learnt, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def network(num_classes, input_shape):\n"
        "    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 1000))\n"
        "    body[1] = nn.Linear(192, num_classes)\n"
        "    nn.init.zeros_(body[1].weight)\n"
        "    return body\n"
    )
    recipe = write_recipe(tmp_path, learnt.images, '"mine:network"', TAKEN)
    done = decant("teacher", "--recipe", recipe, cwd=tmp_path)
    assert "made " in succeed(done)
    assert "the teacher's top-1 is 33.33% on 36 samples, and chance is 33.33%" in done.stderr
