"""What a cache is asked for: the manifest that a recipe, its data and its teacher lead to.

Phase one builds the cache of this manifest; phase two works it out again from what it is about to train on,
and takes no other.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from decant.cache import Manifest
from decant.pipeline import data as datasets
from decant.pipeline.config.recipe import Recipe, load
from decant.pipeline.config.settings import CacheSettings, ViewsSettings
from decant.pipeline.data.held_out import divide
from decant.pipeline.data.samples import LabelledData, num_targets
from decant.pipeline.errors import NotMadeError
from decant.pipeline.runs.folders import teacher_folder
from decant.pipeline.runs.result import Result, load_result

_DECIDE_PIXELS = ("torch", "torchvision", "numpy", "pillow")  # libraries whose change may change an input


def of_views(settings: ViewsSettings, data: LabelledData) -> dict[str, Any]:
    """Count and recipe of the views, and the shape that they are made from. What decides nothing is left out:
    the seed without augmentation, a `resize` that is `size`.
    """
    return {
        "count": settings.num_views,
        "shape": list(data.input_shape),
        "resize": settings.resize if settings.resize != settings.size else None,
        "seed": settings.seed if settings.augment else None,
        "augment": [operation.model_dump(mode="json") for operation in settings.augment],
        **({"enumerated": True} if settings.count == "all" else {}),
    }


def of_data(data: LabelledData) -> dict[str, Any]:
    """Name, split, length, class list and content of the data."""
    return {**datasets.identity(data), "length": len(data), "targets": num_targets(data)}


def of_cache(data: LabelledData, views: ViewsSettings, teacher: Result, settings: CacheSettings) -> Manifest:
    """The manifest of this teacher's logits on these data through these views."""
    return Manifest.build(
        num_samples=len(data),
        num_outputs=teacher.network.num_classes,
        num_views=views.num_views,
        num_targets=num_targets(data),
        dtype=settings.dtype,
        teacher={
            "network": {"name": teacher.network.name, "args": teacher.network.args},
            "weights_sha256": teacher.weights_sha256,
        },
        data=of_data(data),
        views=of_views(views, data),
        encoding={"teacher_precision": settings.precision},
        info={
            "batch_size": settings.batch_size,
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in _DECIDE_PIXELS},
        },
    )


def find_teacher(recipe: Recipe, base: Path, views: Mapping[str, Any], data: Mapping[str, Any]) -> Result:
    """The finished teacher. Raises NotMadeError, naming the command that makes it."""
    folder = teacher_folder(base, recipe.settings.teacher, {"views": views, "data": data})
    result = load_result(folder)
    if result is None:
        state = (
            "is not finished" if folder.exists() else "has not been trained with these settings on these data"
        )
        raise NotMadeError(f"{folder}: the teacher {state}; run: {recipe.command('teacher')}")
    return result


def of_recipe(name_or_file: str, overrides: Sequence[str]) -> tuple[dict[str, Any], NDArray[Any]]:
    """The `data` and `views` sections of what a recipe's students learn from, and its labels (N,) or targets
    (N, T): what imported logits are of.
    """
    settings = load(name_or_file, overrides).settings
    _, data = divide(settings, datasets.load(settings.data, settings.views, "train"))
    return {"data": of_data(data), "views": of_views(settings.views, data)}, data.labels
