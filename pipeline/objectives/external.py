"""An objective of the user's, `package.module:function`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from decant.pipeline.config.objectives import Custom
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.hard_labels import weigh_samples
from decant.pipeline.objectives.terms import Loss, Terms
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import Plugin, in_words
from decant.pipeline.support.signatures import signature


def from_function(settings: Custom, class_weights: Sequence[float] | None = None) -> Loss:
    """Calls function(student_logits, teacher_logits, labels, **args), which must return a scalar tensor; with
    `class_weights` (C,) also with `sample_weights` (B,), how much each sample counts.

    Raises RecipeError where there is no such function, or it does not take `args` or `sample_weights`.
    """
    plugin = Plugin(settings.name, f"student.objective {settings.name!r}", RecipeError)
    function = plugin.load()
    if class_weights is not None and "sample_weights" not in signature(function).parameters:
        raise plugin.refusal("student.class_weights: it takes no argument sample_weights (B,)")
    given = settings.args if class_weights is None else {**settings.args, "sample_weights": class_weights}
    plugin.check_arguments(function, "student_logits", "teacher_logits", "labels", **given)

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, progress: float = 0.0) -> Terms:
        weights = {}
        if class_weights is not None:
            weights["sample_weights"] = weigh_samples(class_weights, labels, teacher_logits)
        try:
            total = function(student_logits, teacher_logits, labels, **settings.args, **weights)
        except RAISED as error:  # it may raise anything
            raise plugin.refusal(f"failed ({in_words(error)})") from error
        if not isinstance(total, Tensor) or total.ndim:
            found = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
            raise plugin.refusal(f"must return a tensor of one number, without dimensions, found {found}")
        if student_logits.requires_grad and not total.requires_grad:
            raise plugin.refusal(
                "its result does not depend on student_logits, so nothing can be learnt from it"
            )
        return Terms(total)

    return loss
