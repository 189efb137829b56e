"""An objective of the user's, `package.module:function`."""

from __future__ import annotations

from torch import Tensor

from decant.pipeline.config.objectives import Custom
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.terms import Loss, Terms
from decant.pipeline.support.plugins import Plugin


def from_function(settings: Custom) -> Loss:
    """Calls function(student_logits, teacher_logits, labels, **args), which must return a scalar tensor.

    Raises RecipeError where there is no such function or it does not take `args`.
    """
    plugin = Plugin(settings.name, f"student.objective {settings.name!r}", RecipeError)
    function = plugin.load()
    plugin.check_arguments(function, "student_logits", "teacher_logits", "labels", **settings.args)

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0) -> Terms:
        total = function(student_logits, teacher_logits, labels, **settings.args)
        if not isinstance(total, Tensor) or total.ndim:
            found = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
            raise plugin.refusal(f"must return a tensor of one number, without dimensions, found {found}")
        return Terms(total)

    return loss
