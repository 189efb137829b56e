"""Batches of logits and labels that every objective is tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from decant.pipeline.config.objectives import BUILTIN
from decant.pipeline.objectives import FUNCTIONS, NO_LABEL, Terms

OF_ROWS = "interpolate"
"""The setting of an objective that is no argument of its function: it is of how the teacher's rows are stored."""
DEFAULTS = {
    name: {
        key: field.default
        for key, field in kind.model_fields.items()
        if key not in ("name", "class_weights", OF_ROWS)
    }
    for name, kind in zip(FUNCTIONS, BUILTIN, strict=True)
}
CLASSIFYING = [name for name in FUNCTIONS if name != "regression"]
SOFTMAX = [name for name in CLASSIFYING if name not in ("ls", "mse")]
LABELLED = [name for name in CLASSIFYING if name not in ("general", "soft-transfer-knowledge")]
SMOOTHED = [name for name in LABELLED if name not in ("soft-transfer-data", "ls")]
DIVERGENCES = ["kd", "ce+kl", "soft-ce", "js", "rkl"]
WEIGHTS = {"alpha", "beta", "gamma", "weight", "ce_weight", "smoothing"}


def problem(
    name: str = "kd", batch: int = 12, classes: int = 5, spread: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits, float64, and labels, of which the third is missing and half are the teacher's."""
    random = np.random.default_rng(seed)
    student = spread * random.normal(size=(batch, classes))
    teacher = spread * random.normal(size=(batch, 2, classes) if name == "general" else (batch, classes))
    labels = random.integers(0, classes, batch)
    labels[::2] = teacher[::2].reshape(len(labels[::2]), -1, classes)[:, 0].argmax(1)
    labels[2:3] = NO_LABEL
    return torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels)


def mixed(labels: Tensor, classes: int = 5, share: float = 0.7) -> Tensor:
    """Each label with the next class, as Mixup would; the missing one stays so."""
    shares = torch.zeros(len(labels), classes, dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        if label != NO_LABEL:
            shares[row, label] += share
            shares[row, (label + 1) % classes] += 1 - share
    return shares


def found(name: str, student: Tensor, teacher: Tensor, labels: Tensor, **settings: Any) -> Terms:
    return FUNCTIONS[name](student, teacher, labels, **{**DEFAULTS[name], **settings})
