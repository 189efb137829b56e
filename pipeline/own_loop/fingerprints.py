"""The manifest of a cache of one's own: which teacher, which data and which views its logits are of."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from decant.cache import Manifest, class_list, encodings
from decant.pipeline.own_loop.dataset import Views
from decant.pipeline.own_loop.labels import Labels
from decant.pipeline.own_loop.probe import Probe

_DECIDE_PIXELS = ("torch", "torchvision", "numpy", "pillow", "timm", "albumentations", "transformers")


def own_manifest(
    views: Views,
    probed: Probe,
    labels: Labels,
    *,
    teacher: Mapping[str, Any],
    num_outputs: int,
    encoding: encodings.Encoding,
    precision: str,
    name: str | None,
    plain: bool,
    info: Mapping[str, Any],
) -> Manifest:
    """The manifest of a teacher's logits on these views."""
    return Manifest.build(
        num_samples=len(views),
        num_outputs=num_outputs,
        num_views=views.count,
        num_targets=labels.num_targets,
        teacher=teacher,
        data=data_fingerprint(views, labels, name),
        views=views_fingerprint(views, probed, plain),
        encoding=Encoded(encoding, precision).identity if False else {**encoding.identity, "teacher_precision": precision},
        info={
            "python": platform.python_version(),
            "versions": {each: version for each in _DECIDE_PIXELS if (version := _version(each))},
            **info,
        },
    )
