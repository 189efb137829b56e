"""Fingerprints of data and views, and the manifest of a cache that is built from them.

Phase one builds the cache of a manifest. Phase two computes the manifest again from what it is about to train on, and
accepts no other cache.
"""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from decant.cache import Dense, Encoding, Manifest, Quantised, Sparse
from decant.pipeline import data as datasets
from decant.pipeline.config.augmentations import Transform
from decant.pipeline.config.settings import CacheSettings, ViewsSettings
from decant.pipeline.data.samples import LabelledData, num_targets, task_of
from decant.pipeline.errors import RecipeError
from decant.pipeline.runs.result import Result
from decant.pipeline.support.source_code import code_sha256

_DECIDE_PIXELS = ("torch", "torchvision", "numpy", "pillow")  # libraries whose versions may change an input


def fingerprints(views: ViewsSettings, data: LabelledData) -> dict[str, Any]:
    """The sections `data` and `views` of a manifest: what identifies these data through these views."""
    return {"data": data_fingerprint(data), "views": views_fingerprint(views, data)}


def data_fingerprint(data: LabelledData) -> dict[str, Any]:
    """Name, split, length, class list and digest of the content. A function of the user's that is read sample by sample
    adds the digest of its code, as only some of its samples are in that of the content.
    """
    fingerprint = {**datasets.identity(data), "length": len(data), "targets": num_targets(data)}
    code = code_sha256(data.name) if data.lazy else None  # data in memory are digested whole
    return fingerprint if code is None else {**fingerprint, "code": code}


def views_fingerprint(settings: ViewsSettings, data: LabelledData) -> dict[str, Any]:
    """Number of views, operations, and the shape of the inputs that they are applied to.

    Settings without effect are left out: the seed if there is no augmentation, `resize` if it is `size`. Transforms of
    the user's add the digests of their code.
    """
    own = {operation.name for operation in settings.augment if isinstance(operation, Transform)}
    code = {name: sha256 for name in sorted(own) if (sha256 := code_sha256(name)) is not None}
    return {
        "count": settings.num_views,
        "shape": list(data.input_shape),
        "resize": settings.resize if settings.resize != settings.size else None,
        "seed": settings.seed if settings.augment else None,
        "augment": [operation.model_dump(mode="json") for operation in settings.augment],
        **({"enumerated": True} if settings.count == "all" else {}),
        **({"code": code} if code else {}),
    }


def cache_manifest(
    data: LabelledData, views: ViewsSettings, teacher: Result, settings: CacheSettings
) -> Manifest:
    """The manifest of the teacher's logits on these data through these views. Raises RecipeError for a compact encoding
    of anything but a softmax, or of more logits than there are.
    """
    if settings.encoding is not None and task_of(data) != "classification":
        raise RecipeError(
            f"cache.encoding: compact encodings are of softmaxes, and the task of {data.name} is {task_of(data)}; "
            "leave it out"
        )
    encoding, outputs = encoding_of(settings), teacher.network.num_classes
    if isinstance(encoding, Sparse) and encoding.kept > outputs:
        field = "draws" if encoding.draws else "head"
        raise RecipeError(
            f"cache.encoding.{field}: {encoding.kept:,} logits of a row are more than the {outputs:,} classes; set it "
            "lower"
        )
    return Manifest.build(
        num_samples=len(data),
        num_outputs=outputs,
        num_views=views.num_views,
        num_targets=num_targets(data),
        teacher={
            "network": {"name": teacher.network.name, "args": teacher.network.args},
            "weights_sha256": teacher.weights_sha256,
            **({} if teacher.network_code is None else {"code": teacher.network_code}),
        },
        encoding={**encoding.identity, "teacher_precision": settings.precision},
        info={
            "batch_size": settings.batch_size,
            "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in _DECIDE_PIXELS},
        },
        **fingerprints(views, data),
    )


def encoding_of(settings: CacheSettings) -> Encoding:
    """How a recipe has its logits stored."""
    chosen = settings.encoding
    if chosen is None:
        return Dense(settings.dtype)
    if chosen.kind == "dense-u8":
        return Quantised()
    head = chosen.head if chosen.head is not None else 0 if chosen.draws else 64
    return Sparse(head, chosen.temperatures or (1.0,), chosen.draws or 0, chosen.seed or 0)
