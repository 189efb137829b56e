"""Work that is recorded and replayed gives what it gives when it is done each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant import pipeline
from decant.pipeline.config.settings import Training
from decant.pipeline.errors import DeviceError
from decant.pipeline.objectives import Terms, cross_entropy, kd
from decant.pipeline.training.device import make_scaler, stream_for
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.recorded import Recorded
from decant.pipeline.training.step import Batch, Step
from tests.helpers.recording import OnTheProcessor
from tests.helpers.small import CPU

PIPELINE = Path(pipeline.__file__).parent


def test_only_shapes_that_come_again_are_recorded_and_others_are_computed() -> None:
    recorder, eager = OnTheProcessor(), list[tuple[int, ...]]()

    def double(values: Tensor) -> Tensor:
        eager.append(tuple(values.shape))
        return values * 2

    recorded = Recorded(double, recorder)
    for number in range(10):
        given = torch.full((4, 2), float(number))
        assert torch.equal(recorded(given), given * 2)
        if number in (1, 7):
            assert recorded(torch.ones(3, 2)).tolist() == [[2.0, 2.0]] * 3
    assert recorder.recordings == 1
    assert recorded(torch.ones(4, 2, dtype=torch.int64)).dtype == torch.int64
    assert recorded(torch.ones(2, 4).T).is_contiguous() is False  # another memory format is computed too
    assert recorder.recordings == 1


def steps(
    record: bool, sizes: tuple[int, ...], **settings: Any
) -> tuple[dict[str, Tensor], list[float], int]:
    """Weights and losses after batches of these sizes, and how many recordings were made."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3))
    network[4].weight.requires_grad_(False)
    given = {"network": {"name": "linear"}, "epochs": 1, "lr": 0.1, "batch_size": 8, "clip_norm": 0.5}
    chosen = Training(**{**given, **settings})
    scaler = make_scaler(CPU, chosen.precision, "student.precision")
    stepper = Stepper(network, make_optimizer(network, chosen, CPU), chosen, scaler)
    recorder = OnTheProcessor()

    def criterion(outputs: Tensor, labels: Tensor, teacher_logits: Tensor, progress: float) -> Terms:
        return kd(outputs, teacher_logits, labels)

    step, losses = Step(network, criterion, stepper, chosen, record, recorder), list[Tensor]()
    random = torch.Generator().manual_seed(1)
    for size in sizes:
        batch: Batch = (
            torch.randn(size, 5, generator=random),
            torch.randint(3, (size,), generator=random),
            torch.randn(size, 3, generator=random),
        )
        terms, counted = step(batch, 0.5)
        assert counted == size
        assert terms.hard is not None
        assert not terms.total.requires_grad
        losses += [terms.total, terms.hard]
    stepper.finish()
    return network.state_dict(), list(map(float, losses)), recorder.recordings  # no step wrote over another's


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw"}, {"precision": "bfloat16"}], ids=str)
def test_replayed_steps_end_in_the_same_weights(settings: dict[str, Any]) -> None:
    sizes = (8,) * 6 + (3,) + (8,) * 4 + (3,)
    expected, losses, none = steps(False, sizes, **settings)
    found, others, once = steps(True, sizes, **settings)
    assert (none, once) == (0, 1)
    assert others == losses
    for name in expected:
        # the stand-in works once more than a GPU would, which batch normalisation notices in its running statistics
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize(
    "settings", [{"accumulate": 2}, {"precision": "float16"}, {"compile": True}], ids=str
)
def test_gradients_that_are_added_up_or_scaled_and_compiled_steps_are_not_recorded(
    settings: dict[str, Any],
) -> None:
    try:
        expected, losses, _ = steps(False, (8,) * 8, **settings)
    except DeviceError:
        pytest.skip("this processor has no float16")
    found, others, recordings = steps(True, (8,) * 8, **settings)
    assert recordings == 0
    assert others == losses
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_mixed_labels_are_not_recorded() -> None:
    network = nn.Linear(5, 3)
    chosen = Training(network={"name": "linear"}, epochs=1, batch_size=4)
    stepper, recorder = Stepper(network, make_optimizer(network, chosen, CPU), chosen), OnTheProcessor()

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        return cross_entropy(outputs, labels)

    step = Step(network, criterion, stepper, chosen, True, recorder)
    for _ in range(8):
        step((torch.randn(4, 5), torch.full((4, 3), 1 / 3)), 0.0)
    assert recorder.recordings == 0


def test_every_stream_is_made_once_for_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch hands out 32 and then the same again: what a thread does on one that is being recorded meanwhile would be
    recorded.
    """
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: [device])
    stream_for.cache_clear()
    device = torch.device("cuda", 7)
    assert stream_for(device, "views") is stream_for(device, "views")
    assert stream_for(device, "views") is not stream_for(device, "recording")
    assert stream_for(device, "views") is not stream_for(torch.device("cuda", 8), "views")
    stream_for.cache_clear()
    made = [path.name for path in PIPELINE.rglob("*.py") if "cuda.Stream(" in path.read_text()]
    assert made == ["device.py"]
