"""Which settings a trial gets: a function of the sweep's seed, the trial's number and the trials that ended before it,
so that a sweep that was killed goes on with the settings that it would have had.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from decant.pipeline.sweeps.space import Choices, Setting

Points = Sequence[tuple[Any, ...]]
"""The values of each trial, by its number, in the order of the settings."""


def suggest(trial: optuna.trial.Trial, setting: Setting) -> None:
    """Has a trial draw a setting, unless it has one."""
    if isinstance(setting, Choices):
        trial.suggest_categorical(setting.path, setting.shown)
    elif setting.whole:
        trial.suggest_int(setting.path, int(setting.low), int(setting.high), log=setting.log)
    else:
        trial.suggest_float(setting.path, setting.low, setting.high, log=setting.log)


def value_of(setting: Setting, drawn: Any) -> str:
    """What was drawn, as --set takes it: a journal has values without their secrets. Raises ValueError for what is none
    of the values.
    """
    if isinstance(setting, Choices):
        return setting.values[setting.shown.index(drawn)]
    return setting.text(float(drawn))


class _OneByOne(optuna.samplers.BaseSampler):
    """Gives each setting of a trial by itself, and none together."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


class Repeatable(_OneByOne):
    """Draws each setting of each trial with a seed of its own, by TPE or at random."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        drawn = hashlib.sha256(f"{self._seed} {trial.number} {param_name}".encode()).digest()
        seed = int.from_bytes(drawn[:4], "big") >> 1
        inner: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)
        if self._kind == "tpe":
            inner = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        return inner.sample_independent(study, trial, param_name, param_distribution)


class Listed(_OneByOne):
    """Gives each trial the values that are listed for its number."""

    def __init__(self, space: Sequence[Setting], points: Points) -> None:
        self._points = [
            {setting.path: shown(setting, value) for setting, value in zip(space, point, strict=True)}
            for point in points
        ]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._points[trial.number][param_name]


def shown(setting: Setting, value: Any) -> Any:
    """A value without its secrets."""
    return setting.shown[setting.values.index(value)] if isinstance(setting, Choices) else value


def shuffled(points: Points, seed: int) -> Points:
    """The same points in an order of the seed, so that a grid that is cut short has some of everything."""
    return random.Random(seed).sample(list(points), len(points))
