"""Steps of the optimizer: gradients of several batches, in float16, and layers that are left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.errors import DeviceError, ModelError
from decant.pipeline.objectives import Terms, cross_entropy
from decant.pipeline.training import device as devices
from decant.pipeline.training.checkpoint import Kept, resume, save_epoch
from decant.pipeline.training.device import make_scaler
from decant.pipeline.training.frozen import freeze
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.partial_epoch import PartialEpoch, RunningLoss
from decant.pipeline.training.step import Step
from tests.helpers.small import CPU

GIVEN: dict[str, Any] = {"network": {"name": "linear"}, "epochs": 1, "lr": 0.1, "batch_size": 4}


def stepped(sizes: list[int], **settings: Any) -> dict[str, Tensor]:
    """A linear network after batches of these sizes, one after the other in one table."""
    torch.manual_seed(0)
    network, table = nn.Linear(5, 3), torch.randn(sum(sizes), 5)
    labels = torch.arange(len(table)) % 3
    chosen = Training(**{**GIVEN, **settings})
    stepper, start = Stepper(network, make_optimizer(network, chosen, CPU), chosen), 0
    for size in sizes:
        rows = slice(start, start + size)
        stepper.add(cross_entropy(network(table[rows]), labels[rows]), size)
        start += size
    stepper.finish()
    return network.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_added_up_batches_are_one_large_batch_and_so_is_the_incomplete_end(
    optimizer: str, clip: float | None
) -> None:
    common: dict[str, Any] = {"optimizer": optimizer, "clip_norm": clip}
    added = stepped([4, 4, 4, 4, 4, 3], accumulate=3, **common)
    whole = stepped([12, 11], **common)
    for name in whole:
        torch.testing.assert_close(added[name], whole[name])
    other = stepped([12, 7], **common)
    assert not all(torch.equal(added[name], other[name]) for name in whole)
    left = stepped([4, 4, 4, 3], accumulate=3, **common)
    again = stepped([12, 3], **common)
    for name in again:
        torch.testing.assert_close(left[name], again[name])


def test_batches_one_by_one_are_steps_one_by_one() -> None:
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            stepped([4, 4, 2]).values(), stepped([4, 4, 2], accumulate=1).values(), strict=True
        )
    )


class Refilled(torch.autograd.Function):
    """Returns the same memory at each call, as a criterion that is recorded as a CUDA graph does: one of
    `torch.compile(mode="reduce-overhead")`.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, memory: Tensor) -> Tensor:
        return memory.detach().copy_(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def counted(outputs: Tensor, memory: Tensor) -> Tensor:
    return memory.add_(1)


def refilled(outputs: Tensor, memory: Tensor) -> Tensor:
    """1, then 2, then 3, with a graph."""
    return cast("Tensor", Refilled.apply(0 * outputs.sum() + memory + 1, memory))


def changed(outputs: Tensor, memory: Tensor) -> Tensor:
    """The same, whose last operators are of PyTorch and make no memory."""
    return refilled(outputs, memory).mul_(1).view(1)[0]


@pytest.mark.parametrize("soft", [counted, refilled, changed])
def test_a_term_that_a_criterion_writes_over_keeps_its_value(
    soft: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """As a mean over the last batches in a buffer does; terms are added up many batches later."""
    network, memory, chosen = nn.Linear(5, 3), torch.zeros(()), Training(**GIVEN)

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Terms:
        return Terms(cross_entropy(outputs, labels), soft=soft(outputs, memory))

    step = Step(network, criterion, Stepper(network, make_optimizer(network, chosen, CPU), chosen), chosen)
    batch, part = (torch.ones(4, 5), torch.arange(4) % 3), PartialEpoch(RunningLoss(1, None))
    for _ in range(3):
        terms, size = step(batch, 0.0)
        part.add({"loss": terms.total, "soft": terms.soft}, size)
    assert part.means["soft"] == 2, "that of 1, 2 and 3"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_computes_in_its_own_precision_whatever_the_caller_does(precision: str) -> None:
    network, chosen = nn.Linear(5, 3), Training(**{**GIVEN, "precision": precision})
    found = set[torch.dtype]()

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        found.add(outputs.dtype)
        return cross_entropy(outputs, labels)

    step = Step(network, criterion, Stepper(network, make_optimizer(network, chosen, CPU), chosen), chosen)
    step((torch.ones(4, 5), torch.arange(4) % 3), 0.0)
    with torch.autocast("cpu", torch.float16):
        step((torch.ones(4, 5), torch.arange(4) % 3), 0.0)
    assert found == {getattr(torch, precision)}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


@pytest.mark.parametrize(
    "names", [["0"], ["0.0", "0.1"], ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"]]
)
@pytest.mark.parametrize("inside", [False, True])
def test_frozen_layers_keep_their_values_and_their_statistics(names: list[str], inside: bool) -> None:
    net = network()
    whole = nn.ModuleDict({"body": net}) if inside else net
    norms = freeze(whole, names, "teacher.freeze")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    settings = Training(**{**GIVEN, "weight_decay": 0.1})
    stepper = Stepper(whole, make_optimizer(whole, settings, CPU), settings, frozen=norms)
    assert [type(module) for module in stepper.frozen] == [nn.BatchNorm2d]
    net.train()
    for module in stepper.frozen:
        module.eval()
    stepper.add(cross_entropy(net(torch.randn(4, 3, 8, 8)), torch.tensor([0, 1, 0, 1])), 4)
    stepper.finish()
    kept = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if name.startswith("0.")}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["0.3"], "teacher.freeze: the network has no layer '0.3'; did you mean 0.1 or 0.0"),
        (["0", "features"], "the network has no layer 'features'; the first are 0, 0.0, 0.0.weight"),
        (["0", "2"], "teacher.freeze: leaves nothing to train"),
        (["1"], "the network has no layer '1'"),
    ],
)
def test_what_cannot_be_frozen_is_refused(names: list[str], says: str) -> None:
    with pytest.raises(ModelError) as caught:
        freeze(network(), names, "teacher.freeze")
    assert says in str(caught.value)


def test_float16_scales_gradients_and_its_scale_is_in_the_checkpoint(tmp_path: Path) -> None:
    try:
        scaler = make_scaler(CPU, "float16", "student.precision")
    except DeviceError:
        pytest.skip("this processor has no float16")
    assert scaler is not None
    net, settings = nn.Linear(5, 3), Training(**{**GIVEN, "precision": "float16", "clip_norm": 1.0})
    optimizer = make_optimizer(net, settings, CPU)
    before = net.weight.clone()
    stepper = Stepper(net, optimizer, settings, scaler)
    for _ in range(3):
        with devices.autocast(CPU, "float16"):
            outputs = net(torch.randn(4, 5))
        assert outputs.dtype == torch.float16
        stepper.add(cross_entropy(outputs, torch.tensor([0, 1, 2, 0])), 4)
    assert not torch.equal(net.weight, before)
    assert net.weight.dtype == torch.float32
    scaler.update(new_scale=2.0)
    save_epoch(tmp_path, Kept(net, optimizer, scaler), 1, {"epoch": 1})
    fresh = make_scaler(CPU, "float16", "student.precision")
    assert fresh is not None
    resume(tmp_path, Kept(net, optimizer, fresh))
    assert fresh.get_scale() == 2.0


def test_gradients_are_clipped_to_their_norm_and_not_to_that_of_scaled_ones() -> None:
    weights = list[torch.Tensor]()
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        net, settings = nn.Linear(5, 3), Training(**{**GIVEN, "clip_norm": 0.5})
        nn.init.ones_(net.weight)
        stepper = Stepper(net, make_optimizer(net, settings, CPU), settings, scaler)
        stepper.add(net(torch.ones(4, 5)).sum(dim=1).mean(), 4)
        weights.append(net.weight.detach().clone())
    assert torch.allclose(*weights, rtol=1e-6)
    assert not torch.equal(weights[0], torch.ones(3, 5))


def test_a_device_without_float16_is_refused_by_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("not here")

    monkeypatch.setattr(torch.amp, "GradScaler", none)
    with pytest.raises(DeviceError, match=r'student\.precision: "float16" cannot be trained on cpu here'):
        make_scaler(CPU, "float16", "student.precision")
    assert make_scaler(CPU, "bfloat16", "student.precision") is None
