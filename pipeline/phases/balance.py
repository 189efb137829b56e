"""Classes with different numbers of samples: what each sample then counts, how often it is drawn, and what is said
where no setting weighs them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.objectives import KD, Objective
from decant.pipeline.config.settings import Training
from decant.pipeline.data.samples import NO_LABEL, LabelledData, has_labels, num_classes, task_of
from decant.pipeline.errors import RecipeError
from decant.pipeline.support.notices import say_once

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


def class_counts(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """(C,) how many samples have each label; those without one are left out.

    >>> class_counts(np.array([0, 0, 2, -1]), 3).tolist()
    [2, 0, 1]
    """
    return np.bincount(labels[labels != NO_LABEL], minlength=num_classes).astype(np.int64)


def balanced_weights(labels: NDArray[np.integer], num_classes: int) -> tuple[float, ...]:
    """N / (C · n) of each class with n of the N samples that have a label, C being the classes that have any: a mean
    of 1 over the samples. A class without samples counts as the rarest.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
    (0.6666666666666666, 2.0)
    """
    counts = class_counts(labels, num_classes)
    present = counts[counts > 0]
    least = int(present.min()) if len(present) else 1
    each = counts.sum() / (max(len(present), 1) * np.where(counts > 0, counts, least))
    return tuple(each.tolist())


def drawing_shares(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """(N,) how often each sample is drawn, summing to 1: every class as often as any other that has samples; samples
    without a label as often as they are.

    >>> drawing_shares(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    weights = np.array(balanced_weights(labels, num_classes))
    shares = np.where(labels == NO_LABEL, 1.0, weights[np.maximum(labels, 0)])
    return np.asarray(shares / shares.sum())


def _called(data: LabelledData, label: int) -> str:
    return f"class {data.classes[label] if data.classes else label}"


def _require_labels(data: LabelledData, setting: str) -> None:
    if not has_labels(data):
        raise RecipeError(f'{setting}: "balanced" counts labels, and {data.name} has none; leave it out')
