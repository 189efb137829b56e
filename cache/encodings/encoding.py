"""The interface of every encoding: which tables hold a teacher's outputs, how rows go in and how they come out.

Writer, reader, checksums and format check know an encoding by this interface alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """One table of a cache whose rows belong to samples: shape and little-endian dtype of a row."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    per_view: bool = True
    """Whether each view has rows of its own, as in (V, N, …); otherwise views share them, as in (N, …)."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


class Encoding(ABC):
    """How rows of raw teacher outputs (B, C) are stored in tables. An instance holds settings, never rows.

    >>> from decant.cache.encodings import Dense
    >>> isinstance(Dense("float16"), Encoding)
    True
    """

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The settings as plain JSON, for `identity.encoding` of a manifest."""

    @classmethod
    @abstractmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """The encoding with the settings of `identity.encoding`; other fields of it are ignored.

        Raises FormatError, naming the field, for settings that cannot be.
        """

    @property
    @abstractmethod
    def logits_dtype(self) -> np.dtype[Any]:
        """Dtype of the logits that `decode` returns."""

    @abstractmethod
    def columns(self, num_outputs: int) -> dict[str, Column]:
        """The tables of C outputs by name, in the order in which they lie in the file; every view has its own rows."""

    @abstractmethod
    def encode(
        self, logits: NDArray[np.floating], samples: NDArray[np.int64], view: int
    ) -> dict[str, NDArray[Any]]:
        """Raw outputs (B, C) of these samples (B,) as rows of every table.

        Raises ValueRefusedError, naming sample and view, for a value that cannot be stored.
        """

    @abstractmethod
    def check(self, rows: Mapping[str, NDArray[Any]], samples: NDArray[np.int64], view: int) -> None:
        """Raises ValueRefusedError for encoded rows that `encode` never returns; rows of another file are checked."""

    @abstractmethod
    def decode(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[np.floating]:
        """Logits (B, C) from rows of every table; (C,) from one row."""

    def row_bytes(self, num_outputs: int) -> int:
        """Bytes that one view of a sample takes in all tables together."""
        return sum(column.row_bytes for column in self.columns(num_outputs).values())
