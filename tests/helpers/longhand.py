"""Every objective written out in float64, a sample at a time, with SciPy's own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import pearsonr, zscore

Array = NDArray[np.float64]
Found = tuple[float, float | None, float | None]
"""Total, hard, soft."""


def objective(name: str, student: Array, teacher: Array, labels: NDArray[Any], **settings: Any) -> Found:
    """Labels are (B,) with −1 for none, or (B, C) shares."""
    shares = (
        labels if labels.ndim == 2 else np.array([np.arange(student.shape[1]) == y for y in labels], float)
    )
    hard = cross_entropy(student, shares, settings.pop("label_smoothing", 0.0))
    raw_student, raw_teacher = student, teacher
    if settings.pop("standardize", False):
        student, teacher = zscore(student, axis=-1), zscore(teacher, axis=-1)
    at = settings.get("temperature", 1.0)
    match name:
        case "kd":
            weights = settings.get("class_weights") or [1.0] * student.shape[1]
            answers = np.where(shares.any(1, keepdims=True), shares, softmax(raw_teacher, axis=1))
            counts = (answers * weights).sum(1)
            labelled = shares.any(1)
            rows = [
                cross_entropy(student_row[None], share[None])
                for student_row, share in zip(raw_student, shares, strict=True)
            ]
            if "class_weights" in settings:
                hard = float(np.dot(rows, counts * labelled) / (counts * labelled).sum())
            soft = at**2 * float(np.dot(kl(student / at, teacher / at), counts) / counts.sum())
            return between(settings["alpha"], hard, soft)
        case "ce+kl":
            soft = at**2 * kl(student / at, teacher / at).mean()
            return hard + settings["weight"] * soft, hard, soft
        case "soft-ce":
            return between(settings["alpha"], hard, at**2 * entropy(student / at, teacher / at).mean())
        case "mse":
            return between(settings["alpha"], hard, float(np.mean((student - teacher) ** 2)))
        case "js":
            distances = [
                jensenshannon(softmax(s / at), softmax(t / at)) for s, t in zip(student, teacher, strict=True)
            ]
            return between(settings["alpha"], hard, at**2 * float(np.mean(np.square(distances))))
        case "rkl":
            return between(settings["alpha"], hard, at**2 * kl(teacher / at, student / at).mean())
        case "general":
            compare = {"kl": kl, "ce": entropy}
            one = compare[settings["teacher_divergence"]](student / at, teacher[:, 0] / at).mean()
            other = compare[settings["knowledge_divergence"]](student / at, teacher[:, 1] / at).mean()
            total = settings["alpha"] * one + settings["beta"] * other
            return total, None, total
        case "dkd":
            soft = expected(
                lambda s, t, y: at**2 * decoupled(s / at, t / at, y, settings), student, teacher, shares
            )
            return settings["ce_weight"] * hard + soft, hard, soft
        case "nkd":
            soft = expected(
                lambda s, t, y: normalized(s, t, y, at, settings["gamma"]), student, teacher, shares
            )
            return settings["ce_weight"] * hard + soft, hard, soft
        case "dist":
            ours, theirs = softmax(student / at, axis=1), softmax(teacher / at, axis=1)
            inter, intra = 1 - correlation(ours, theirs), 1 - correlation(ours.T, theirs.T)
            soft = at**2 * (settings["beta"] * inter + settings["gamma"] * intra)
            return settings["ce_weight"] * hard + soft, hard, soft
        case "soft-transfer-knowledge":
            soft = entropy(student / at, teacher / at).mean()
            return soft, None, soft
        case "soft-transfer-data":
            soft = confirmed(student / at, teacher, shares)
            return soft, None, soft
        case "soft-transfer-model":
            soft, share = confirmed(student / at, teacher, shares), settings["weight"]
            return share * hard + (1 - share) * soft, hard, soft
        case "ls":
            return cross_entropy(student, shares, settings["smoothing"]), hard, None
    raise AssertionError(name)


def between(alpha: float, hard: float, soft: float) -> Found:
    return (1 - alpha) * hard + alpha * soft, hard, soft


def cross_entropy(student: Array, shares: Array, smoothing: float = 0.0) -> float:
    """The mean over the labelled samples."""
    terms = []
    for logits, share in zip(student, shares, strict=True):
        if share.any():
            target = (1 - smoothing) * share + smoothing / len(share)
            terms.append(-(target * log_softmax(logits)).sum())
    return float(np.mean(terms)) if terms else 0.0


def kl(student: Array, teacher: Array) -> Array:
    return rel_entr(softmax(teacher, axis=1), softmax(student, axis=1)).sum(1)


def entropy(student: Array, teacher: Array) -> Array:
    return -(softmax(teacher, axis=1) * log_softmax(student, axis=1)).sum(1)


def expected(term: Any, student: Array, teacher: Array, shares: Array) -> float:
    """The mean over the samples of a term of the target class, weighed by the label's shares."""
    values = []
    for s, t, share in zip(student, teacher, shares, strict=True):
        share = share if share.any() else np.eye(len(t))[t.argmax()]
        values.append(sum(share[y] * term(s, t, y) for y in range(len(t))))
    return float(np.mean(values))


def decoupled(student: Array, teacher: Array, target: int, settings: dict[str, Any]) -> float:
    q, p = softmax(student)[target], softmax(teacher)[target]
    of_target = rel_entr([p, 1 - p], [q, 1 - q]).sum()
    of_others = rel_entr(softmax(np.delete(teacher, target)), softmax(np.delete(student, target))).sum()
    return settings["alpha"] * of_target + settings["beta"] * of_others


def normalized(student: Array, teacher: Array, target: int, at: float, gamma: float) -> float:
    of_target = -softmax(teacher)[target] * log_softmax(student)[target]
    ours, theirs = np.delete(student, target)[None] / at, np.delete(teacher, target)[None] / at
    return of_target + gamma * at**2 * entropy(ours, theirs)[0]


def correlation(ours: Array, theirs: Array) -> float:
    """Pearson's, fading where |a − mean a|·|b − mean b| nears 1e-8, as in the authors' code."""
    values = []
    for one, other in zip(ours, theirs, strict=True):
        size = len(one) * one.std() * other.std()
        values.append(pearsonr(one, other).statistic * size / (size + 1e-8))
    return float(np.mean(values))


def confirmed(student: Array, teacher: Array, shares: Array) -> float:
    terms = []
    for s, t, share in zip(student, teacher, shares, strict=True):
        if share.any():
            y = share.argmax()
            terms.append(-log_softmax(s)[y] if t.argmax() == y else 0.0)
    return float(np.mean(terms)) if terms else 0.0
