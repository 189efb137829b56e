"""A trial while it is trained: its epochs are reported, and it is stopped where it falls behind the others."""

from __future__ import annotations

from collections.abc import Callable

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.sweeps.searches import Claim
from decant.pipeline.training.epoch_log import Epoch


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
