"""Students of several seeds in one loop: the runs that they are alone, and why some are not trained so."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from decant.cache import CorruptError, LogitCache, RewrittenError
from decant.pipeline.errors import ChangedError, DivergedError, ModelError
from decant.pipeline.networks.build import specify_network
from decant.pipeline.phases import several_seeds, student
from decant.pipeline.phases.job import TrainingJob
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.several_seeds import SeveralSeeds, why_apart
from decant.pipeline.phases.student import jobs_for_seed, train_students
from decant.pipeline.phases.training_dataset import training_dataset
from decant.pipeline.runs.locks import holder
from decant.pipeline.runs.result import WEIGHTS, Result
from decant.pipeline.support.notices import forget_what_was_said
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.epoch_log import CHECKPOINT, METRICS, read_epochs
from decant.pipeline.training.learner import Learner
from tests.helpers.commands import decant, decant_at_once, succeed
from tests.helpers.processes import wait_until
from tests.helpers.small import CPU, VIEWS, build_cache, plan

MLP = (*VIEWS, "student.network=mlp", "student.seeds=3")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return build_cache(tmp_path_factory.mktemp("cache"), *VIEWS)


def made(folder: Path, *overrides: str, together: bool) -> list[tuple[Result, bool]]:
    return list(train_students(plan(folder, *overrides), CPU, together=together))


def as_is(result: Result) -> dict[str, Any]:
    """What a run says of itself, but for the time that it took."""
    same = replace(
        result, seconds=0.0, latency_ms=None, folder=Path(result.folder.parent.name, result.folder.name)
    )
    return vars(same)


def job_of(planned: Plan, cache: LogitCache) -> TrainingJob:
    data = training_dataset(planned, cache, "sample", CPU)
    spec = specify_network(planned.settings.student.network, planned.splits.student_train)
    return jobs_for_seed(planned, cache, spec, data, 0)[-1]


def test_they_are_the_runs_that_they_are_alone(
    tmp_path: Path, opened: LogitCache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = f"cache.from={opened.path}"
    at_once = made(tmp_path / "together", *MLP, cache, together=True)
    one_by_one = made(tmp_path / "alone", *MLP, cache, together=False)
    assert [(result.kind, result.seed, found) for result, found in at_once] == [
        (kind, seed, False) for kind in ("labels", "distilled") for seed in range(3)
    ]
    key = lambda made: (made[0].seed, made[0].kind)  # noqa: E731
    for (one, _), (other, _) in zip(sorted(at_once, key=key), sorted(one_by_one, key=key), strict=True):
        assert as_is(one) == as_is(other)
        assert {path.name for path in one.folder.iterdir()} == {path.name for path in other.folder.iterdir()}
        assert [line["together"] for line in read_epochs(one.folder)] == [3, 3]
    assert capsys.readouterr().err == ""
    again = made(tmp_path / "together", *MLP, "student.seeds=4", cache, together=True)
    assert [found for _, found in again] == [True] * 3 + [False] + [True] * 3 + [False]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("student.network=conv", None),
        ("student.compile=true", "student.compile makes one network quick"),
        ("student.log_every=3", "student.log_every prints the losses of one network"),
        ('student.precision="float16"', 'student.precision = "float16" scales the gradients of one network'),
        (
            'student.class_weights="balanced"',
            "its network or loss is code of your own, or the loss has class",
        ),
        ("student.objective.alpha={from=0.9, to=0.1}", "its network or loss is code of your own, or"),
        ("student.average='ema'", None),
    ],
)
def test_what_stands_against_one_loop_is_found(
    tmp_path: Path, opened: LogitCache, settings: str, why: str | None
) -> None:
    found = why_apart(job_of(plan(tmp_path, *VIEWS, settings), opened), LogTo())
    assert found is None if why is None else (found or "").startswith(why)


def test_a_network_that_draws_numbers_and_a_tracker_of_one_run_stand_against_it(
    tmp_path: Path, opened: LogitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, mlflow = job_of(plan(tmp_path, *MLP), opened), LogTo()
    mlflow.names = ("mlflow",)
    assert why_apart(job, mlflow) == "--log-to mlflow follows one run at a time"
    monkeypatch.setattr(
        several_seeds, "build_network", lambda spec, seed: nn.Sequential(nn.Flatten(), nn.Dropout())
    )
    assert (why_apart(job, LogTo()) or "").startswith("its network draws random numbers, as dropout does")


class Given:
    """Data whose batches are what they are given."""

    def __init__(self, *batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 2

    def batch(self, keys: Any) -> tuple[Any, ...]:
        return self._batch


def test_texts_and_mixed_labels_stand_against_it(tmp_path: Path, opened: LogitCache) -> None:
    job, images = job_of(plan(tmp_path, *MLP), opened), torch.zeros(2, 1, 8, 8)
    texts, mixed = (
        Given({"input_ids": torch.ones(2, 3)}, torch.zeros(2)),
        Given(images, torch.ones(2, 10) / 10),
    )
    assert why_apart(replace(job, data=texts), LogTo()) == "texts differ in length"
    assert why_apart(replace(job, data=mixed), LogTo()) == "its labels are mixed"
    assert why_apart(replace(job, data=Given(images, torch.zeros(2))), LogTo()) is None


def test_every_run_is_locked_until_all_are_made_and_a_finished_one_is_left(
    tmp_path: Path, opened: LogitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, trained = job_of(plan(tmp_path, *MLP), opened), list[Path]()
    jobs = [replace(job, folder=tmp_path / f"seed-{seed}") for seed in range(3)]
    made = {jobs[0].folder: jobs[0]}

    def begin(job: TrainingJob, recipe: object) -> nn.Module:
        trained.append(job.folder)
        assert [holder(each.folder) is None for each in jobs] == [False] * 3
        return nn.Linear(1, 1)

    def together(learners: Sequence[Learner], *_: object, **__: object) -> dict[Learner, DivergedError]:
        made[jobs[1].folder] = jobs[1]
        if len(trained) == 2:
            raise RewrittenError(
                "written to meanwhile"
            )  # as when one of them is finished and the other is not
        return {}

    names = {"begin": begin, "train_together": together}
    names |= {"finish": lambda job, *_: made.update({job.folder: job}), "load_result": made.get}
    for name, stand_in in names.items():
        monkeypatch.setattr(several_seeds, name, stand_in)
    monkeypatch.setattr(SeveralSeeds, "_find", lambda _, job: made.get(job.folder))
    phase: Any = SeveralSeeds(plan(tmp_path).recipe, CPU, MagicMock(measured_on="test"), LogTo())
    assert [found for _, found in phase(jobs)] == [True, False, False]
    assert [folder.name for folder in trained] == ["seed-1", "seed-2", "seed-2"]
    assert [holder(each.folder) for each in jobs] == [None] * 3


def test_seeds_that_cannot_be_in_one_loop_are_trained_one_after_the_other(
    tmp_path: Path, opened: LogitCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (
        *MLP,
        "student.epochs=1",
        "student.seeds=2",
        "student.baseline=false",
        f"cache.from={opened.path}",
    )
    forget_what_was_said()
    assert len(made(tmp_path / "class", *settings, 'student.class_weights="balanced"', together=True)) == 2
    assert "--together: students are trained one after the other: its network or" in capsys.readouterr().err

    def full(*_: object, **__: object) -> None:
        raise ModelError("network 'mlp': out of memory on a batch of 256") from MemoryError()

    monkeypatch.setattr(several_seeds, "train_together", full)
    assert [found for _, found in made(tmp_path / "memory", *settings, together=True)] == [False, False]
    assert "one after the other: 2 do not fit in memory" in capsys.readouterr().err


def test_the_others_are_finished_when_one_has_diverged(
    tmp_path: Path, opened: LogitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*MLP, "student.epochs=1", "student.baseline=false", f"cache.from={opened.path}")
    really = several_seeds.train_together

    def diverging(learners: Sequence[Learner], *given: Any, **more: Any) -> dict[Learner, DivergedError]:
        return {**really(learners, *given, **more), learners[1]: DivergedError("seed-1: has diverged")}

    monkeypatch.setattr(several_seeds, "train_together", diverging)
    finished = list[int]()
    with pytest.raises(DivergedError, match="seed-1"):
        finished.extend(
            result.seed for result, _ in train_students(plan(tmp_path, *settings), CPU, together=True)
        )
    assert finished == [0, 2]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("error", "shown_by_checksums"), [(ChangedError, False), (CorruptError, True)])
def test_nobody_goes_on_from_what_was_trained_on_changed_data(
    together: bool,
    error: type[Exception],
    shown_by_checksums: bool,
    tmp_path: Path,
    opened: LogitCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the end of decoding shows, after an epoch, that image files were written to meanwhile."""
    settings = (*MLP, "student.epochs=3", "student.baseline=false", f"cache.from={opened.path}")
    checkpoints = list[int]()

    def check_unchanged(data: object, checksums: bool) -> None:
        found = len(list(tmp_path.rglob(CHECKPOINT)))
        if checksums is shown_by_checksums and found == (3 if together else 1):
            checkpoints.append(found)
            raise error("changed")

    monkeypatch.setattr(student, "check_unchanged", check_unchanged)
    with pytest.raises(error, match="changed"):
        made(tmp_path, *settings, together=together)
    assert checkpoints
    assert not list(tmp_path.rglob(CHECKPOINT))
    logged = {len(read_epochs(path.parent)) for path in tmp_path.rglob(METRICS)}
    assert logged == {3 if shown_by_checksums else 1}, "it is asked before each epoch is kept"


def test_a_command_that_is_killed_goes_on_to_the_very_weights(tmp_path: Path, opened: LogitCache) -> None:
    settings = (*MLP, "student.epochs=4", "student.baseline=false", f"cache.from={opened.path}")
    words = ["student", *(word for setting in settings for word in ("--set", setting)), "--together"]

    def kill(children: list[int]) -> None:
        wait_until(lambda: len(list(tmp_path.glob(f"runs/*/student*/*/{METRICS}"))) == 3)
        wait_until(lambda: list(tmp_path.glob(f"runs/*/student*/*/{CHECKPOINT}")))
        os.kill(children[0], signal.SIGKILL)

    (killed,) = decant_at_once([(words, {})], tmp_path, kill)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(f"runs/*/student*/*/{CHECKPOINT}"))
    assert succeed(decant(*words, cwd=tmp_path)).count("made runs/digits/") == 3
    succeed(decant(*words, "--no-together", "--runs", "alone", cwd=tmp_path))
    ours, theirs = (
        {path.parent.name: load_file(path) for path in folder.glob(f"*/student*/*/{WEIGHTS}")}
        for folder in (tmp_path / "runs", tmp_path / "alone")
    )
    assert ours.keys() == theirs.keys() == {"seed-0", "seed-1", "seed-2"}
    assert all(torch.equal(ours[seed][name], theirs[seed][name]) for seed in ours for name in ours[seed])
