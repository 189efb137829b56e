"""--log-to: what a training measures reaches TensorBoard, Weights & Biases and MLflow, and none of them can stop it."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.errors import ModelError
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.support.notices import forget_what_was_said
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.tracking.tracker import scalars_of
from decant.pipeline.training.epoch_log import append_epoch, read_epochs
from tests.helpers.commands import decant
from tests.helpers.extras import needs
from tests.helpers.small import CPU, plan, recipe

Curves = dict[str, list[tuple[int, float]]]
"""(epoch, value) by name."""


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    forget_what_was_said()
    yield
    forget_what_was_said()


def logged(folder: Path) -> Curves:
    """What metrics.jsonl has."""
    found: Curves = {}
    for line in read_epochs(folder):
        for name, value in scalars_of(line).items():
            found.setdefault(name, []).append((line["epoch"], value))
    return found


def in_tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def in_wandb(file: Path) -> Curves:
    """What the file of an offline run has: after 7 bytes, records with their checksum, length and kind."""
    from wandb.proto import wandb_internal_pb2

    content, found, place, whole = file.read_bytes(), Curves(), 7, b""
    assert len(content) < 2**15, "one block"
    while place < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind not in (1, 4):  # whole, or the last part
            continue
        record = wandb_internal_pb2.Record()
        record.ParseFromString(whole)
        whole = b""
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if not name.startswith("_"):
                found.setdefault(name, []).append((record.history.step.num, json.loads(item.value_json)))
    return found


def close(found: Curves, expected: Curves) -> bool:
    """Whether curves are the same up to float32, which TensorBoard stores."""
    return found.keys() == expected.keys() and all(
        [epoch for epoch, _ in found[name]] == [epoch for epoch, _ in expected[name]]
        and [value for _, value in found[name]]
        == pytest.approx([value for _, value in expected[name]], rel=1e-6)
        for name in expected
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The teacher of a training that is logged nowhere."""
    return make_teacher(plan(tmp_path_factory.mktemp("plain")), CPU)[0]


def test_tensorboard_has_what_metrics_jsonl_has_and_the_weights_are_the_same(
    tmp_path: Path, plain: Any
) -> None:
    result, _ = make_teacher(plan(tmp_path), CPU, LogTo(["tensorboard"], tmp_path))
    assert close(in_tensorboard(result.folder), logged(result.folder))
    assert {"train/loss", "train/lr", "test/top1"} <= in_tensorboard(result.folder).keys()
    assert result.weights_sha256 == plain.weights_sha256


class TestRealTrackers:
    pytestmark = needs("wandb", "mlflow")

    def test_wandb_has_it_offline(self, tmp_path: Path, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WANDB_MODE", raising=False)
        result, _ = make_teacher(plan(tmp_path), CPU, LogTo(["wandb"], tmp_path))
        (file,) = result.folder.glob("wandb/offline-run-*/run-*.wandb")
        assert close(in_wandb(file), logged(result.folder))
        assert result.weights_sha256 == plain.weights_sha256

    def test_mlflow_has_it_in_a_folder(self, tmp_path: Path, plain: Any) -> None:
        result, _ = make_teacher(plan(tmp_path), CPU, LogTo(["mlflow", "tensorboard"], tmp_path))
        (run,) = in_mlflow(tmp_path)
        assert close(run[1], logged(result.folder))
        assert run[0].info.status == "FINISHED"
        assert run[0].data.params["teacher.network.width"] == "4"
        assert result.weights_sha256 == plain.weights_sha256
        assert in_tensorboard(result.folder), "both were logged to"


def in_mlflow(base: Path) -> list[tuple[Any, Curves]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(base / "mlruns").as_uri())
    ids = [one.experiment_id for one in client.search_experiments()]
    return [
        (
            run,
            {
                name: sorted(
                    (one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)
                )
                for name in run.data.metrics
            },
        )
        for run in client.search_runs(ids)
    ]


def interrupted_and_finished(name: str, folder: Path) -> None:
    """Two epochs, an interruption, and after it the third."""
    log_to = LogTo([name], folder)

    def epochs(*numbers: int) -> None:
        with log_to.run("teacher", recipe(), folder / "run") as log:
            for number in numbers:
                line = {"epoch": number, "loss": 1 / number}
                append_epoch(folder / "run", line)
                log(line)
            if numbers[-1] < 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        epochs(1, 2)
    epochs(3)


EXPECTED: Curves = {"train/loss": [(1, 1.0), (2, 0.5), (3, 1 / 3)]}


def test_a_curve_goes_on_after_an_interruption(tmp_path: Path) -> None:
    interrupted_and_finished("tensorboard", tmp_path)
    assert close(in_tensorboard(tmp_path / "run"), EXPECTED)


class TestRealTrackersAfterAnInterruption:
    pytestmark = needs("wandb", "mlflow")

    def test_mlflow_goes_on_with_its_run(self, tmp_path: Path) -> None:
        interrupted_and_finished("mlflow", tmp_path)
        ((run, curves),) = in_mlflow(tmp_path)
        assert (run.info.status, close(curves, EXPECTED)) == ("FINISHED", True)

    def test_wandb_has_a_run_with_every_epoch(self, tmp_path: Path) -> None:
        interrupted_and_finished("wandb", tmp_path)
        files = list((tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb"))
        given_up = time.monotonic() + 30  # a process of the library's own writes them
        while EXPECTED not in (found := [in_wandb(file) for file in files]) and time.monotonic() < given_up:
            time.sleep(0.2)
        assert EXPECTED in found


def test_a_tracker_that_cannot_begin_is_said_once_and_the_training_goes_on(
    tmp_path: Path, plain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(tmp_path)
    planned.teacher_folder.mkdir(parents=True)
    (planned.teacher_folder / "tensorboard").write_text("a file where the folder of events would be")
    result, _ = make_teacher(planned, CPU, LogTo(["tensorboard"], tmp_path))
    said = capsys.readouterr().err
    assert said.count("--log-to tensorboard: failed (FileExistsError") == 1
    assert "is left out; the training goes on, and metrics.jsonl has every epoch" in said
    assert result.weights_sha256 == plain.weights_sha256


def test_a_tracker_that_fails_later_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from decant.pipeline.tracking import log_to
    from decant.pipeline.tracking.event_files import EventFiles

    class Fails(EventFiles):
        def __init__(self, run: Any) -> None: ...

        def log(self, epoch: int, scalars: Any) -> None:
            if epoch == 2:
                raise ConnectionError("the server is gone")

    monkeypatch.setitem(log_to.TRACKERS, "wandb", Fails)
    monkeypatch.setattr(Fails, "library", staticmethod(lambda: None))
    result, _ = make_teacher(plan(tmp_path), CPU, LogTo(["wandb", "tensorboard"], tmp_path))
    assert capsys.readouterr().err.count("--log-to wandb: failed (ConnectionError: the server is gone") == 1
    assert close(in_tensorboard(result.folder), logged(result.folder))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb: installed")
def test_a_library_that_is_missing_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"wandb is not installed; run: pip install 'decant-kd\[wandb\]'"):
        LogTo(["wandb"])
    ended = decant("teacher", "--log-to", "wandb", "--set", "teacher.epochs=1", cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("wandb is not installed")) == (1, 1)
    assert not (tmp_path / "runs").exists()


def test_the_command_logs_and_says_when_nothing_was_left_to_log(tmp_path: Path) -> None:
    words = (
        "teacher",
        "--log-to",
        "tensorboard",
        "--set",
        "teacher.epochs=1",
        "--set",
        "teacher.network.width=4",
    )
    first, again = decant(*words, cwd=tmp_path), decant(*words, cwd=tmp_path)
    (folder,) = (tmp_path / "runs/digits").glob("teacher-*")
    assert (first.returncode, first.stderr) == (0, "")
    assert close(in_tensorboard(folder), logged(folder))
    assert again.stderr.startswith(
        "--log-to tensorboard: nothing was logged, as every network was found finished"
    )
