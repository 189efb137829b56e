"""The networks that ship: their published sizes and names, and what holds for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from decant.pipeline.networks.foreign_weights import load_foreign_weights
from decant.pipeline.networks.registry import build_by_name, names, weights_size_of
from tests.helpers.networks import build_for, pixels, refusal

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


def test_nothing_is_drawn_to_know_the_size_of_weights() -> None:
    """PyTorch imports its compiler to draw where there is no memory: a second for each command."""
    drawn = list[str]()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            drawn.extend(["normal_"] if "normal" in str(function) else [])
            return function(*args, **(kwargs or {}))

    for name in names():
        shape = (3, 32, 32) if name not in ("linear", "mlp") else (4,)
        network = build_by_name(name, 10, input_shape=shape, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
        with Watch():
            found = weights_size_of(name, 10, shape, {})
        assert found == sum(value.nbytes for value in network.body.state_dict().values())
    assert not drawn


def test_names_are_sorted_and_each_is_built() -> None:
    assert names() == sorted(set(names()))
    assert set(PUBLISHED_PARAMETERS) <= set(names())


@pytest.mark.parametrize("name", ["vgg8", "conv"])
def test_images_that_are_too_small_get_the_size_needed(name: str) -> None:
    assert "at least 8 × 8 pixels, the data's are 8 × 7" in refusal(name, (1, 8, 7))


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, "torchvision:resnet18"])
def test_networks_for_images_refuse_feature_vectors(name: str) -> None:
    assert "needs images (C, H, W), the data has inputs of shape (64,)" in refusal(name, (64,))


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
    ours = build_by_name("lenet", 10, input_shape=(3, 32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    load_foreign_weights(ours, tmp_path / "cifar_net.pth")
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
