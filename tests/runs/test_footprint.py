"""What a network costs is what can be worked out by hand, and is measured once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.text import TextData
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.runs.footprint import (
    BATCH_SIZES,
    FOOTPRINT,
    Footprint,
    measure_footprint,
    multiply_adds,
    peak_bytes,
)
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.result import WEIGHTS, Result
from decant.pipeline.runs.saved_network import load_network, save_network
from decant.pipeline.views import ViewedData
from tests.helpers.small import CPU, recipe, teach


class Attention(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(inputs, inputs, inputs)


class SumOfWords(nn.Module):
    """Four numbers a word, their sum, and two logits."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words, self.logits = nn.Embedding(vocabulary, 4), nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.words(input_ids) * attention_mask[..., None]
        logits: Tensor = self.logits(words.sum(1))
        return logits


def sum_of_words(num_classes: int, input_shape: Any, vocabulary: int) -> nn.Module:
    return SumOfWords(vocabulary)


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (nn.Linear(10, 5), (1, 10), 10 * 5),
        (nn.Linear(10, 5), (3, 10), 3 * 10 * 5),
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 6, 7), 8 * (6 * 7) * (3 * 3 * 3)),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 6, 7), 8 * (4 * 5) * (2 * 3 * 3)),
        (nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), (1, 10), 50 + 10),
        (Attention(), (1, 2, 5, 8), 2 * (5 * 5 * 8 + 5 * 5 * 8)),
        (
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
            (1, 5, 16),
            5 * 16 * (3 * 16) + 2 * (5 * 5 * 16) + 5 * 16 * 16 + 2 * (5 * 16 * 32),
        ),
    ],
    ids=["linear", "batch", "conv", "grouped", "sequence", "attention", "encoder"],
)
def test_multiply_adds_are_those_of_products(
    network: nn.Module, shape: tuple[int, ...], expected: int
) -> None:
    assert multiply_adds(network, torch.zeros(shape)) == expected


def test_products_within_a_recurrent_layer_are_counted() -> None:
    steps, given, held = 5, 4, 6
    assert multiply_adds(nn.LSTM(given, held), torch.zeros(steps, 1, given)) == steps * 4 * held * (
        given + held
    )


def test_counting_leaves_pytorch_as_it_was() -> None:
    def switches() -> tuple[bool, ...]:
        backends = torch.backends
        return (
            backends.mha.get_fastpath_enabled(),
            backends.mkldnn.enabled,
            backends.cudnn.enabled,
            backends.cuda.flash_sdp_enabled(),
        )

    assert all(switches()), "as PyTorch begins"
    with pytest.raises(RuntimeError):
        multiply_adds(nn.Linear(10, 5), torch.zeros(1, 9))
    assert all(switches())
    multiply_adds(nn.Linear(10, 5), torch.zeros(1, 10))
    assert all(switches())


@pytest.mark.parametrize(
    ("network", "held"),
    [
        (nn.Linear(100, 50), 50),
        (nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 70)), 50 + 70),
        (nn.Sequential(nn.Linear(100, 90), nn.ReLU(), nn.Linear(90, 70)), 90 + 90),
        (nn.Sequential(nn.Linear(100, 90), nn.ReLU(inplace=True), nn.Linear(90, 70)), 90 + 70),
        (nn.Sequential(*[nn.ReLU() for _ in range(9)]), 100 + 100),
        (nn.Identity(), 0),
    ],
    ids=["linear", "last layers", "first layers", "in place", "freed on the way", "nothing"],
)
@pytest.mark.parametrize("size", [1, 32])
def test_the_peak_is_what_is_held_at_once(network: nn.Module, held: int, size: int) -> None:
    """`held` float32 numbers an input, beside weights and the input."""
    inputs = torch.zeros(size, 100)
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    assert peak_bytes(network, inputs, CPU) == weights + 4 * size * (100 + held)


def test_buffers_are_part_of_the_peak() -> None:
    network = nn.BatchNorm1d(100)
    assert {name: buffer.nbytes for name, buffer in network.named_buffers()} == {
        "running_mean": 400,
        "running_var": 400,
        "num_batches_tracked": 8,
    }
    without = peak_bytes(nn.BatchNorm1d(100, track_running_stats=False).eval(), torch.zeros(8, 100), CPU)
    found = peak_bytes(network, torch.zeros(8, 100), CPU)
    assert found is not None
    assert without is not None
    assert found >= 808 + 2 * 400 + 2 * 8 * 400  # buffers, weights, input and output
    assert peak_bytes(nn.Identity(), torch.zeros(8, 100, dtype=torch.uint8), CPU) == 800


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_peak_on_a_gpu_is_without_what_others_hold() -> None:
    device = torch.device("cuda")
    others = torch.zeros(1 << 20, device=device)
    inputs = torch.zeros(32, 128)  # 16 KiB, which the allocator need not round
    found = peak_bytes(nn.Sequential(*[nn.ReLU() for _ in range(9)]), inputs, device)
    assert found == 3 * inputs.nbytes
    assert others.is_cuda


def test_a_device_that_does_not_tell_has_no_peak() -> None:
    device = torch.device("meta")
    assert peak_bytes(nn.ReLU(), torch.zeros(2, 3, device=device), device) is None


def test_measuring_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(nn.Linear(10, 5), torch.zeros(1, 10), CPU)
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def measured_part() -> ViewedData:
    return Splits.load(recipe().settings).test


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return teach(tmp_path_factory.mktemp("footprint"), "teacher.epochs=1")


@pytest.fixture
def run(taught: Result, tmp_path: Path) -> Result:
    """A finished network of which nothing is known yet."""
    (tmp_path / WEIGHTS).write_bytes((taught.folder / WEIGHTS).read_bytes())
    return replace(taught, folder=tmp_path)


def test_a_footprint_is_of_the_network_and_of_test_inputs(run: Result, measured_part: ViewedData) -> None:
    found = measure_footprint(run, measured_part, CPU)
    network = load_network(run)
    assert found.multiply_adds == multiply_adds(network, measured_part.batch([0])[0])
    assert [cost.size for cost in found.batches] == [1, 32] == list(BATCH_SIZES)
    for cost in found.batches:
        assert 0 < cost.latency_ms <= cost.latency_p95_ms
        assert cost.peak_bytes == peak_bytes(network, measured_part.batch(range(cost.size))[0], CPU)
    assert (found.machine, found.weights_sha256) == (device_name(CPU), run.weights_sha256)
    assert (found.threads, found.torch) == (torch.get_num_threads(), torch.__version__)


def change(run: Result, **values: Any) -> dict[str, Any]:
    """What the file says, with other values."""
    content = {**json.loads((run.folder / FOOTPRINT).read_text("utf-8")), **values}
    (run.folder / FOOTPRINT).write_text(json.dumps(content), "utf-8")
    return content


def test_a_second_call_reads_what_the_first_measured(run: Result, measured_part: ViewedData) -> None:
    first = measure_footprint(run, measured_part, CPU)
    (run.folder / WEIGHTS).unlink()
    assert measure_footprint(run, measured_part, CPU) == first
    change(run, multiply_adds=7)
    assert measure_footprint(run, measured_part, CPU) == replace(first, multiply_adds=7)


@pytest.mark.parametrize(
    "other", [{"weights_sha256": "0"}, {"machine": "abacus"}, {"threads": 999}, {"torch": "0.1"}], ids=str
)
def test_what_was_measured_of_other_weights_or_elsewhere_is_measured_anew(
    run: Result, measured_part: ViewedData, other: dict[str, Any]
) -> None:
    first = measure_footprint(run, measured_part, CPU)
    change(run, multiply_adds=7, **other)
    again = measure_footprint(run, measured_part, CPU)
    assert again.multiply_adds == first.multiply_adds
    change(run, multiply_adds=8)
    assert measure_footprint(run, measured_part, CPU).multiply_adds == 8, "what was measured anew is kept"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "\udcff", {"batches": []}, {"machine": 3}, {"multiply_adds": "7"}], ids=ascii
)
def test_a_damaged_file_is_measured_again(
    run: Result, measured_part: ViewedData, damage: str | dict[str, Any]
) -> None:
    first = measure_footprint(run, measured_part, CPU)
    if isinstance(damage, str):
        (run.folder / FOOTPRINT).write_bytes(damage.encode(errors="surrogateescape"))
    else:
        change(run, **damage)
    again = measure_footprint(run, measured_part, CPU)
    assert again.multiply_adds == first.multiply_adds
    assert [cost.peak_bytes for cost in again.batches] == [cost.peak_bytes for cost in first.batches]
    assert json.loads((run.folder / FOOTPRINT).read_text("utf-8"))["machine"] == device_name(CPU)


def test_a_folder_that_cannot_be_written_to_gives_the_figures_all_the_same(
    run: Result, measured_part: ViewedData
) -> None:
    (run.folder / FOOTPRINT).mkdir()  # which no file can replace, whoever asks
    assert measure_footprint(run, measured_part, CPU).multiply_adds > 0
    assert {path.name for path in run.folder.iterdir()} == {FOOTPRINT, WEIGHTS}


def words() -> ViewedData:
    """Texts of 1, 3 and 2 words."""
    lengths = [1, 3, 2]
    starts = np.array([0, *np.cumsum(lengths)])
    ids = np.arange(starts[-1], dtype=np.int32)
    labels = np.zeros(3, np.int64)
    data = TextData("words", "test", ids, starts, labels, ("a", "b"), vocabulary=50, max_length=8, padding=0)
    return ViewedData(data, ViewsSettings())


def test_texts_are_measured_too_and_a_few_inputs_are_repeated(tmp_path: Path) -> None:
    spec = NetworkSpec(f"{__name__}:sum_of_words", {"vocabulary": 50}, 2, (8,), (), ())
    network = build_network(spec)
    size, digest = save_network(tmp_path, network, spec)
    result = Result("teacher", spec, 0, 210, size, digest, {}, "", 1.0, folder=tmp_path)
    found: Footprint = measure_footprint(result, words(), CPU)
    assert found.multiply_adds == 4 * 2
    for cost, longest in zip(found.batches, (1, 3), strict=True):
        masking = longest * (4 + 1 + 4)  # the numbers of each word, its mask as a number, and their products
        ending = longest * 4 + 4 + 2  # those products, their sum, and the logits
        assert cost.peak_bytes == 4 * 210 + cost.size * (2 * 8 * longest + 4 * max(masking, ending))
