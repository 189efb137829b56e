"""A trial that falls behind is pruned, also where its process was killed just when that was decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.sweeps.pruning import Pruned, Watch
from decant.pipeline.sweeps.searches import Claim

EPOCHS = 16


def epochs(trial: int) -> list[Any]:
    """The lines of a trial, of which every other is better than half of those before it."""
    quality = (trial * 7) % 10
    return [{"epoch": epoch, "validation": {"top1": quality * epoch / 100}} for epoch in range(1, EPOCHS + 1)]


def run(watch: Watch, lines: list[Any]) -> str:
    try:
        for line in lines:
            watch(line)
    except Pruned:
        return f"pruned after {line['epoch']}"
    return "done"


def outcomes(killed: Callable[[int, int], str | None]) -> list[str]:
    """Of trials one after the other; killed(trial, epoch) says after what of an epoch a process ends: its `report`, or
    the `decision`.
    """
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS)
    study, found = optuna.create_study(study_name="one", direction="maximize", pruner=pruner), list[str]()
    for number in range(12):
        trial, lines = study.ask(), epochs(number)
        begun = [line for line in lines if killed(number, line["epoch"])][:1]
        watch = Watch(Claim(trial, ()), True, lambda: None, MetricFormat("top1", "top-1", percent=True))
        if not begun:
            found.append(run(watch, lines))
        else:
            (at,) = (line["epoch"] for line in begun)
            found.append(run(watch, lines[: at - 1]))
            if found[-1] == "done":
                trial.report(lines[at - 1]["validation"]["top1"], at)
                if killed(number, at) == "decision":
                    trial.should_prune()  # what it says is lost
                try:
                    watch.catch_up(lines[:at], finished=False)
                    found[-1] = run(watch, lines[at:])
                except Pruned:
                    found[-1] = f"pruned after {at}"
        state = optuna.trial.TrialState.PRUNED if found[-1] != "done" else None
        study.tell(trial, None if state else lines[-1]["validation"]["top1"], state=state)
    return found


def begun() -> Watch:
    """The watch of a first trial, which is better, and is done, and of a second one."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    metric = MetricFormat("top1", "top-1", percent=True)
    run(Watch(Claim(study.ask(), ()), True, lambda: None, metric), epochs(7))
    return Watch(Claim(study.ask(), ()), True, lambda: None, metric)


def test_a_killed_trial_that_was_trained_to_its_end_is_not_pruned() -> None:
    begun().catch_up(epochs(0), finished=True)
    with pytest.raises(Pruned):
        begun().catch_up(epochs(0), finished=False)


def test_a_killed_trial_without_a_measured_epoch_goes_on() -> None:
    begun().catch_up([{"epoch": 1}], finished=False)  # type: ignore[typeddict-item]


@pytest.mark.parametrize("step", ["report", "decision"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 9, 16])
def test_a_killed_trial_is_pruned_where_one_is_that_was_not_killed(step: str, at: int) -> None:
    usual = outcomes(lambda trial, epoch: None)
    assert len(set(usual)) > 3, "some are pruned early, some late, and some are not"
    assert outcomes(lambda trial, epoch: step if epoch == at else None) == usual
