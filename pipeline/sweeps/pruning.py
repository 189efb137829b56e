"""A trial while it is trained: its epochs are reported, and it is stopped where it falls behind the others."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import Trial

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.sweeps.searches import Claim
from decant.pipeline.training.epoch_log import Epoch

_RUNG = "completed_rung_"
"""And its number: what Optuna keeps of a trial in successive halving."""


class Pruned(Exception):
    """A trial that fell behind, and is stopped."""


class Watch:
    """Reports the metric of each epoch of a trial, and ends it where the pruner says so."""

    def __init__(self, claim: Claim, prunes: bool, alive: Callable[[], None], figure: MetricFormat) -> None:
        self._trial, self._prunes, self._alive, self._figure = claim.trial, prunes, alive, figure

    def catch_up(self, lines: list[Epoch], finished: bool) -> None:
        """Reports epochs that were trained before; raises Pruned where they are enough to say so."""
        for line in lines if self._prunes else ():
            self._report(line)
        if lines and not finished:
            self._decide()
            if self._prunes and _was_to_be_pruned(self._trial):
                raise Pruned

    def __call__(self, line: Epoch) -> None:
        self._alive()
        if self._prunes:
            self._report(line)
            self._decide()

    def _report(self, line: Epoch) -> None:
        value = self._figure.value(line.get("validation", {}))
        known = self._trial.study.get_trials(deepcopy=False)[self._trial.number].intermediate_values
        if value is not None and line["epoch"] not in known:
            self._trial.report(value, line["epoch"])

    def _decide(self) -> None:
        if self._prunes and self._trial.should_prune():
            raise Pruned


def _was_to_be_pruned(trial: Trial) -> bool:
    """What was decided of a trial by its last report, whose process may have been killed before it was pruned. The
    pruner notes the rung that a trial has reached before it says whether it goes on, and looks at each rung once: so it
    is asked again in a copy of the study, without the rungs that were reached by that report.
    """
    trials = trial.study.get_trials()
    own = trials[trial.number]
    if own.last_step is None:
        return False
    value, attributes = own.intermediate_values[own.last_step], own.system_attrs
    reached = sum(name.startswith(_RUNG) for name in attributes)
    while reached and attributes.get(f"{_RUNG}{reached - 1}") == value:
        reached -= 1
        del attributes[f"{_RUNG}{reached}"]
    study = trial.study
    copy = optuna.create_study(study_name=study.study_name, direction=study.direction, pruner=study.pruner)
    copy.add_trials(trials)
    return study.pruner.prune(copy, copy.get_trials()[trial.number])
