"""The manifest of a cache of one's own: which teacher, which data and which views its logits are of."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
from torch.utils.data import TensorDataset

from decant.cache import Encoding, Manifest, class_list
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
    encoding: Encoding,
    precision: str,
    data_name: str | None,
    info: Mapping[str, Any],
) -> Manifest:
    """The manifest of a teacher's logits on these views."""
    return Manifest.build(
        num_samples=len(views),
        num_outputs=num_outputs,
        num_views=views.count,
        num_targets=labels.num_targets,
        teacher=teacher,
        data=data_fingerprint(views, labels, data_name),
        views=views_fingerprint(views, probed),
        encoding={**encoding.identity, "teacher_precision": precision},
        info={
            "python": platform.python_version(),
            "versions": {each: version for each in _DECIDE_PIXELS if (version := _version(each))},
            **info,
        },
    )


def data_fingerprint(views: Views, labels: Labels, name: str | None) -> dict[str, Any]:
    """The kind of dataset, its classes, and the digest of its tensors or labels where it has them at hand; samples that
    are read from files are in the probes of the views.
    """
    dataset = views.dataset
    fingerprint: dict[str, Any] = {"name": name or type(dataset).__name__}
    if labels.classes:
        fingerprint["classes"] = class_list(labels.classes)
    if isinstance(dataset, TensorDataset):
        fingerprint["digest"] = _sha256([tensor.detach().cpu().numpy() for tensor in dataset.tensors])
    else:
        known = next(
            (value for each in ("targets", "labels") if (value := _column(dataset, each)) is not None), None
        )
        if known is not None:
            fingerprint["digest"] = _sha256([known])
    return fingerprint


def views_fingerprint(views: Views, probed: Probe) -> dict[str, Any]:
    """Seed and transforms, in words and by the digest of the user's code, and the checksums of some views."""
    return {
        **views.identity,
        "probes": _sha256([np.array(probed.crc32, "<u4")])[:32],
    }


def _column(dataset: Any, name: str) -> Any:
    """The labels of all samples, where the dataset has them as one attribute."""
    try:
        values = np.asarray(getattr(dataset, name))
    except Exception:  # whatever stands behind the attribute, it is no column
        return None
    return values if values.shape[:1] == (len(dataset),) and values.dtype.kind in "iufbU" else None


def _sha256(arrays: list[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(
            np.ascontiguousarray(array).tobytes()
            if array.dtype.kind == "U"
            else np.ascontiguousarray(array).data
        )
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
