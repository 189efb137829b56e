"""Somebody's own objective, `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from decant.pipeline.config.objectives import Own
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.terms import Loss, Terms


def from_function(settings: Own) -> Loss:
    """Calls function(student_logits, teacher_logits, labels, **args), which must return a scalar tensor.

    Raises RecipeError where there is no such function or it does not take `args`.
    """
    function, place = _find(settings.name), f"student.objective {settings.name!r}"
    try:
        inspect.signature(function).bind(None, None, None, **settings.args)
    except (TypeError, ValueError) as error:
        takes = ", ".join(("student_logits", "teacher_logits", "labels", *settings.args))
        raise RecipeError(f"{place}: must take {takes}: {error}") from error

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0) -> Terms:
        total = function(student_logits, teacher_logits, labels, **settings.args)
        if not isinstance(total, Tensor) or total.ndim:
            found = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
            raise RecipeError(
                f"{place}: must return a tensor of one number, without dimensions, found {found}"
            )
        return Terms(total)

    return loss


def _find(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing runs a person's code: anything can come of it
        raise RecipeError(
            f"student.objective {name!r}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(found):
        raise RecipeError(f"student.objective {name!r}: is no function but {type(found).__name__}")
    return found
