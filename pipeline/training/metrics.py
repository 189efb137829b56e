"""The metrics of a network: pure functions of logits (N, C) and labels (N,), or of outputs and targets (N, T)."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor

from decant import cache
from decant.pipeline.objectives import NO_LABEL, cross_entropy


class Metrics(TypedDict, total=False):
    """Shares are in 0..1, the loss in nats, errors in units of the targets."""

    top1: float
    top5: float
    balanced_accuracy: float
    macro_f1: float
    loss: float
    ece: float
    agreement: float
    mse: float
    mae: float
    r2: float


def measure(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> Metrics:
    """Of the labelled samples: top-1, top-5, balanced accuracy, macro F1, cross-entropy, expected calibration error; of
    all: agreement with the teacher. Where labels are floats, and so the targets of a regression: `errors`.
    """
    if labels.is_floating_point():
        return errors(logits, labels)
    metrics = Metrics()
    labelled = labels != NO_LABEL
    if labelled.any():
        known, answers = logits[labelled].float(), labels[labelled]
        metrics["top1"] = top_k(known, answers, 1)
        metrics["top5"] = top_k(known, answers, 5)
        metrics["balanced_accuracy"], metrics["macro_f1"] = averages_over_classes(known, answers)
        metrics["loss"] = float(cross_entropy(known, answers))
        metrics["ece"] = calibration_error(known, answers)
    if teacher_logits is not None:
        metrics["agreement"] = float((logits.argmax(1) == teacher_logits.argmax(1)).double().mean())
    return metrics


def errors(outputs: Tensor, targets: Tensor) -> Metrics:
    """Mean squared and absolute error, and R²: see `cache.regression_errors`."""
    errors_found = cache.regression_errors([(outputs.float().numpy(), targets.numpy())])
    metrics = Metrics()
    if errors_found is not None:
        metrics["mse"], metrics["mae"] = errors_found.mse, errors_found.mae
        if errors_found.r2 is not None:
            metrics["r2"] = errors_found.r2
    return metrics


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """The share of samples whose label is among the k largest logits (all of them when there are fewer than
    k).
    """
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


def averages_over_classes(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Balanced accuracy, the mean of each class's recall over the classes that have labels; and macro F1, the mean of
    2·TP / (2·TP + FP + FN) over those that have labels or answers. Every class counts alike, however rare.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 0.0]] * 4)  # always class 0
    >>> balanced, f1 = averages_over_classes(logits, torch.tensor([0, 0, 0, 1]))
    >>> balanced, round(f1, 4)
    (0.5, 0.4286)
    """
    answers, classes = logits.argmax(1), logits.shape[1]
    of_labels, of_answers, hits = (
        which.bincount(minlength=classes).double() for which in (labels, answers, labels[answers == labels])
    )
    labelled, seen = of_labels > 0, of_labels + of_answers > 0
    recall, f1 = (hits / of_labels)[labelled], (2 * hits / (of_labels + of_answers))[seen]
    return float(recall.mean()), float(f1.mean())


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error of softmax(logits): see `cache.calibration_error`."""
    confidence, answer = logits.float().softmax(1).max(1)
    return cache.calibration_error(confidence.numpy(), (answer == labels).double().numpy(), bins)
