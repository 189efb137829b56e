"""The training loop: resumed equals uninterrupted, and everything is a function of the seed."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.errors import DamagedError, DataError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.objectives import cross_entropy
from decant.pipeline.phases.balance import drawing_shares
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.training import checkpoint, learner
from decant.pipeline.training.epoch_log import CHECKPOINT, METRICS, read_epochs, trained_seconds
from decant.pipeline.training.loading import ShuffledKeys
from decant.pipeline.training.loop import RunningLoss, train
from decant.pipeline.training.optimizer import make_optimizer
from decant.pipeline.views import ViewedData
from tests.helpers.freed_memory import given_back
from tests.helpers.small import CPU, recipe


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits.load(recipe("views.count=3", 'views.augment=[{op="flip"}]').settings)


class Stopped(Exception):
    pass


def run(
    splits: Splits,
    folder: Path,
    stop_after: int | None = None,
    network: str = "conv",
    each_step: Callable[[], object] = lambda: None,
    shares: NDArray[np.float64] | None = None,
    random: bool = False,
    **settings: Any,
) -> dict[str, Tensor]:
    """Trains a small network; its weights. `stop_after` raises in the middle of the epoch after that many; a `random`
    loss draws a number in each step.
    """
    chosen = Training(
        **{"network": {"name": network}, "epochs": 3, "batch_size": 128, "lr": 0.05, **settings}
    )
    net = build_network(specify_network(chosen.network, splits.student_train), chosen.seed)
    calls = 0

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        nonlocal calls
        calls += 1
        if stop_after is not None and calls == 12 * stop_after + 5:  # 1,437 samples are 12 batches
            raise Stopped
        each_step()
        return cross_entropy(outputs, labels) * (torch.rand(()) if random else 1)

    def evaluate_on(_: nn.Module) -> Metrics:
        return Metrics()

    train(
        net,
        splits.student_train,
        criterion,
        chosen,
        folder,
        views=splits.student_train.cached_views,
        shares=shares,
        evaluate_on=evaluate_on,
        device=CPU,
    )
    return net.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_data_of_a_later_epoch_that_cannot_be_read_lose_nothing_before_it(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though small batches are made together with those of the next epochs: 36 in one call."""
    original, made, steps = ViewedData.batch, list[int](), list[int]()

    def batch(data: ViewedData, keys: NDArray[np.int64]) -> Any:
        made.append(len(keys))
        if (keys == (7, 2)).all(axis=1).any():
            raise DataError("sample 7 cannot be read")
        return original(data, keys)

    monkeypatch.setattr(ViewedData, "batch", batch)
    with pytest.raises(DataError, match="sample 7 cannot be read"):
        run(splits, tmp_path, each_step=lambda: steps.append(1))
    order = ShuffledKeys(len(splits.student_train), 128, Training.model_fields["seed"].default).of_epoch(2)
    place = next(number for number, keys in enumerate(order) if 7 in keys[:, 0])
    assert len(steps) == 24 + place
    assert [line["epoch"] for line in read_epochs(tmp_path)] == [1, 2]
    assert made[:2] == [128, 35 * 128 - 3 * 99], "they were made together"
    monkeypatch.undo()
    assert same(run(splits, tmp_path), run(splits, tmp_path / "other"))


def test_memory_that_a_step_has_freed_serves_the_next(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back(monkeypatch)
    faults = list[int]()

    def each_step() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(2 << 20) for _ in range(10)]
        del kept
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    run(splits, tmp_path, each_step=each_step, epochs=1)
    assert sorted(faults)[len(faults) // 2] < 20_480 / 2, f"{faults} pages of 4 KiB, of 20,480"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_run_stopped_within_an_epoch_ends_with_the_very_weights_of_one_that_was_not(
    splits: Splits, tmp_path: Path, optimizer: Any
) -> None:
    whole = run(splits, tmp_path / "whole", optimizer=optimizer, lr=0.01)
    with pytest.raises(Stopped):
        run(splits, tmp_path / "stopped", stop_after=2, optimizer=optimizer, lr=0.01)
    assert (tmp_path / "stopped" / CHECKPOINT).exists()
    resumed = run(splits, tmp_path / "stopped", optimizer=optimizer, lr=0.01)
    assert same(whole, resumed)


@pytest.mark.parametrize(
    "settings",
    [
        {"log_every": 2, "random": True},
        {"accumulate": 3, "average": "ema", "optimizer": "adamw", "lr": 0.01},
        {"precision": "float16"},
    ],
    ids=str,
)
def test_a_run_goes_on_from_a_checkpoint_within_an_epoch(
    splits: Splits, tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """After 12 + 4 batches, or the last step before them, of 36: what is drawn, added up and logged is as ever."""
    settings = {"network": "linear", **settings}
    kept = {**settings, "checkpoint_steps": 1 if "accumulate" in settings else 2}
    whole = run(splits, tmp_path / "whole", **settings)
    logged = capsys.readouterr().out
    with pytest.raises(Stopped):
        run(splits, tmp_path / "stopped", stop_after=1, **kept)
    steps = list[int]()
    resumed = run(splits, tmp_path / "stopped", each_step=lambda: steps.append(1), **kept)
    assert len(steps) == 36 - 12 - (3 if "accumulate" in settings else 4)
    assert same(whole, resumed)
    assert sorted(set(capsys.readouterr().out.splitlines())) == sorted(set(logged.splitlines()))
    lines = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / METRICS).read_text().splitlines()]
        for name in ("whole", "stopped")
    ]
    assert lines[0] == lines[1]


def test_a_part_of_an_epoch_is_kept_after_so_many_minutes(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=0, network="linear", checkpoint_minutes=1e-9)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["within"]["batches"] == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batches", 0),
        ("batches", True),
        ("count", -1),
        ("seconds", float("nan")),
        ("totals", {"loss": torch.ones(2)}),
        ("totals", {"loss": torch.tensor(float("inf"))}),
        ("generators", {"cpu": torch.ones(3)}),
        ("running", {}),
    ],
)
def test_a_part_of_an_epoch_that_is_none_is_refused(
    splits: Splits, tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=0, network="linear", checkpoint_steps=2)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    saved["within"][name] = value
    torch.save(saved, tmp_path / CHECKPOINT)
    with pytest.raises(DamagedError, match="not a checkpoint of this network"):
        run(splits, tmp_path, network="linear")


def test_a_stopped_run_draws_what_one_that_was_not_stopped_does(splits: Splits, tmp_path: Path) -> None:
    shares = drawing_shares(np.minimum(splits.student_train.data.labels, 3), 4)
    whole = run(splits, tmp_path / "whole", shares=shares)
    assert not same(whole, run(splits, tmp_path / "shuffled"))
    with pytest.raises(Stopped):
        run(splits, tmp_path / "stopped", stop_after=2, shares=shares)
    assert same(whole, run(splits, tmp_path / "stopped", shares=shares))


@pytest.mark.parametrize(
    "settings", [{"accumulate": 5}, {"precision": "float16"}, {"freeze": ("0", "1")}], ids=str
)
def test_a_stopped_run_goes_on_with_added_up_batches_in_float16_and_with_frozen_layers(
    splits: Splits, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = run(splits, tmp_path / "whole", epochs=2, **settings)
    assert not same(whole, run(splits, tmp_path / "plain", epochs=2))
    with pytest.raises(Stopped):
        run(splits, tmp_path / "stopped", stop_after=1, epochs=2, **settings)
    assert same(whole, run(splits, tmp_path / "stopped", epochs=2, **settings))


def test_a_resumed_run_has_one_line_of_metrics_an_epoch(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=1)
    with open(tmp_path / METRICS, "a") as file:  # a line whose checkpoint was never written
        file.write(json.dumps({"epoch": 2, "loss": 0.0, "seconds": 1e9}) + "\n")
    run(splits, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert trained_seconds(tmp_path) == pytest.approx(sum(line["seconds"] for line in lines))
    assert trained_seconds(tmp_path) < 1e8


def test_a_line_of_a_run_that_was_killed_before_its_first_checkpoint_is_dropped(
    splits: Splits, tmp_path: Path
) -> None:
    (tmp_path / METRICS).write_text(json.dumps({"epoch": 1, "loss": 0.0, "seconds": 1e9}) + "\n")
    run(splits, tmp_path, network="linear")
    assert [line["epoch"] for line in read_epochs(tmp_path)] == [1, 2, 3]
    assert trained_seconds(tmp_path) < 1e8


def test_the_seed_decides_the_weights(splits: Splits, tmp_path: Path) -> None:
    first, again = run(splits, tmp_path / "a", seed=7), run(splits, tmp_path / "b", seed=7)
    other = run(splits, tmp_path / "c", seed=8)
    assert same(first, again)
    assert not same(first, other)


def test_training_lowers_the_loss(splits: Splits, tmp_path: Path) -> None:
    run(splits, tmp_path, epochs=6)
    losses = [json.loads(line)["loss"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0], losses


def test_memory_format_does_not_change_what_is_learnt(splits: Splits, tmp_path: Path) -> None:
    last = run(splits, tmp_path / "last", channels_last=True, epochs=1)
    first = run(splits, tmp_path / "first", channels_last=False, epochs=1)
    for name in last:
        torch.testing.assert_close(last[name], first[name], rtol=1e-2, atol=1e-3)


def test_bfloat16_trains_and_keeps_weights_in_float32(splits: Splits, tmp_path: Path) -> None:
    state = run(splits, tmp_path, precision="bfloat16", epochs=2)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    losses = [json.loads(line)["loss"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert losses[1] < losses[0]


def test_clipping_bounds_what_a_step_changes(splits: Splits, tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "network": "linear",
        "epochs": 1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "lr": 1.0,
    }
    start = build_network(
        specify_network(Training(network={"name": "linear"}, epochs=1).network, splits.student_train)
    )
    end = run(splits, tmp_path, clip_norm=1e-4, schedule="constant", **common)
    moved = sum(float((end[name] - value).pow(2).sum()) for name, value in start.state_dict().items()) ** 0.5
    assert 0 < moved <= 12 * 1e-4 * 1.001, f"moved {moved:.2e}, 12 steps of at most 1e-4 each"


def test_the_rate_of_the_schedule_reaches_the_optimizer(splits: Splits, tmp_path: Path) -> None:
    run(splits, tmp_path, schedule="step", milestones=(1,), gamma=0.5, lr=0.08)
    rates = [json.loads(line)["lr"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert rates == [0.08, 0.04, 0.04]


def test_a_network_is_measured_every_so_many_epochs_and_after_the_last(
    splits: Splits, tmp_path: Path
) -> None:
    run(splits, tmp_path, network="linear", evaluate_every=2)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines if "test" in line] == [2, 3]


def test_the_line_of_an_epoch_is_written_before_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill between them would leave an epoch that no line tells of."""

    def full(*given: object) -> None:
        raise OSError("no space left")

    network = nn.Linear(1, 1)
    optimizer = make_optimizer(network, Training(network={"name": "linear"}, epochs=1), CPU)
    monkeypatch.setattr(checkpoint, "append_epoch", full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save_epoch(tmp_path, checkpoint.Kept(network, optimizer), 1, {"epoch": 1})
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("killed", [False, True])
def test_of_short_epochs_the_first_and_the_last_checkpoint_are_written(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """A run that is killed goes on from an earlier epoch, whose later lines are dropped, and ends as ever."""
    written = list[int]()

    def write(path: Path, content: memoryview) -> None:
        written.append(torch.load(io.BytesIO(content), weights_only=True)["epoch"])
        write_atomically(path, content)

    whole = run(splits, tmp_path / "whole", network="linear")
    monkeypatch.setattr(checkpoint, "write_atomically", write)
    monkeypatch.setattr(learner, "SparingWriter", lambda: checkpoint.SparingWriter(1e6))
    with monkeypatch.context() as killing:
        if killed:
            killing.setattr(learner.Learner, "__exit__", lambda *_: None)
        with pytest.raises(Stopped):
            run(splits, tmp_path / "stopped", stop_after=2, network="linear")
    assert written == ([1] if killed else [1, 2])
    assert len(read_epochs(tmp_path / "stopped")) == 2
    assert same(whole, run(splits, tmp_path / "stopped", network="linear"))
    assert written[-1] == 3
    assert [line["epoch"] for line in read_epochs(tmp_path / "stopped")] == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch's threads for GPUs do not survive a fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_process_is_gone_on_from_to_the_very_weights(splits: Splits, tmp_path: Path) -> None:
    """By a signal that nothing can act on, in the third of three short epochs, or after a checkpoint within it."""
    settings = {"optimizer": "adamw", "lr": 0.01, "average": "ema"}
    whole = run(splits, tmp_path / "whole", **settings)
    for within in (None, 5):
        folder, steps = tmp_path / str(within), list[int]()

        def kill(steps: list[int] = steps) -> None:
            steps.append(0)
            if len(steps) == 12 * 2 + 8:
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if not child:
            try:
                run(splits, folder, each_step=kill, checkpoint_steps=within, **settings)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert [line["epoch"] for line in read_epochs(folder)] == [1, 2]
        assert ("within" in torch.load(folder / CHECKPOINT, weights_only=True)) is (within is not None)
        assert same(whole, run(splits, folder, **settings))
        assert [line["epoch"] for line in read_epochs(folder)] == [1, 2, 3]


def test_what_is_random_in_an_epoch_is_drawn_anew_in_each_and_by_the_seed(
    splits: Splits, tmp_path: Path
) -> None:
    """As dropout's is: a number drawn in each of 12 steps of 2 epochs."""

    def drawn(name: str, **settings: Any) -> list[float]:
        found = list[float]()
        run(
            splits,
            tmp_path / name,
            epochs=2,
            each_step=lambda: found.append(float(torch.rand(()))),
            **settings,
        )
        return found

    first = drawn("first")
    assert len(set(first)) == len(first) == 24
    assert drawn("again") == first
    assert not set(drawn("other", seed=1)) & set(first)


def stepped(start: float, gradient: float, steps: int = 1, **settings: Any) -> float:
    """A parameter after steps of the optimizer, whose gradient is the same in each."""
    chosen = Training(network={"name": "linear"}, epochs=1, lr=0.1, **settings)
    owner = nn.ParameterDict({"only": nn.Parameter(torch.tensor([start]))})
    optimizer = make_optimizer(owner, chosen, CPU)
    for _ in range(steps):
        owner["only"].grad = torch.tensor([gradient])
        optimizer.step()
    return float(owner["only"].detach())


def test_the_optimizer_does_what_its_settings_say() -> None:
    """By the formulas of the papers, written out."""
    for name, decayed in (("sgd", 4 - 0.1 * 0.5 * 4), ("adam", 4 - 0.1), ("adamw", 4 - 0.1 * 0.5 * 4)):
        assert stepped(4.0, 0.0, optimizer=name, weight_decay=0.5) == pytest.approx(decayed), name
        assert stepped(4.0, 0.0, optimizer=name, weight_decay=0.0) == 4.0, name
    plain = {"optimizer": "sgd", "weight_decay": 0.0}
    assert stepped(0.0, 1.0, 2, **plain, momentum=0.9, nesterov=False) == pytest.approx(-0.1 * (1 + 1.9))
    nesterov = -0.1 * ((1 + 0.9 * 1) + (1 + 0.9 * 1.9))
    assert stepped(0.0, 1.0, 2, **plain, momentum=0.9, nesterov=True) == pytest.approx(nesterov)


def test_frozen_parameters_are_left_to_themselves() -> None:
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    optimizer = make_optimizer(network, Training(network={"name": "linear"}, epochs=1), CPU)
    assert [parameter.shape for parameter in optimizer.param_groups[0]["params"]] == [(2, 3)]


def test_a_checkpoint_that_is_none_is_named_with_the_way_out(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=1)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:500])
    with pytest.raises(DamagedError, match=r"checkpoint\.pt: not a checkpoint .*; delete it"):
        run(splits, tmp_path)


def test_a_checkpoint_of_which_a_bit_has_changed_is_no_checkpoint(splits: Splits, tmp_path: Path) -> None:
    """PyTorch loads it: training would go on from other weights, and nobody would know."""
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=1)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    with zipfile.ZipFile(tmp_path / CHECKPOINT) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        listed = content.rindex(b"PK\x01\x02", 0, content.rindex(largest.filename.encode()))
    for place, bit in ((largest.header_offset + 256 + largest.file_size // 2, 1), (listed + 38, 0x10)):
        content[place] ^= bit
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(
            DamagedError, match=r"checkpoint\.pt: not a checkpoint .* is not as it was written"
        ):
            run(splits, tmp_path)
        content[place] ^= bit


def test_a_checkpoint_has_its_checksums_whatever_the_process_has_set(splits: Splits, tmp_path: Path) -> None:
    """As code of a user's may do, to save large files in less time."""
    torch.serialization.set_crc32_options(False)
    try:
        with pytest.raises(Stopped):
            run(splits, tmp_path, stop_after=1)
        assert not torch.serialization.get_crc32_options()
        run(splits, tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)


def test_a_torn_last_line_of_metrics_is_dropped(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(splits, tmp_path, stop_after=1)
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"epoch": 2, "lo')
    run(splits, tmp_path)
    assert [json.loads(line)["epoch"] for line in (tmp_path / METRICS).read_text().splitlines()] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # what torch says of Python 3.13.0 alone
def test_compiled_steps_lead_to_the_same_weights_and_say_how_long_the_first_took(
    splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced for real; what is traced is run as it is, since building it in C++ takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = run(splits, tmp_path / "plain", network="mlp", epochs=1)
    assert "compile" not in capsys.readouterr().out
    compiled = run(splits, tmp_path / "compiled", network="mlp", epochs=1, compile=True)
    assert re.search(r"torch\.compile: the first step took \d+\.\d s", capsys.readouterr().out)
    assert set(compiled) == set(plain)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


# The loss while an epoch runs


def test_each_line_is_the_mean_of_the_steps_since_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    running = RunningLoss(epoch=2, every=3)
    for loss in (1.0, 2.0, 6.0, 4.0, 4.0, 1.0, 9.0):
        running.add(torch.tensor(loss, requires_grad=True))
    assert running.lines == [{"step": 3, "loss": 3.0}, {"step": 6, "loss": 3.0}]
    assert capsys.readouterr().out == "[2, 3] loss 3.000\n[2, 6] loss 3.000\n"


def test_without_a_number_of_steps_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    running = RunningLoss(epoch=1, every=None)
    running.add(torch.tensor(1.0))
    assert running.lines == []
    assert not capsys.readouterr().out


def test_lines_of_training_are_kept_by_epoch_and_change_nothing(tmp_path: Path) -> None:
    plain, _ = make_teacher(Plan.of(recipe("teacher.epochs=2"), tmp_path / "plain"), CPU)
    said, _ = make_teacher(
        Plan.of(recipe("teacher.epochs=2", "teacher.log_every=10"), tmp_path / "said"), CPU
    )
    assert said.weights_sha256 == plain.weights_sha256
    assert said.folder.name == plain.folder.name, "what is only printed makes no other run"
    lines = [json.loads(line) for line in (said.folder / METRICS).read_text().splitlines()]
    assert [[found["step"] for found in line["running"]] for line in lines] == [[10, 20]] * 2  # of 23 steps
    assert lines[1]["running"][-1]["loss"] < lines[0]["running"][0]["loss"]
    assert "running" not in (plain.folder / METRICS).read_text()
