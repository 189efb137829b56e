"""Which students a sweep trains: those of samples with labels, or of a language model."""

from __future__ import annotations

from typing import TypeAlias

import torch

from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.sweeps.language_students import LanguageStudents
from decant.pipeline.sweeps.students import Students

SweepStudents: TypeAlias = Students | LanguageStudents


def students_of(sweep: Sweep, device: torch.device) -> SweepStudents:
    """The students of a sweep on a device."""
    plan = sweep.plan
    if isinstance(plan, LanguagePlan):
        students = LanguageStudents(plan, device)
        students.metric = sweep.figure.key
        return students
    return Students(plan, device)
