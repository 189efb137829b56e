"""From a recipe's `[student.objective]` to the loss that it describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from decant.pipeline.config.annealing import at
from decant.pipeline.config.objectives import LabelSmoothing, Objective, Own
from decant.pipeline.config.tasks import Task
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import (
    decoupled,
    divergences,
    external,
    hard_labels,
    relational,
    squared,
    transfer,
    two_teachers,
)
from decant.pipeline.objectives.terms import Loss, Terms

FUNCTIONS: dict[str, Callable[..., Terms]] = {
    "kd": divergences.kd,
    "ce+kl": divergences.ce_plus_kl,
    "soft-ce": divergences.soft_ce,
    "mse": squared.logit_mse,
    "js": divergences.js,
    "rkl": divergences.rkl,
    "general": two_teachers.general,
    "dkd": decoupled.dkd,
    "dist": relational.dist,
    "nkd": decoupled.nkd,
    "soft-transfer-knowledge": transfer.transfer_knowledge,
    "soft-transfer-data": transfer.transfer_data,
    "soft-transfer-model": transfer.transfer_model,
    "ls": hard_labels.smoothed_labels,
    "regression": squared.regression,
}
"""By name; a setting is the argument of the same name."""


def build(settings: Objective, label_smoothing: float = 0.0) -> Loss:
    """The loss that a recipe's `[student.objective]` describes; its schedules follow `progress`.

    `label_smoothing` goes to the cross-entropy where there is one. Raises RecipeError for a function of one's own
    that cannot be called, and for two label smoothings.
    """
    if isinstance(settings, Own):
        return external.from_function(settings)
    if isinstance(settings, LabelSmoothing) and label_smoothing:
        raise RecipeError(
            "student.label_smoothing: must be 0 with objective ls, whose own is objective.smoothing"
        )
    function = FUNCTIONS[settings.name]
    smooth = {"label_smoothing": label_smoothing}
    if "label_smoothing" not in inspect.signature(function).parameters:
        smooth = {}
    values = {name: value for name, value in settings if name != "name"}

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0) -> Terms:
        now = {name: at(value, progress) for name, value in values.items()}
        return function(student_logits, teacher_logits, labels, **now, **smooth)

    return loss


def from_labels(label_smoothing: float = 0.0, task: Task = "classification") -> Callable[..., Tensor]:
    """The loss of a network that has no teacher: (outputs, labels, progress=0.0) → their cross-entropy, or the
    squared error of a regression.
    """

    def loss(outputs: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        if task == "regression":
            return squared.squared_error(outputs, labels)
        return hard_labels.cross_entropy(outputs, labels, label_smoothing)

    return loss


def from_cache(settings: Objective, label_smoothing: float = 0.0) -> Callable[..., Terms]:
    """The loss of a student that learns from a cache, in the order in which its dataset yields: (logits, labels,
    teacher_logits, progress=0.0) → terms.
    """
    loss = build(settings, label_smoothing)

    def criterion(logits: Tensor, labels: Tensor, teacher_logits: Tensor, progress: float = 0.0) -> Terms:
        return loss(logits, teacher_logits, labels, progress)

    return criterion
