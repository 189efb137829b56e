"""The objectives on sparse rows as modules: `SparseKD(alpha=0.5, temperature=1.0)`, called with a batch."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from torch import Tensor

from decant.pipeline.config import objectives as config
from decant.pipeline.objectives.modules import Objective
from decant.pipeline.objectives.sparse import losses
from decant.pipeline.objectives.sparse.targets import SparseTargets
from decant.pipeline.objectives.terms import Terms

Settings = ParamSpec("Settings")


class SparseObjective(Objective):
    """The parent of the modules that compare student logits (Q, C) with `SparseTargets`."""

    def forward(  # type: ignore[override]
        self,
        student_logits: Tensor,
        targets: SparseTargets,
        labels: Tensor,
        sample_weights: Tensor | None = None,
    ) -> Terms:
        """What the function returns for these settings. Raises what it raises."""
        settings = {name: getattr(self, name) for name in self.signature.parameters}
        return type(self).function(student_logits, targets, labels, **settings, sample_weights=sample_weights)


def _module(
    name: str,
    function: Callable[Concatenate[Tensor, SparseTargets, Tensor, Settings], Terms],
    settings: type[config.Builtin],
) -> Callable[Settings, SparseObjective]:
    """The class of an objective: a module with the settings of its function, in the ranges of the dense one."""
    _, _, _, *parameters = inspect.signature(function).parameters.values()
    signature = inspect.Signature([one for one in parameters if one.name != "sample_weights"])
    members: dict[str, Any] = {
        "__doc__": _docstring(name, function),
        "__module__": __name__,
        "__signature__": signature,
        "function": staticmethod(function),
        "settings": settings,
        "signature": signature,
    }
    return type(name, (SparseObjective,), members)


def _docstring(name: str, function: Callable[..., Terms]) -> str:
    formula = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    said = (
        f"`{function.__name__}` as a module, with the settings given once: {formula}",
        "Raises ValueError for a setting out of its range, TypeError for an unknown one.",
    )
    about = "\n\n".join(textwrap.fill(one, 115) for one in said)
    return f"""{about}

>>> import torch
>>> from decant.objectives import {name}, SparseTargets, {function.__name__}
>>> student, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
>>> ids, log_probs = torch.tensor([[0]]), torch.tensor([[-0.5]])
>>> targets = SparseTargets(ids, log_probs, torch.tensor([[-0.93]]), (1.0,), 3, log_sum_exp=torch.ones(1))
>>> {name}()(student, targets, labels) == {function.__name__}(student, targets, labels)
True
"""


SparseKD = _module("SparseKD", losses.sparse_kd, config.KD)
SparseCEPlusKL = _module("SparseCEPlusKL", losses.sparse_ce_plus_kl, config.CEPlusKL)
SparseSoftCE = _module("SparseSoftCE", losses.sparse_soft_ce, config.SoftCE)
SparseJS = _module("SparseJS", losses.sparse_js, config.JS)
SparseRKL = _module("SparseRKL", losses.sparse_rkl, config.RKL)
SparseMSE = _module("SparseMSE", losses.sparse_mse, config.LogitMSE)
