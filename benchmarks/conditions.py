"""What every measurement is given: a folder for its files, how thorough to be, and a seed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


class LeftOut(Exception):
    """Why a row cannot be measured here."""


@dataclass(frozen=True)
class Conditions:
    """Of one run of the measurements."""

    folder: Path
    """Empty at first, removed afterwards."""
    quick: bool
    """Only to see that everything works: small tables, few repetitions, figures that say nothing."""
    seed: int

    def choose(self, full: Choice, quick: Choice) -> Choice:
        """One of two sizes."""
        return quick if self.quick else full

    def random(self) -> np.random.Generator:
        """A fresh generator, the same each time."""
        return np.random.default_rng(self.seed)

    def require_space(self, size: int) -> None:
        """Raises LeftOut unless `size` bytes and a tenth are free."""
        free = shutil.disk_usage(self.folder).free
        if free < size * 1.1:
            raise LeftOut(
                f"{self.folder}: {size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; "
                "set TMPDIR to a folder on a larger disk"
            )
