"""The objectives on sparse rows: the same formulas as on dense ones, with what is not stored as `tail` says.

All take (student_logits (Q, C), targets, labels) with one row for each position or sample that counts, and return
`Terms`. In the formulas p and q are the softmaxes of teacher and student at T, S the stored outputs, r and ρ the masses
of all others; w is p, or of a draw p/π.
"""

from __future__ import annotations

from torch import Tensor

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.hard_labels import cross_entropy, mean_of_rows
from decant.pipeline.objectives.sparse.rows import (
    compared,
    cross_entropy_rows,
    js_rows,
    kl_rows,
    reversed_kl_rows,
)
from decant.pipeline.objectives.sparse.targets import SparseTargets, Tail, require_outputs, require_targets
from decant.pipeline.objectives.terms import Terms, at_least_float32, between


def sparse_kd(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·(Σ_S w·log(p/q) + r·log(r/ρ)): `kd` of Hinton, Vinyals, Dean (2015) on what is stored.

    With tail "bucket" the soft term is at most the dense one, less by r·KL of the others' softmaxes, and equal where
    every output is stored; with "draws" there is no r, and its expectation over the draws is the dense one (Horvitz,
    Thompson, 1952). With "drop" it is biased. `labels` (Q,) int64, −1 for none. Raises MismatchError for a temperature
    that the rows do not declare, unless `interpolate` is set.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0, 3.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> p = teacher.softmax(1)
    >>> targets = SparseTargets.of([[0, 2]], p[:, [0, 2]].log(), p[:, [1, 3]].sum(1, True), num_outputs=4)
    >>> total, hard, soft = sparse_kd(student, targets, torch.tensor([0]))
    >>> dense = torch.nn.functional.kl_div(student.log_softmax(1), p, reduction="sum")
    >>> bool(0 < soft <= dense)
    True
    """
    student, teacher = compared(student_logits, targets, temperature, tail, interpolate)
    soft = temperature**2 * mean_of_rows(kl_rows(student, teacher), sample_weights)
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def sparse_ce_plus_kl(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    weight: float = 1.0,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """CE + λ·T²·(Σ_S w·log(p/q) + r·log(r/ρ)): the terms of `sparse_kd` with the teacher's weighed against a whole
    cross-entropy. Takes and raises what that does.

    >>> import torch
    >>> targets = SparseTargets.of([[0]], torch.tensor([[0.7]]).log(), num_outputs=3)
    >>> total, hard, soft = sparse_ce_plus_kl(torch.zeros(1, 3), targets, torch.tensor([0]), weight=2.0)
    >>> torch.isclose(total, hard + 2 * soft)
    tensor(True)
    """
    student, teacher = compared(student_logits, targets, temperature, tail, interpolate)
    soft = temperature**2 * mean_of_rows(kl_rows(student, teacher), sample_weights)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    return Terms(hard + weight * soft, hard, soft)


def sparse_soft_ce(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE − α·T²·(Σ_S w·log q + r·log ρ): `sparse_kd` plus what no gradient sees. Takes and raises what that
    does.

    >>> import torch
    >>> targets = SparseTargets.of([[0]], torch.tensor([[1.0]]).log(), num_outputs=2)
    >>> float(sparse_soft_ce(torch.zeros(1, 2), targets, torch.tensor([0])).soft)  # ln 2
    0.6931471824645996
    """
    student, teacher = compared(student_logits, targets, temperature, tail, interpolate)
    soft = temperature**2 * mean_of_rows(cross_entropy_rows(student, teacher), sample_weights)
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def sparse_js(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·JS of (p_S, r) and (q_S, ρ): Lin (1991), equation 4.1, on k + 1 outputs, and so at most the
    dense one. Raises RecipeError for rows with draws: it is no expectation under p, so their estimate of it is biased.

    >>> import torch
    >>> student = torch.tensor([[2.0, 0.0, 1.0]])
    >>> targets = SparseTargets.of([[0]], torch.tensor([[0.7]]).log(), num_outputs=3)
    >>> 0 < float(sparse_js(student, targets, torch.tensor([0])).soft) < 0.693
    True
    """
    _refuse_draws("js", targets)
    student, teacher = compared(student_logits, targets, temperature, tail, interpolate)
    soft = temperature**2 * mean_of_rows(js_rows(student, teacher), sample_weights)
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def sparse_rkl(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·(Σ_S q·log(q/p) + ρ·log(ρ/r)): the KL reversed (Gu et al., "MiniLLM", 2024), on k + 1
    outputs, and so at most the dense one. Raises RecipeError for rows with draws, as `sparse_js` does, and for "drop",
    where it would be infinite.

    >>> import torch
    >>> student = torch.tensor([[2.0, 0.0, 1.0]])
    >>> targets = SparseTargets.of([[0]], student.log_softmax(1)[:, :1], num_outputs=3)
    >>> round(abs(float(sparse_rkl(student, targets, torch.tensor([0])).soft)), 6)
    0.0
    """
    _refuse_draws("rkl", targets)
    if tail == "drop":
        raise RecipeError(
            "tail: 'drop' gives the outputs that are not stored no share, and a student that gives them one has an "
            "infinite reversed KL: take 'bucket'"
        )
    student, teacher = compared(student_logits, targets, temperature, tail, interpolate)
    soft = temperature**2 * mean_of_rows(reversed_kl_rows(student, teacher), sample_weights)
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def sparse_mse(
    student_logits: Tensor,
    targets: SparseTargets,
    labels: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    tail: Tail | None = None,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·the mean (s − t)² of the stored outputs: `mse` of Ba, Caruana (2014), equation 2.

    With draws it is Σ (s − t)²/π / C, whose expectation is the mean over all C outputs, with a large variance where a
    share is small. Without, it is the mean over the k stored outputs, as tail "drop" has it: of the logits of the
    others their mass says nothing, so "bucket" is refused. Raises RecipeError for that, and for rows without
    `log_sum_exp`.

    >>> import torch
    >>> student = torch.tensor([[2.0, 0.0, 1.0]])
    >>> ids, log_probs, log_tail = torch.tensor([[0]]), torch.tensor([[-0.5]]), torch.tensor([[-0.93]])
    >>> targets = SparseTargets(ids, log_probs, log_tail, (1.0,), num_outputs=3, log_sum_exp=torch.ones(1))
    >>> float(sparse_mse(student, targets, torch.tensor([0])).soft)  # (2 − 0.5)²
    2.25
    """
    require_targets(targets)
    require_outputs(student_logits.shape[1], targets.num_outputs)
    if targets.log_sum_exp is None:
        raise RecipeError(
            "mse: compares raw logits, and these rows have log-probabilities alone: take sparse_kd"
        )
    if tail == "bucket":
        raise RecipeError("tail: the mass of other outputs says nothing of the logit of each: take 'drop'")
    student = at_least_float32(student_logits).gather(1, targets.ids)
    squares = (student - (targets.log_probs + targets.log_sum_exp[:, None])).square()
    if targets.tail_or_default(tail or (None if targets.has_draws else "drop")) == "draws":
        soft_rows = (squares / targets.log_inclusion().exp()).sum(dim=1) / targets.num_outputs
    else:
        soft_rows = squares.mean(dim=1)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    return between(alpha, hard, mean_of_rows(soft_rows, sample_weights))


def _refuse_draws(name: str, targets: SparseTargets) -> None:
    require_targets(targets)
    if targets.has_draws:
        raise RecipeError(
            f"{name}: these rows have draws, which are unbiased for expectations under the teacher's softmax alone, "
            f"and {name} is none: it would be biased in every row; take sparse_kd, or rows without draws"
        )
