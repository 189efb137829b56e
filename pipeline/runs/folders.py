"""Where runs lie: `runs/RECIPE/KIND-NETWORK-DIGEST/`, and below that a folder a seed for students.

The digest covers the settings that decide a network's weights, and the data and views that it is trained on. Other
settings lead to another folder: nothing is overwritten, and nothing outdated is taken for current.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant.pipeline.config.objectives import Custom
from decant.pipeline.config.settings import StudentSettings, TeacherSettings
from decant.pipeline.runs.result import Kind
from decant.pipeline.runs.saved_recipe import LOGGING_ONLY, NOT_DECISIVE, logging_only, without_address
from decant.pipeline.support.plugins import source_sha256
from decant.pipeline.support.source_code import code_sha256
from decant.pipeline.support.weight_files import content_sha256


def teacher_folder(base: Path, settings: TeacherSettings, fingerprints: Mapping[str, Any]) -> Path:
    """The run folder of the teacher with these settings, whether it exists or not.

    `fingerprints` are the `data` and `views` of what it is trained on. The number of views does not count, as every
    epoch of a teacher has a view of its own. Where epochs are chosen by the `validation` part, that one's
    is among them.
    """
    decisive = {
        "settings": without_address(
            settings.model_dump(mode="json", exclude={*logging_only(settings), "weights"})
        ),
        "weights": None if settings.weights is None else content_sha256(Path(settings.weights)),
        "views": {
            name: value
            for name, value in fingerprints["views"].items()
            if name not in ("count", "enumerated")
        },
        "data": fingerprints["data"],
        **({"validation": fingerprints["validation"]} if "validation" in fingerprints else {}),
    }
    decisive |= _code_of(settings.network.name)
    return base / f"teacher-{as_folder_name(settings.network.name)}-{_digest(decisive)}"


def student_folder(
    base: Path, settings: StudentSettings, kind: Kind, fingerprints: Mapping[str, Any]
) -> Path:
    """The folder of the students of one kind, which has a folder a seed.

    `fingerprints` are the `data` and `views` of what they are trained on; for distilled students also the key of the
    `cache`; and the digest of the `weights` that they begin with, where that is a file.
    """
    excluded = (
        NOT_DECISIVE - LOGGING_ONLY
        | logging_only(settings)
        | {"weights"}
        | ({"objective"} if kind == "labels" else set())
    )
    decisive = {"settings": settings.model_dump(mode="json", exclude=set(excluded)), **fingerprints}
    decisive |= _code_of(settings.network.name)
    if kind == "distilled" and isinstance(settings.objective, Custom):
        decisive["objective_source"] = source_sha256(settings.objective.name)
    learns_from = settings.objective.name if kind == "distilled" else "labels"
    network = as_folder_name(settings.network.name)
    return base / f"student-{network}-{as_folder_name(learns_from)}-{_digest(decisive)}"


def seed_folder(students: Path, seed: int) -> Path:
    """The run folder of one of the students in a `student_folder`.

    >>> seed_folder(Path("student-mlp-kd-5af1c0d2"), 3).name
    'seed-3'
    """
    return students / f"seed-{seed}"


def as_folder_name(name: str) -> str:
    """A name that every file system takes.

    >>> as_folder_name("torchvision:resnet50")
    'torchvision-resnet50'
    """
    return re.sub(r"[^A-Za-z0-9._+]+", "-", name).strip("-.")


def _code_of(network: str) -> dict[str, str]:
    """What else decides a network of the user's own: its code."""
    code = code_sha256(network)
    return {} if code is None else {"code": code}


def _digest(decisive: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
