"""Phase zero: data → trained teacher."""

from __future__ import annotations

from pathlib import Path

import torch

from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data.samples import has_labels, task_of
from decant.pipeline.errors import DataError
from decant.pipeline.networks.spec import specify_network
from decant.pipeline.objectives import from_labels
from decant.pipeline.phases import plan
from decant.pipeline.phases.datasets import Parts
from decant.pipeline.phases.job import Job, carry_out, finished
from decant.pipeline.runs.folders import teacher_folder
from decant.pipeline.runs.result import Result


def make_teacher(recipe: Recipe, base: Path, device: torch.device) -> tuple[Result, bool]:
    """The teacher of a recipe, and whether it was there already.

    Trains it, or takes the weights that the recipe names; goes on from the last epoch after a kill. Each
    epoch sees a view of its own. Beside its weights it leaves its logits on the test part, so that students
    can be compared with it while it is not loaded. Raises DataError where there are no labels to train it on.
    """
    settings = recipe.settings.teacher
    parts = Parts.load(recipe.settings)
    train = parts.teacher
    views, data = plan.of_views(recipe.settings.views, train.data), plan.of_data(train.data)
    folder = teacher_folder(base, settings, {"views": views, "data": data})
    found = finished(folder, parts.test, device)
    if found is not None:
        return found, True
    if settings.epochs and not has_labels(train.data):
        raise DataError(
            f"{train.data.name}: train: no sample has a label, so no teacher can be trained on it; take one "
            "as it is, with teacher.weights and teacher.epochs = 0"
        )
    job = Job(
        kind="teacher",
        spec=specify_network(settings.network, train),
        settings=settings,
        data=train,
        criterion=from_labels(settings.label_smoothing, task_of(train.data)),
        views=train.live_views,
        folder=folder,
        lazy=train.data.lazy,
        begin_with=settings.weights,
    )
    return carry_out(job, recipe, parts.test, device), False
