"""Two soft targets at once: the teacher's, and those of a second cache, the knowledge."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.divergences import cross_entropy_rows, kl_rows
from decant.pipeline.objectives.hard_labels import mean_of_rows
from decant.pipeline.objectives.terms import Terms, prepare_softmaxes

Divergence = Literal["kl", "ce"]
_ROWS = {"kl": kl_rows, "ce": cross_entropy_rows}


def general(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    temperature: float = 1.0,
    teacher_divergence: Divergence = "kl",
    knowledge_divergence: Divergence = "kl",
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """α·D(teacher, student) + β·D(knowledge, student), each D the KL divergence or the cross-entropy of softmaxes at
    T, without T²: α and β are the whole weights. Labels have no part.

    `teacher_logits` (B, 2, C): first the teacher's, then the knowledge's. With α = T², β = 0 and "kl" it is
    the T²·KL of Hinton, Vinyals, Dean (2015). Raises RecipeError unless there are two.

    >>> import torch
    >>> student = torch.tensor([[2.0, 0.0]])
    >>> both = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])  # (B, 2, C): teacher, knowledge
    >>> round(float(general(student, both, torch.tensor([0]), alpha=1.0, beta=0.0).total), 4)
    0.0
    >>> round(float(general(student, both, torch.tensor([0]), alpha=0.5, beta=0.5).total), 4)
    0.2169
    """
    if teacher_logits.ndim != 3 or teacher_logits.shape[1] != 2:
        num_caches = teacher_logits.shape[1] if teacher_logits.ndim == 3 else 1
        raise RecipeError(
            f"student.objective: general learns from two caches, found {num_caches}; set "
            "cache.from = [TEACHER, KNOWLEDGE]"
        )
    divergences = []
    for member, name in enumerate((teacher_divergence, knowledge_divergence)):
        student, teacher = prepare_softmaxes(student_logits, teacher_logits[:, member], standardize)
        divergences.append(mean_of_rows(_ROWS[name](student, teacher, temperature), sample_weights))
    total = alpha * divergences[0] + beta * divergences[1]
    return Terms(total, None, total)
