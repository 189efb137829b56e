"""A training whose loss or metrics are no numbers any more ends at once, and says what may have caused it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant.pipeline.config.settings import TeacherSettings, Training
from decant.pipeline.errors import DivergedError


def require_finite(values: Mapping[str, Any], epoch: int, settings: Training, folder: Path) -> None:
    """Raises DivergedError, naming the value, the epoch (counted from 1) and the likely causes, where a number among
    `values` is NaN or infinite. It is raised before the checkpoint of the epoch is written.
    """
    bad = [
        (name, value)
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if not bad:
        return
    (name, value), section = bad[0], section_of(settings)
    causes = [f"{section}.lr = {settings.lr:g} is too high (or give it more {section}.warmup_epochs)"]
    if settings.precision != "float32":
        causes.append(f'{section}.precision = "{settings.precision}" cannot hold its values (try "float32")')
    causes.append("NaN or infinity in inputs, or an objective that divides by zero")
    kept = f"; the checkpoint after epoch {epoch - 1:,} is kept" if epoch > 1 else ""
    raise DivergedError(
        f"{folder}: epoch {epoch:,}: {name} is {value}, the training has diverged; likely causes: "
        f"{'; '.join(causes)}{kept}"
    )


def section_of(settings: Training) -> str:
    """The section of a recipe that settings are of."""
    return "teacher" if isinstance(settings, TeacherSettings) else "student"
