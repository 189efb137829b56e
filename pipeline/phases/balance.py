"""Classes with different numbers of samples: the settings that weigh them, and what is said where none does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.objectives import KD, Objective
from decant.pipeline.config.settings import Training
from decant.pipeline.data.samples import LabelledData, has_labels, num_classes, task_of
from decant.pipeline.errors import RecipeError
from decant.pipeline.support.notices import say_once
from decant.pipeline.training.balance import balanced_weights, class_counts, drawing_shares

_RATIO = 20
"""Of the largest class to the smallest, above which that is said."""


def resolve_class_weights(
    given: str | Sequence[float] | None, data: LabelledData, setting: str
) -> tuple[float, ...] | None:
    """A weight for each class of `data`; None where there are none. Raises RecipeError, naming `setting`, where there
    is another number of them, and where nothing can be balanced.
    """
    if given is None:
        return None
    if (task := task_of(data)) != "classification":
        raise RecipeError(f"{setting}: weighs classes, and {data.name} is a {task}; leave it out")
    if isinstance(given, str):
        _require_labels(data, setting)
        return balanced_weights(data.labels, num_classes(data))
    if len(given) != num_classes(data):
        raise RecipeError(
            f"{setting}: {len(given):,} numbers, and the data have {num_classes(data):,} classes; give one for each, "
            'in their order, or "balanced"'
        )
    return tuple(given)


def resolve_objective(objective: Objective, data: LabelledData) -> Objective:
    """The objective with numbers for its own class weights."""
    if not isinstance(objective, KD) or objective.class_weights is None:
        return objective
    weights = resolve_class_weights(objective.class_weights, data, "student.objective.class_weights")
    return objective.model_copy(update={"class_weights": weights})


def resolve_sampler(settings: Training, data: LabelledData, section: str) -> NDArray[np.float64] | None:
    """(N,) how often each sample is drawn; None where every sample is, once an epoch. Raises RecipeError where there
    are no classes to balance.
    """
    if settings.sampler != "balanced":
        return None
    if (task := task_of(data)) != "classification":
        raise RecipeError(f"{section}.sampler: balances classes, and {data.name} is a {task}; leave it out")
    _require_labels(data, f"{section}.sampler")
    return drawing_shares(data.labels, num_classes(data))


def warn_of_imbalance(settings: Training, data: LabelledData, section: str) -> None:
    """Says on stderr how many samples the largest and the smallest class have, where one has over 20 times as many as
    the other, and no setting takes account of it.
    """
    weighed = settings.class_weights is not None or settings.sampler is not None
    if weighed or getattr(getattr(settings, "objective", None), "class_weights", None) is not None:
        return
    if not settings.epochs or task_of(data) != "classification" or not has_labels(data):
        return
    counts = class_counts(data.labels, num_classes(data))
    present = np.flatnonzero(counts)
    large, small = int(counts.argmax()), int(present[counts[present].argmin()])
    if counts[large] <= _RATIO * counts[small]:
        return
    say_once(
        f"warning: {data.name}: {_called(data, large)} has {counts[large]:,} samples, {_called(data, small)} "
        f'{counts[small]:,}: see balanced accuracy beside top-1; {section}.class_weights = "balanced" or '
        f'{section}.sampler = "balanced" has every class count alike, and sampler = "shuffled" says nothing'
    )


def _called(data: LabelledData, label: int) -> str:
    return f"class {data.classes[label] if data.classes else label}"


def _require_labels(data: LabelledData, setting: str) -> None:
    if not has_labels(data):
        raise RecipeError(f'{setting}: "balanced" counts labels, and {data.name} has none; leave it out')
