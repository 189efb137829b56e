"""Networks of torchvision, of timm and of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from decant.pipeline.errors import WeightsError
from decant.pipeline.support import trust
from tests.helpers.extras import needing
from tests.helpers.networks import build_for, pixels, refusal

# torchvision


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download cache of our own, in which torchvision finds what a test puts there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def download(torch_home: Path, name: str) -> dict[str, Tensor]:
    """Stand in for the download of the default weights of `name`, with freshly drawn ones."""
    weights = torchvision.models.get_model_weights(name)["DEFAULT"]
    state = torchvision.models.get_model(name).state_dict()
    torch.save(state, torch_home / Path(weights.url).name)
    return state


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_any_torchvision_classifier_can_be_built(name: str) -> None:
    network = build_for(f"torchvision:{name}", (3, 32, 32))
    assert network(pixels(2, 3, 32, 32)).shape == (2, 10)
    assert network.training
    assert network.preprocess.mean.tolist() == [0.5] * 3
    assert network.preprocess.size is None


def test_torchvision_takes_its_own_arguments() -> None:
    network = build_for("torchvision:squeezenet1_1", (3, 32, 32), dropout=0.25)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(("name", "head"), [("shufflenet_v2_x0_5", "fc"), ("squeezenet1_1", "classifier.1")])
def test_pretrained_networks_bring_their_normalisation_and_get_a_new_head(
    torch_home: Path, name: str, head: str
) -> None:
    state = download(torch_home, name)
    network = build_for(f"torchvision:{name}", (3, 16, 16), weights="DEFAULT")
    assert network.preprocess.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network.preprocess.size == (224, 224)
    got = network.body.state_dict()
    assert all(torch.equal(got[key], state[key]) for key in state if not key.startswith(head))
    assert len(got[f"{head}.weight"]) == 10


def test_a_pretrained_head_is_kept_where_the_classes_are_as_many(torch_home: Path) -> None:
    state = download(torch_home, "shufflenet_v2_x0_5")
    name = "torchvision:shufflenet_v2_x0_5"
    network = build_for(name, (3, 16, 16), num_classes=1000, weights="IMAGENET1K_V1")
    assert torch.equal(network.body.state_dict()["fc.weight"], state["fc.weight"])


def test_weights_that_cannot_be_fetched_are_a_weights_error(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(WeightsError, match=r"torchvision:squeezenet1_1.*cannot fetch.*no route to host"):
        build_for("torchvision:squeezenet1_1", (3, 32, 32), weights="DEFAULT")


@pytest.mark.parametrize(
    ("name", "shape", "args", "said"),
    [
        ("torchvision:resnet19", (3, 32, 32), {}, "did you mean resnet18"),
        ("torchvision:squeezenet1_1", (1, 28, 28), {}, "take 3 channels, the data has 1"),
        (
            "torchvision:squeezenet1_1",
            (3, 32, 32),
            {"weights": "IMAGENET1K_V9"},
            "did you mean IMAGENET1K_V1",
        ),
        ("torchvision:squeezenet1_1", (3, 32, 32), {"colour": 1}, "unexpected keyword argument 'colour'"),
        ("torchvision:squeezenet1_1", (3, 8, 8), {}, "cannot take inputs of shape (3, 8, 8)"),
    ],
)
def test_what_torchvision_cannot_do_is_said(
    name: str, shape: tuple[int, ...], args: dict[str, Any], said: str
) -> None:
    assert said in refusal(name, shape, **args)


# timm


def test_timm_is_asked_for_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'decant-kd[timm]'" in refusal("timm:resnet18")


needs_timm = needing("timm")


@needs_timm
def test_any_timm_network_can_be_built_for_any_channels() -> None:
    network = build_for("timm:test_resnet", (1, 32, 32))
    assert network(pixels(2, 1, 32, 32)).shape == (2, 10)
    assert network.preprocess.size is None


@needs_timm
def test_pretrained_timm_networks_bring_their_normalisation(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    trust.trust_everything()  # else timm reads no file of weights by itself
    network = build_for("timm:test_resnet", (3, 16, 16), pretrained=True, pretrained_cfg_overlay=overlay)
    assert network.preprocess.size == (160, 160)
    assert torch.equal(network.body.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert network(pixels(2, 3, 16, 16)).shape == (2, 10)


@needs_timm
@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("timm:test_resnett", {}, "did you mean test_resnet"),
        ("timm:test_resnet", {"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_what_timm_cannot_do_is_said(name: str, args: dict[str, Any], said: str) -> None:
    assert said in refusal(name, **args)


# package.module:function

OWN_NETWORKS = """
import math
from torch import nn

def flat(num_classes, input_shape, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes, bias))

def text(num_classes, input_shape):
    return "a network"

def headless(num_classes, input_shape):
    return nn.Flatten()

def doubled(num_classes, input_shape):
    class Doubled(nn.Module):
        def forward(self, images):
            return images, images
    return Doubled()

def narrow(num_classes, input_shape):
    return nn.Linear(3, num_classes)

not_a_function = 3
"""


@pytest.fixture
def own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_networks.py").write_text(OWN_NETWORKS)
    (tmp_path / "broken_networks.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return "own_networks"


def test_a_function_of_ones_own_builds_the_body(own_networks: str) -> None:
    network = build_for(f"{own_networks}:flat", (1, 8, 8), bias=False)
    assert network(pixels(2, 1, 8, 8)).shape == (2, 10)
    assert [path for path, _ in network.named_parameters()] == ["body.1.weight"]


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        (
            "nowhere.at_all:net",
            {},
            "cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
        ),
        ("broken_networks:net", {}, "cannot be imported (SyntaxError"),
        (
            "own_networks:absent",
            {},
            "module own_networks has no 'absent'; known: doubled, flat, headless, narrow, text",
        ),
        ("own_networks:not_a_function", {}, "not_a_function is not callable, it is of type int"),
        ("own_networks:flat", {"width": 3}, "got an unexpected keyword argument 'width'"),
        ("own_networks:text", {}, "'own_networks:text': must return a torch.nn.Module, got str"),
        ("own_networks:headless", {}, "must give logits of shape (2, 10) for a batch of 2, got (2, 192)"),
        ("own_networks:doubled", {}, "must give logits of shape (2, 10) for a batch of 2, got tuple"),
        ("own_networks:narrow", {}, "cannot take inputs of shape (3, 8, 8): "),
    ],
)
@pytest.mark.usefixtures("own_networks")
def test_what_is_wrong_with_a_function_of_ones_own_is_said(
    name: str, args: dict[str, Any], said: str
) -> None:
    assert said in refusal(name, (3, 8, 8), **args)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "resnet18"])
def test_a_stem_of_stride_1_keeps_the_size_of_small_images(name: str) -> None:
    def sides(**args: Any) -> list[int]:
        network, found = build_for(f"torchvision:{name}", (3, 32, 32), **args), list[int]()
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
                module.register_forward_hook(lambda _, __, output: found.append(output.shape[2]))
        assert network(pixels(2, 3, 32, 32)).shape == (2, 10)
        return found

    usual, kept = sides(), sides(stem_stride=1)
    assert usual[0] in (15, 16)
    assert kept[0] in (30, 32)
    assert kept[-1] == 2 * usual[-1] or (usual[-1], kept[-1]) == (1, 3)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("torchvision:resnet18", {"stem_stride": 3}, "stem_stride must be 1 or 2"),
        ("torchvision:resnet18", {"stem_stride": True}, "stem_stride must be 1 or 2"),
        (
            "torchvision:resnet18",
            {"stem_stride": 1, "weights": "DEFAULT"},
            "pretrained weights bring the image size that they were trained with",
        ),
    ],
)
def test_a_stem_that_cannot_be_is_refused(name: str, args: dict[str, Any], said: str) -> None:
    assert said in refusal(name, **args)
