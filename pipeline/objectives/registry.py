"""From a recipe's `[student.objective]` to the loss that it describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from decant.pipeline.config.annealing import Scheduled, at
from decant.pipeline.config.objectives import BUILTIN, Builtin, Custom, LabelSmoothing, Objective, name_of
from decant.pipeline.config.tasks import SIGMOID, Task
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import external, hard_labels, sigmoid, squared
from decant.pipeline.objectives.terms import Loss, Terms
from decant.pipeline.support.plugins import shipped

FUNCTIONS: dict[str, Callable[..., Terms]] = {
    name_of(kind): shipped(f"{__package__}.{kind.function}") for kind in BUILTIN
}
"""By name; a setting is the argument of the same name."""

SIGMOID_FUNCTIONS: dict[str, Callable[..., Terms]] = {
    name_of(kind): shipped(f"{__package__}.{kind.sigmoid_function}")
    for kind in BUILTIN
    if kind.sigmoid_function is not None
}
"""The same of tasks whose outputs have a sigmoid each. What is an argument of a softmax alone they do not take."""


def build(
    settings: Objective,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    task: Task = "classification",
) -> Loss:
    """The loss that a recipe's `[student.objective]` describes; its schedules follow `progress`.

    `label_smoothing` goes to the cross-entropy where there is one; `class_weights` (C,) weigh the samples of every mean
    over samples, see `weigh_samples`. Raises RecipeError for a function of the user's that cannot be called, for two
    label smoothings, for class weights where the loss takes no `sample_weights`, and for an objective or a setting of
    it that is not for the task.

    >>> import torch
    >>> from decant.pipeline.config.objectives import KD
    >>> loss = build(KD(name="kd", alpha=0.5, temperature=2.0))
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> terms = loss(logits, logits, torch.tensor([0]), progress=0.0)
    >>> float(terms.soft)
    0.0
    """
    if isinstance(settings, Custom):
        return external.from_function(settings, class_weights)
    if isinstance(settings, LabelSmoothing) and label_smoothing:
        raise RecipeError(
            "student.label_smoothing: must be 0 with objective ls, whose own is objective.smoothing"
        )
    function = FUNCTIONS[settings.name] if task not in SIGMOID else _of_sigmoids(settings, task)
    smooth = {"label_smoothing": label_smoothing}
    if "label_smoothing" not in inspect.signature(function).parameters:
        smooth = {}
    taken = inspect.signature(function).parameters
    if class_weights is not None and "sample_weights" not in taken:
        raise RecipeError(
            f"student.class_weights: weigh classes, and {settings.name} has none; leave them out"
        )
    values: dict[str, Any] = {name: value for name, value in settings if name in taken}

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0) -> Terms:
        now = {name: at(value, progress) for name, value in values.items()}
        if class_weights is not None:
            now["sample_weights"] = hard_labels.weigh_samples(class_weights, labels, teacher_logits)
        return function(student_logits, teacher_logits, labels, **now, **smooth)

    return loss


def is_fixed(settings: Objective) -> bool:
    """Whether the loss is one that ships, and no number of it follows a schedule.

    >>> from decant.pipeline.config.objectives import KD
    >>> is_fixed(KD(name="kd"))
    True
    """
    return not isinstance(settings, Custom) and not any(isinstance(value, Scheduled) for _, value in settings)


def from_labels(
    label_smoothing: float = 0.0,
    task: Task = "classification",
    class_weights: Sequence[float] | None = None,
) -> Callable[..., Tensor]:
    """The loss of a network that has no teacher: (outputs, labels, progress=0.0) → their cross-entropy, weighted by the
    class of each sample where there are `class_weights` (C,); that of sigmoids where the task has those; or the squared
    error of a regression.

    >>> import torch
    >>> from_labels()(torch.zeros(1, 2), torch.tensor([0]))  # ln 2
    tensor(0.6931)
    """

    def loss(outputs: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        if task == "regression":
            return squared.squared_error(outputs, labels)
        if task in SIGMOID:
            return sigmoid.binary_cross_entropy(outputs, labels, label_smoothing)
        weights = None if class_weights is None else hard_labels.weigh_samples(class_weights, labels)
        return hard_labels.cross_entropy(outputs, labels, label_smoothing, weights)

    return loss


def from_cache(
    settings: Objective,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    task: Task = "classification",
) -> Callable[..., Terms]:
    """The loss of a student that learns from a cache, in the order in which its dataset yields: (logits, labels,
    teacher_logits, progress=0.0) → terms.

    >>> import torch
    >>> from decant.pipeline.config.objectives import LogitMSE
    >>> criterion = from_cache(LogitMSE(name="mse"))
    >>> criterion(torch.zeros(1, 2), torch.tensor([0]), torch.ones(1, 2)).total
    tensor(1.)
    """
    loss = build(settings, label_smoothing, class_weights, task)

    def criterion(logits: Tensor, labels: Tensor, teacher_logits: Tensor, progress: float = 0.0) -> Terms:
        return loss(logits, teacher_logits, labels, progress)

    return criterion


def _of_sigmoids(settings: Builtin, task: Task) -> Callable[..., Terms]:
    """The function of a task with sigmoids. Raises RecipeError where there is none, or none with these settings."""
    if settings.name not in SIGMOID_FUNCTIONS:
        raise RecipeError(
            f"student.objective {settings.name!r}: compares softmaxes, and a {task} task has sigmoids: set it to "
            f"{', '.join(SIGMOID_FUNCTIONS)} (or package.module:function)"
        )
    function = SIGMOID_FUNCTIONS[settings.name]
    taken = inspect.signature(function).parameters
    odd = next((name for name, value in settings if name != "name" and name not in taken and value), None)
    if odd is not None:
        raise RecipeError(
            f"student.objective.{odd}: is of softmaxes, and a {task} task has sigmoids: leave it out"
        )
    return function
