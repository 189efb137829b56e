"""Networks by name: their published sizes, what they take and give, and what they say when they cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from decant.pipeline.errors import ModelError, WeightsError
from decant.pipeline.networks import Network, Preprocess
from decant.pipeline.networks.registry import build, names
from decant.pipeline.networks.weights import load_weights

PUBLISHED_PARAMETERS = {  # at 100 classes and 3 channels
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-2": 703_284,
    "wrn-40-2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenetv2": 812_836,
}
IMAGE_NETWORKS = [name for name in names() if name not in ("linear", "mlp")]


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build_for(name: str, input_shape: tuple[int, ...], num_classes: int = 10, **args: Any) -> Network:
    size = input_shape[0]
    return build(name, num_classes, input_shape=input_shape, mean=[0.5] * size, std=[0.25] * size, **args)


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def refusal(name: str, input_shape: tuple[int, ...] = (3, 32, 32), **args: Any) -> str:
    with pytest.raises(ModelError) as caught:
        build_for(name, input_shape, **args)
    assert "\n" not in str(caught.value), "an error is one line"
    assert str(caught.value).startswith(f"network {name!r}: ")
    return str(caught.value)


# The networks that ship


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_a_network_has_exactly_as_many_parameters_as_published(name: str) -> None:
    body = build_for(name, (3, 32, 32), num_classes=100).body
    assert sum(p.numel() for p in body.parameters()) == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", names())
def test_every_network_gives_a_row_of_float32_logits_for_each_image(name: str) -> None:
    network = build_for(name, (3, 32, 32), num_classes=7)
    logits = network(pixels(2, 3, 32, 32))
    assert (logits.shape, logits.dtype) == ((2, 7), torch.float32)


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("lenet")])
def test_every_network_learns_from_single_channel_digits_in_all_of_its_parameters(name: str) -> None:
    network = build_for(name, (1, 8, 8))
    network(pixels(4, 1, 8, 8)).logsumexp(dim=1).sum().backward()
    without = [
        path for path, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without == []


@pytest.mark.parametrize("name", ["resnet8", "wrn-16-1", "vgg8", "mobilenetv2", "conv"])
@pytest.mark.parametrize("shape", [(4, 9, 23), (2, 64, 64)])
def test_convolutional_networks_take_any_channels_and_sizes(name: str, shape: tuple[int, ...]) -> None:
    assert build_for(name, shape)(pixels(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_networks_for_feature_vectors_take_them(name: str) -> None:
    assert build_for(name, (5,))(torch.randn(3, 5)).shape == (3, 10)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_the_memory_format_changes_the_speed_and_not_the_logits(name: str) -> None:
    network = build_for(name, (3, 16, 16)).eval()
    images = pixels(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(images)
        got = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet8", "wrn-16-1", "vgg8", "mobilenetv2", "conv"])
def test_evaluation_treats_each_sample_alone(name: str) -> None:
    network = build_for(name, (3, 16, 16)).eval()
    images = pixels(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", {"conv1.weight", "layer1.0.bn2.bias", "layer2.0.downsample.1.weight", "fc.bias"}),
        ("wrn-16-2", {"block1.layer.0.convShortcut.weight", "block3.layer.1.bn1.weight", "bn1.bias"}),
        ("vgg13", {"block0.0.bias", "block4.4.weight", "classifier.weight"}),
        ("mobilenetv2", {"conv1.1.bias", "blocks.1.0.conv.7.weight", "conv2.0.weight", "classifier.0.bias"}),
    ],
)
def test_parameters_are_named_as_in_the_published_checkpoints(name: str, parameters: set[str]) -> None:
    assert parameters <= dict(build_for(name, (3, 32, 32)).body.named_parameters()).keys()


def test_the_seed_decides_the_initial_weights() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return build_for("conv", (1, 8, 8)).body.get_parameter("0.weight").detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_width_is_what_a_teacher_and_a_student_differ_in() -> None:
    teacher, student = (build_for("conv", (1, 8, 8), width=width) for width in (64, 4))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (teacher, student)]
    assert sizes[0] > 100 * sizes[1], f"{sizes[0]:,} and {sizes[1]:,} parameters"


def test_an_mlp_has_the_hidden_layers_that_it_is_asked_for() -> None:
    body = build_for("mlp", (5,), hidden=7, layers=3).body
    widths = [module.out_features for module in body if isinstance(module, nn.Linear)]
    assert widths == [7, 7, 7, 10]


def test_names_are_sorted_and_each_is_built() -> None:
    assert names() == sorted(set(names()))
    assert set(PUBLISHED_PARAMETERS) <= set(names())


# Preprocessing


def test_uint8_images_are_normalised_as_pixels_between_0_and_1() -> None:
    images = pixels(2, 3, 4, 5)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    column = torch.tensor([mean, std]).view(2, 3, 1, 1)
    longhand = (images.float() / 255 - column[0]) / column[1]
    torch.testing.assert_close(Preprocess(mean, std)(images), longhand, rtol=1e-5, atol=1e-5)


def test_float_inputs_are_taken_as_they_are_and_left_untouched() -> None:
    features = torch.randn(6, 2)
    before = features.clone()
    normalised = Preprocess([1.0, -2.0], [2.0, 0.5])(features)
    torch.testing.assert_close(normalised, (before - torch.tensor([1.0, -2.0])) / torch.tensor([2.0, 0.5]))
    assert torch.equal(features, before), "the caller's tensor was written to"


def test_float_images_differ_from_uint8_ones_by_a_factor_of_255() -> None:
    preprocess = Preprocess([0.4], [0.2])
    images = pixels(2, 1, 8, 8)
    torch.testing.assert_close(preprocess(images.float() / 255), preprocess(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_become_the_dtype_of_the_network(dtype: torch.dtype) -> None:
    assert Preprocess([0.0], [1.0])(torch.zeros(2, 1, dtype=dtype)).dtype == torch.float32


@pytest.mark.parametrize("size", [None, (12, 10)])
def test_channels_last_stays_channels_last(size: tuple[int, int] | None) -> None:
    images = pixels(2, 3, 8, 8).to(memory_format=torch.channels_last)
    got = Preprocess([0.5] * 3, [0.5] * 3, size)(images)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(16, 12), (4, 4)])
def test_resizing_is_bilinear_and_antialiased_and_commutes_with_normalising(size: tuple[int, int]) -> None:
    images = pixels(2, 3, 8, 8)
    resized = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True) / 255
    got = Preprocess([0.5] * 3, [0.25] * 3, size)(images)
    torch.testing.assert_close(got, (resized - 0.5) / 0.25, rtol=1e-4, atol=1e-4)


def test_mean_and_std_are_saved_with_the_weights() -> None:
    network = build("linear", 2, input_shape=(2,), mean=[1.0, 2.0], std=[3.0, 4.0])
    state = network.state_dict()
    assert state["preprocess.mean"].tolist() == [1.0, 2.0]
    assert state["preprocess.std"].tolist() == [3.0, 4.0]


def test_integers_that_are_no_pixels_are_refused() -> None:
    with pytest.raises(TypeError, match=r"uint8 pixels or float features, got torch\.int64"):
        Preprocess([0.5], [0.5])(torch.zeros(1, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.5], [0.5, 0.5, 0.5], "mean has 1 values, the inputs have 3 channels"),
        ([0.5] * 3, [0.5], "mean has 3 values and std has 1"),
        ([0.5] * 3, [0.5, 0.0, 0.5], "std must be positive"),
    ],
)
def test_a_mean_or_std_that_cannot_be_right_is_refused(
    mean: list[float], std: list[float], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        build("resnet20", 10, input_shape=(3, 32, 32), mean=mean, std=std)


# What is refused


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    assert "did you mean" in refusal("resnet21")
    assert "resnet20" in refusal("resnet21")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("conv", {"widht": 4}, "unknown argument 'widht'; it takes width (int, default 16)"),
        ("conv", {"width": "4"}, "width must be int, got '4'"),
        ("conv", {"width": True}, "width must be int, got True"),
        ("conv", {"width": 0}, "width must be 1 or more, got 0"),
        ("mlp", {"hidden": -1}, "hidden must be 1 or more, got -1"),
        ("mlp", {"layers": 0}, "layers must be 1 or more, got 0"),
        ("mlp", {"layers": 1.5}, "layers must be int, got 1.5; it takes hidden (int, default 128)"),
        ("resnet20", {"width": 4}, "unknown argument 'width'; it takes none"),
    ],
)
def test_an_argument_that_cannot_be_right_is_named(name: str, args: dict[str, Any], said: str) -> None:
    assert said in refusal(name, **args)


@pytest.mark.parametrize("name", ["vgg8", "conv"])
def test_images_that_are_too_small_get_the_size_needed(name: str) -> None:
    assert "at least 8 × 8 pixels, the data's are 8 × 7" in refusal(name, (1, 8, 7))


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, "torchvision:resnet18"])
def test_networks_for_images_refuse_feature_vectors(name: str) -> None:
    assert "needs images (C, H, W), the data has inputs of shape (64,)" in refusal(name, (64,))


@pytest.mark.parametrize("shape", [(8, 8), (3, 0, 8), (1, 2, 3, 4)])
def test_a_shape_that_is_neither_image_nor_vector_is_refused(shape: tuple[int, ...]) -> None:
    assert "input_shape must be (C, H, W) or (F,)" in refusal("linear", shape)


def test_a_network_needs_a_class() -> None:
    assert "num_classes must be 1 or more, got 0" in refusal("linear", num_classes=0)


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


needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


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


# LeNet and small images


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("lenet", {"fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}),
        ("lenet-small", {"fc1": (84, 400), "fc2": (10, 84)}),
    ],
)
def test_lenet_has_the_layers_of_the_tutorial(name: str, layers: dict[str, tuple[int, int]]) -> None:
    state = build_for(name, (3, 32, 32)).body.state_dict()
    shapes = {path.removesuffix(".weight"): tuple(w.shape) for path, w in state.items() if w.ndim > 1}
    assert shapes == {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5), **layers}


class Tutorial(nn.Module):
    """The network of PyTorch's CIFAR-10 tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        x = torch.flatten(x, 1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


def test_the_tutorials_weights_give_its_logits(tmp_path: Path) -> None:
    theirs = Tutorial()
    torch.save(theirs.state_dict(), tmp_path / "cifar_net.pth")
    ours = build("lenet", 10, input_shape=(3, 32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    load_weights(ours, tmp_path / "cifar_net.pth")
    images = pixels(4, 3, 32, 32)
    with torch.no_grad():
        expected = theirs((images / 255 - 0.5) / 0.5)  # ToTensor, Normalize
        torch.testing.assert_close(ours(images), expected)


def test_conv_pool_is_two_convolutions_and_a_hidden_layer() -> None:
    state = build_for("conv-pool", (3, 32, 32)).body.state_dict()
    shapes = [tuple(weight.shape) for path, weight in state.items() if path.endswith("weight")]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64 * 8 * 8), (10, 128)]
    narrow = build_for("conv-pool", (3, 32, 32), width=4, hidden=5).body.state_dict()
    assert tuple(narrow["7.weight"].shape) == (5, 8 * 8 * 8)


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
