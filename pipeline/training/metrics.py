"""The metrics of a network: pure functions of logits (N, C) and labels (N,), or of outputs and targets (N, T)."""

from __future__ import annotations

from torch import Tensor

from decant.cache import calibration_error as calibration_error_of
from decant.cache import regression_errors, sigmoid_scores
from decant.pipeline.config.tasks import SIGMOID, Metrics, Task, score_metrics
from decant.pipeline.objectives import NO_LABEL, binary_cross_entropy, cross_entropy


def measure(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None = None,
    task: Task | None = None,
) -> Metrics:
    """Of the labelled samples: top-1, top-5, balanced accuracy, macro F1, cross-entropy, expected calibration error; of
    all: agreement with the teacher. Where labels are floats, they are the targets of a regression: `errors`; or of a
    `task` with sigmoids: `decisions`.
    """
    if task in SIGMOID:
        return decisions(logits, labels, teacher_logits, task)
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
    """Mean squared and absolute error, and R²: see `decant.cache.regression_errors`."""
    errors_found = regression_errors([(outputs.float().numpy(), targets.numpy())])
    metrics = Metrics()
    if errors_found is not None:
        metrics["mse"], metrics["mae"] = errors_found.mse, errors_found.mae
        if errors_found.r2 is not None:
            metrics["r2"] = errors_found.r2
    return metrics


def decisions(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None, task: Task = "multilabel"
) -> Metrics:
    """Of outputs (N, C) with a sigmoid each and labels (N, C), NaN where unknown: mean average precision, micro and
    macro F1, exact match and cross-entropy; of one output ("binary") accuracy, area under the ROC curve, average
    precision, F1, cross-entropy and calibration error. A logit above 0 is a yes. Of all: the share of decisions that
    agree with the teacher's.
    """
    logits = logits.float()
    scores = sigmoid_scores(logits.numpy(), labels.numpy())
    metrics = score_metrics(scores, task)
    if scores is not None:
        metrics["loss"] = float(binary_cross_entropy(logits, labels))
        if task == "binary":
            metrics["ece"] = _binary_calibration_error(logits, labels)
    if teacher_logits is not None:
        metrics["agreement"] = float(((logits > 0) == (teacher_logits > 0)).double().mean())
    return metrics


def _binary_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """That of the likelier of the two answers, by how likely it is."""
    known = ~labels.isnan()
    probability, right = logits[known].sigmoid(), (logits[known] > 0) == (labels[known] == 1)
    return calibration_error_of(probability.maximum(1 - probability).numpy(), right.double().numpy())


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
    """Expected calibration error of softmax(logits): see `decant.cache.calibration_error`."""
    confidence, answer = logits.float().softmax(1).max(1)
    return calibration_error_of(confidence.numpy(), (answer == labels).double().numpy(), bins)
