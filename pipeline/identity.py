"""What a cache is asked for: the manifest that a recipe, its data and its teacher lead to.

Phase one builds the cache of this manifest; phase two works it out again from what it is about to train on,
and takes no other.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from cache import Manifest
from pipeline import data as datasets
from pipeline.data import LabelledData
from pipeline.runs import Result
from pipeline.settings import CacheSettings, ViewsSettings


def of_views(settings: ViewsSettings, data: LabelledData) -> dict[str, Any]:
    """Count and recipe of the views, and the shape that they give; without augmentation the seed decides
    nothing.
    """
    return {
        "count": settings.count,
        "shape": list(data.input_shape),
        "resize": settings.resize,
        "seed": settings.seed if settings.augment else None,
        "augment": [operation.model_dump(mode="json") for operation in settings.augment],
    }


def of_data(data: LabelledData) -> dict[str, Any]:
    """Name, split, length, class list and content of the data."""
    return {**datasets.identity(data), "length": len(data), "targets": None}


def of_cache(data: LabelledData, views: ViewsSettings, teacher: Result, settings: CacheSettings) -> Manifest:
    """The manifest of this teacher's logits on these data through these views."""
    return Manifest.build(
        num_samples=len(data),
        num_outputs=teacher.network.num_classes,
        num_views=views.count,
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
            "versions": {
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )
