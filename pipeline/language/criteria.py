"""The losses of causal students in a recipe: an objective on whatever rows a cache has, or labels alone.

Each takes (outputs, labels (Q,), the teacher's rows, progress) of a batch's positions and returns a mean over these.
Outputs are `PendingLogits`, which exist for some positions at a time, or the logits (Q, C) themselves.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from decant.cache import Encoding, Hidden, LogitCache, Sparse
from decant.pipeline import objectives
from decant.pipeline.config.annealing import Scheduled, at
from decant.pipeline.config.objectives import Custom, Objective
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import FusedTargets, SparseTargets, TeacherHead, Terms, cross_entropy
from decant.pipeline.objectives.chunked import PendingLogits, chunked_cross_entropy, chunked_mean

Outputs = PendingLogits | Tensor
Criterion = Callable[..., Terms]

_SPARSE: dict[str, Callable[..., Terms]] = {
    "kd": objectives.sparse_kd,
    "ce+kl": objectives.sparse_ce_plus_kl,
    "soft-ce": objectives.sparse_soft_ce,
    "js": objectives.sparse_js,
    "rkl": objectives.sparse_rkl,
    "mse": objectives.sparse_mse,
}
_FUSED: dict[str, Callable[..., Terms]] = {
    "kd": objectives.fused_kd,
    "ce+kl": objectives.fused_ce_plus_kl,
}
_FORWARDS = (objectives.Objective.forward, objectives.SparseObjective.forward)
"""What an objective is computed by, unless a class of one's own computes something else."""
_NOT_FUSED = ("standardize", "class_weights")
_OF_DRAWS = ("kd", "ce+kl", "soft-ce", "mse")
_DENSE = (
    *_SPARSE,
    "dkd",
    "nkd",
    "soft-transfer-knowledge",
    "soft-transfer-data",
    "soft-transfer-model",
    "ls",
)
"""Those that are means over rows, so that a batch may be compared some rows at a time."""


def from_labels(outputs: Outputs, labels: Tensor, progress: float = 0.0) -> Terms:
    """The mean cross-entropy with the tokens that follow.

    >>> bool(torch.isclose(from_labels(torch.zeros(1, 2), torch.tensor([0])).total, torch.tensor(2.0).log()))
    True
    """
    if isinstance(outputs, PendingLogits):
        return chunked_cross_entropy(outputs, labels)
    return Terms(cross_entropy(outputs, labels))


def require_objective(objective: Objective, encoding: Encoding, subject: object) -> None:
    """Raises RecipeError, naming the setting, for an objective that the rows of the subject do not suffice for."""
    name = objective.name
    if isinstance(objective, Custom):
        raise RecipeError(
            f"student.objective {name!r}: a function of your own gets whole batches of samples, and a language model's "
            f"positions are compared some at a time: take one of {', '.join(_DENSE)}; "
            "decant.language.TokenDataset is for a loop of your own"
        )
    if name not in _names(encoding):
        draws = isinstance(encoding, Sparse) and encoding.draws
        why = (
            "has draws, which are unbiased for an expectation under the teacher's softmax alone"
            if draws and name in _SPARSE
            else "has some logits of each position, and this loss needs all (cache.encoding.kind)"
            if isinstance(encoding, Sparse) and name in _DENSE
            else "is of a language model, whose positions are compared one by one"
        )
        raise RecipeError(f"student.objective {name!r}: {subject} {why}: take {', '.join(_names(encoding))}")
    taken = inspect.signature(_function(name, encoding)).parameters
    for key in ("standardize", "class_weights"):
        if getattr(objective, key, None) and key not in taken:
            raise RecipeError(f"student.objective.{key}: is not of a language model's rows; leave it out")
    if isinstance(encoding, Sparse) and isinstance(getattr(objective, "temperature", None), Scheduled):
        raise RecipeError(
            f"student.objective.temperature: {subject} has the mass of the outputs that it leaves out at certain "
            "temperatures alone, and this is a schedule; set one of these, or cache hidden states"
        )


def from_cache(objective: Objective, cache: LogitCache) -> Criterion:
    """The loss of a distilled student: (outputs, labels (Q,), the teacher's rows, progress=0.0) → terms; rows are
    `SparseTargets`, logits (Q, C), or hidden states (Q, d) of the teacher. Raises as `require_objective`.
    """
    encoding = cache.manifest.encoding
    require_objective(objective, encoding, cache.path)
    function = _function(objective.name, encoding)
    parameters = inspect.signature(function).parameters
    settings: dict[str, Any] = {key: value for key, value in objective if key in parameters}
    head = TeacherHead(cache.head) if isinstance(encoding, Hidden) else None

    def teacher_of(rows: SparseTargets | Tensor, some: slice) -> Any:
        chosen = rows[some]
        if not isinstance(chosen, Tensor):
            return chosen
        return chosen.float() if head is None else head.logits(chosen)

    def criterion(
        outputs: Outputs, labels: Tensor, rows: SparseTargets | Tensor, progress: float = 0.0
    ) -> Terms:
        now = {key: at(value, progress) for key, value in settings.items()}

        def loss(logits: Tensor, some: slice) -> Terms:
            return function(logits, teacher_of(rows, some), labels[some], **now)

        if not isinstance(outputs, PendingLogits):
            return loss(outputs, slice(None))
        if objective.name in _FUSED and not any(now.get(key) for key in _NOT_FUSED):
            theirs: Any = rows if head is None or not isinstance(rows, Tensor) else head.targets(rows)
            return _fused(objective.name, outputs, theirs, labels, now)
        return chunked_mean(outputs, loss)

    return criterion


def of_pending(
    objective: Callable[..., Terms | Tensor],
) -> Callable[[PendingLogits, SparseTargets | Tensor, Tensor], Terms] | None:
    """An objective of logits that exist for some positions at a time; None for one that is not known to be a mean over
    positions, as a function of one's own. objective: a function of `decant.objectives`, or one as a module.

    >>> from decant.objectives import SparseKD, dist
    >>> of_pending(SparseKD(alpha=0.5)) is None, of_pending(dist) is None, of_pending(lambda *batch: None) is None
    (False, True, True)
    """
    settings: dict[str, Any] = {}
    function: Callable[..., Any] = objective
    if isinstance(objective, objectives.Objective) and type(objective).forward in _FORWARDS:
        settings = {name: getattr(objective, name) for name in objective.signature.parameters}
        function = type(objective).function
    elif isinstance(objective, functools.partial) and not objective.args:
        settings, function = dict(objective.keywords), objective.func
    known = {objectives.FUNCTIONS[name]: name for name in _DENSE} | {_SPARSE[name]: name for name in _SPARSE}
    if function not in known or "sample_weights" in settings or settings.get("class_weights") is not None:
        return None
    name = known[function]
    parameters = inspect.signature(function).parameters.values()
    usual = {one.name: one.default for one in parameters if one.default is not one.empty}
    settings = {**usual, **settings}  # that of another function of the same loss may have other defaults
    fused = name in _FUSED and not any(settings.get(key) for key in (*_NOT_FUSED, "label_smoothing"))

    def loss(pending: PendingLogits, rows: SparseTargets | Tensor, labels: Tensor) -> Terms:
        if fused:
            return _fused(name, pending, rows, labels, settings)

        def compare(logits: Tensor, some: slice) -> Terms:
            found: Terms = function(logits, rows[some], labels[some], **settings)
            return found

        return chunked_mean(pending, compare)

    return loss


def _fused(
    name: str, pending: PendingLogits, targets: FusedTargets, labels: Tensor, settings: dict[str, Any]
) -> Terms:
    """`kd` or `ce+kl`, in fewer passes over the logits."""
    function: Callable[..., Terms] = _FUSED[name]
    given = {"kl_weight" if key == "weight" else key: value for key, value in settings.items()}
    taken = inspect.signature(function).parameters
    with torch.autocast(pending.hidden.device.type, pending.autocast, enabled=pending.autocast is not None):
        return function(
            pending.hidden,
            pending.weight,
            targets,
            labels,
            **{key: value for key, value in given.items() if key in taken},
            bias=pending.bias,
            logit_scale=pending.layer.scale,
            soft_cap=pending.layer.soft_cap,
        )


def _names(encoding: Encoding) -> tuple[str, ...]:
    if not isinstance(encoding, Sparse):
        return _DENSE
    return _OF_DRAWS if encoding.draws else tuple(_SPARSE)


def _function(name: str, encoding: Encoding) -> Callable[..., Terms]:
    return _SPARSE[name] if isinstance(encoding, Sparse) else objectives.FUNCTIONS[name]
