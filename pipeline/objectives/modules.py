"""The objectives as modules of PyTorch: settings are given once, and checked, and a batch is compared by a call.

Everything comes from one registry: a module's arguments are those of its function, their ranges those of recipes.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec

from pydantic import ValidationError
from torch import Tensor, nn

from decant.pipeline.config.annealing import Scheduled
from decant.pipeline.config.messages import expected
from decant.pipeline.config.objectives import BUILTIN, Builtin, name_of
from decant.pipeline.config.sections import Section, Share
from decant.pipeline.objectives import (
    decoupled,
    divergences,
    hard_labels,
    relational,
    sigmoid,
    squared,
    transfer,
    two_teachers,
)
from decant.pipeline.objectives.terms import Terms

Settings = ParamSpec("Settings")


class Objective(nn.Module):
    """The parent of all objectives that are modules: `isinstance(loss, decant.objectives.Objective)`.

    A setting is an attribute, `loss.temperature`. Set it between two steps to anneal it; it is checked then as it is
    when the module is made. A module has no parameters and no buffers, so its state dict is empty, and a checkpoint of
    a network that holds one has no entry of it.

    >>> loss = KD(alpha=0.5)
    >>> loss.temperature = 2.0
    >>> loss
    KD(alpha=0.5, temperature=2.0)
    >>> loss.state_dict()
    OrderedDict()
    >>> loss.alpha = 1.5
    Traceback (most recent call last):
    ...
    ValueError: KD: alpha: expected a number at least 0 and at most 1, found 1.5
    """

    function: ClassVar[Callable[..., Terms]]
    """The function that computes it."""
    settings: ClassVar[type[Builtin]]
    """What its settings may be."""
    signature: ClassVar[inspect.Signature] = inspect.Signature()
    """The settings with their defaults."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__()
        try:
            bound = self.signature.bind(*args, **settings)
        except TypeError as error:
            known = ", ".join(self.signature.parameters)
            raise TypeError(f"{type(self).__name__}: {error}; its settings are {known}") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._checked(name, value) if name in self.signature.parameters else value)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        sample_weights: Tensor | None = None,
    ) -> Terms:
        """What the function returns for these settings. Shapes and dtypes are the function's; `sample_weights` (B,)
        make every mean over samples a weighted one, where the function takes them.

        Raises TypeError where it does not.
        """
        weights = {} if sample_weights is None else {"sample_weights": sample_weights}
        settings = {name: getattr(self, name) for name in self.signature.parameters}
        return type(self).function(student_logits, teacher_logits, labels, **settings, **weights)

    def extra_repr(self) -> str:
        """The settings, without the switches that are off."""
        given = {name: getattr(self, name) for name in self.signature.parameters}
        off = {
            name: one.default
            for name, one in self.signature.parameters.items()
            if one.default is None or one.default is False or name == "label_smoothing"
        }
        shown = {name: value for name, value in given.items() if name not in off or value != off[name]}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def _checked(self, name: str, value: Any) -> Any:
        """The value of a setting. Raises ValueError for one out of its range, or of another type."""
        kind: type[Section] = _NOT_OF_RECIPES.get(name, self.settings)
        tag = {} if name in _NOT_OF_RECIPES else {"name": name_of(self.settings)}
        try:
            found = getattr(kind.model_validate({**tag, name: value}), name)
        except ValidationError:
            raise ValueError(f"{self._wrong(kind, name)}, found {value!r}") from None
        if isinstance(found, Scheduled):
            raise ValueError(
                f"{self._wrong(kind, name)}, found a schedule, which recipes have; set the attribute {name} before "
                "each epoch"
            )
        if isinstance(found, str) and name == "class_weights":
            raise ValueError(
                f"{self._wrong(kind, name)}, found {found!r}, which recipes have; give the numbers"
            )
        return found

    def _wrong(self, kind: type[Section], name: str) -> str:
        schema = kind.model_json_schema()["properties"][name]
        choices = [
            one for one in schema.get("anyOf", [schema]) if "$ref" not in one and one.get("type") != "null"
        ]
        plain = [one for one in choices if "const" not in one]
        items = f", each {expected(plain[0]['items'])}" if "items" in plain[0] else ""
        return f"{type(self).__name__}: {name}: expected {expected(plain[0])}{items}"


class _Smoothing(Section):
    """The setting that every objective with a cross-entropy has, and recipes have in [student]."""

    label_smoothing: Share = 0.0


class _OfSparseRows(Section):
    """The settings that objectives on sparse rows have, see `decant.pipeline.objectives.sparse`."""

    tail: Literal["bucket", "draws", "drop"] | None = None
    interpolate: bool = False


_NOT_OF_RECIPES: dict[str, type[Section]] = {
    "label_smoothing": _Smoothing,
    "tail": _OfSparseRows,
    "interpolate": _OfSparseRows,
}
"""By the name of a setting: where it is described, if not with the objective that a recipe names."""
_SETTINGS = {f"{kind.function}": kind for kind in BUILTIN} | {
    f"{kind.sigmoid_function}": kind for kind in BUILTIN if kind.sigmoid_function
}
"""The settings of an objective by its function, `module:function`."""


def _module(
    name: str, function: Callable[Concatenate[Tensor, Tensor, Tensor, Settings], Terms]
) -> Callable[Settings, Objective]:
    """The class of an objective: a module with the settings of its function."""
    kind = _SETTINGS[f"{function.__module__.rpartition('.')[2]}:{function.__name__}"]
    _, _, _, *settings = inspect.signature(function).parameters.values()
    signature = inspect.Signature([one for one in settings if one.name != "sample_weights"])
    members = {
        "__doc__": _docstring(name, function, kind),
        "__module__": __name__,
        "__signature__": signature,
        "function": staticmethod(function),
        "settings": kind,
        "signature": signature,
    }
    return type(name, (Objective,), members)


def _docstring(name: str, function: Callable[..., Terms], kind: type[Builtin]) -> str:
    floats = kind.task == "regression" or "sigmoid" in function.__name__
    teacher = "[[1.0, 0.0, 0.0]]"
    formula = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    said = (
        f"`{function.__name__}` as a module, with the settings given once: {formula}",
        f"{kind.use[0].upper()}{kind.use[1:]}. Raises ValueError for a setting out of its range, TypeError for an "
        "unknown one.",
    )
    about = "\n\n".join(textwrap.fill(one, 115) for one in said)
    return f"""{about}

>>> import torch
>>> from decant.objectives import {name}, {function.__name__}
>>> student = torch.tensor([[2.0, 0.0, 1.0]])
>>> teacher = torch.tensor({f"[[{teacher[1:-1]}, [0.0, 1.0, 0.0]]]" if kind.separate_caches else teacher})
>>> labels = torch.tensor({"[[1.0, 0.0, 1.0]]" if floats else "[0]"})
>>> loss = {name}()
>>> loss(student, teacher, labels) == {function.__name__}(student, teacher, labels)
True
"""


KD = _module("KD", divergences.kd)
CEPlusKL = _module("CEPlusKL", divergences.ce_plus_kl)
SoftCE = _module("SoftCE", divergences.soft_ce)
LogitMSE = _module("LogitMSE", squared.logit_mse)
JS = _module("JS", divergences.js)
RKL = _module("RKL", divergences.rkl)
General = _module("General", two_teachers.general)
DKD = _module("DKD", decoupled.dkd)
DIST = _module("DIST", relational.dist)
NKD = _module("NKD", decoupled.nkd)
TransferKnowledge = _module("TransferKnowledge", transfer.transfer_knowledge)
TransferData = _module("TransferData", transfer.transfer_data)
TransferModel = _module("TransferModel", transfer.transfer_model)
LabelSmoothing = _module("LabelSmoothing", hard_labels.smoothed_labels)
Regression = _module("Regression", squared.regression)
SigmoidKD = _module("SigmoidKD", sigmoid.sigmoid_kd)
SigmoidMSE = _module("SigmoidMSE", sigmoid.sigmoid_mse)
