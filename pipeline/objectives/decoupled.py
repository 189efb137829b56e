"""The target class and the others apart: DKD and NKD.

Both take one class of a sample for the target: its label. Of a mixed label each class is the target with its share, and
the term is the expectation over them. Of a sample without a label it is the teacher's likeliest class: any class splits
the teacher's softmax in two, and that one is the best guess of the label. Only the cross-entropy needs a label.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.divergences import cross_entropy_rows, kl_rows
from decant.pipeline.objectives.hard_labels import cross_entropy, target_classes
from decant.pipeline.objectives.terms import Terms, prepare_logits, tempered


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    ce_weight: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """CE + T²·(α·TCKD + β·NCKD): Zhao et al., "Decoupled Knowledge Distillation" (2022), equation 7.

    TCKD is the KL of (p, 1 − p), p being the target class's share of the softmax at T; NCKD the KL of the softmaxes
    over the other classes alone. KL = TCKD + (1 − p of the teacher)·NCKD, equation 5. The paper's defaults; its
    first epochs weigh less: `alpha = { from = 0.0, to = 1.0 }` is near that. Raises RecipeError for one class.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> total, hard, soft = dkd(student, teacher, labels, alpha=1.0, beta=8.0)
    >>> [round(float(term), 4) for term in (total, hard, soft)]
    [1.4314, 0.4076, 1.0238]
    """
    student, teacher = prepare_logits(student_logits, teacher_logits, standardize)
    rows, classes, shares = _targets(labels, teacher)
    ours, our_others = _split(tempered(student[rows], temperature), classes)
    theirs, their_others = _split(tempered(teacher[rows], temperature), classes)
    terms = alpha * kl_rows(ours, theirs, 1.0) + beta * kl_rows(our_others, their_others, 1.0)
    soft = temperature**2 * _mean(shares * terms, rows, len(student), sample_weights)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    return Terms(ce_weight * hard + soft, hard, soft)


def nkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    gamma: float = 1.5,
    temperature: float = 1.0,
    ce_weight: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """CE − t·log s + γ·T²·H(t̂, ŝ): Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified
    Approach with Normalized Loss and Customized Soft Labels" (2023), NKD added to the original loss.

    t and s are the target class's shares of the softmaxes at 1; t̂ and ŝ the softmaxes at T over the other classes
    alone, and H their cross-entropy, so that the minimum is not 0. γ and T are the paper's for ImageNet. Raises
    RecipeError for one class.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> total, hard, soft = nkd(student, teacher, labels)
    >>> [round(float(term), 4) for term in (total, hard, soft)]
    [1.8623, 0.4076, 1.4547]
    """
    student, teacher = prepare_logits(student_logits, teacher_logits, standardize)
    rows, classes, shares = _targets(labels, teacher)
    ours, our_others = _split(student[rows], classes)
    theirs, their_others = _split(teacher[rows], classes)
    log_ours, log_theirs = (functional.log_softmax(split, dim=1)[:, 0] for split in (ours, theirs))
    others = temperature**2 * cross_entropy_rows(our_others, their_others, temperature)
    terms = gamma * others - log_theirs.exp() * log_ours
    soft = _mean(shares * terms, rows, len(student), sample_weights)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    return Terms(ce_weight * hard + soft, hard, soft)


def _mean(terms: Tensor, rows: Tensor, samples: int, sample_weights: Tensor | None) -> Tensor:
    """The mean over the samples of terms (P,), of which each belongs to the sample `rows` (P,)."""
    if sample_weights is None:
        return terms.sum() / samples
    mass = sample_weights.sum()
    return (terms * sample_weights[rows]).sum() / torch.where(mass > 0, mass, 1.0)


def _targets(labels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if teacher.shape[1] < 2:
        raise RecipeError("student.objective: dkd and nkd compare the other classes, and there is only one")
    return target_classes(labels, teacher)


def _split(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """((P, 2), (P, C − 1)): logits of the target class against the rest as one, and of each of the rest."""
    positions = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, positions + (positions >= classes[:, None]))
    target = logits.gather(1, classes[:, None])
    return torch.cat([target, others.logsumexp(dim=1, keepdim=True)], dim=1), others
