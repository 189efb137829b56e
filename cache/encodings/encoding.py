"""The interface of every encoding: which tables hold a teacher's outputs, how rows go in and how they come out.

Writer, reader, checksums and format check know an encoding by this interface alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import ValueRefusedError

AxisName = Literal["sample", "position", "token"]
"""What a row of a table is of: a sample, one of its positions, or one of the tokens that the teacher read."""


@dataclass(frozen=True)
class Column:
    """One table of a cache whose rows belong to samples: shape and little-endian dtype of a row."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    per_view: bool = True
    """Whether each view has rows of its own, as in (V, N, …); otherwise views share them, as in (N, …)."""
    axis: AxisName = "sample"
    given: bool = True
    """Whether rows are written sample by sample; otherwise all are in the file from its beginning."""

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

    format_version: ClassVar[int] = 1
    """The first version of the file format whose readers know it."""

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
    def logits_dtype(self) -> np.dtype[Any]:
        """Dtype of the logits that `decode` returns: float32, unless it says otherwise."""
        return np.dtype("<f4")

    @property
    def name(self) -> str:
        """How messages speak of it."""
        return self.logits_dtype.name

    def check_outputs(self, num_outputs: int) -> None:  # noqa: B027, as most take any number
        """Raises FormatError where so many outputs cannot be stored so."""

    def require_temperature(self, temperature: float) -> None:  # noqa: B027, as most serve any
        """Raises MismatchError, naming those that it can be of, where rows do not tell the softmax at a temperature."""

    def interpolating(self) -> Encoding:
        """The encoding that serves every temperature, by the middle of what rows prove where they do not tell more."""
        return self

    @abstractmethod
    def columns(self, num_outputs: int) -> dict[str, Column]:
        """The tables of C outputs by name, in the order in which they lie in the file; every view has its own rows."""

    def once(self, num_outputs: int) -> dict[str, Column]:
        """The tables that all rows share, whole and as they are; most encodings have none. They are given when a cache
        is begun, and `bind` gives them back.
        """
        return {}

    def bind(self, tables: Mapping[str, NDArray[Any]]) -> Encoding:
        """The encoding with the tables of `once`, which `decode` needs."""
        return self

    def check_once(self, tables: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027, as most have none
        """Raises FormatError where the tables of `once` are not those that the settings say."""

    def logits_of(self, given: NDArray[np.floating]) -> NDArray[np.floating]:
        """Logits (B, C) of what `encode` takes, which are these themselves for most encodings."""
        return given

    def given_width(self, num_outputs: int) -> int:
        """How many values `encode` takes of each row: the C outputs, unless it says otherwise."""
        return num_outputs

    @abstractmethod
    def encode(
        self,
        logits: NDArray[np.floating],
        samples: NDArray[np.int64],
        view: int,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Raw outputs (B, C) of these samples (B,) as rows of every table. positions: (B,) the number of each within
        its sample, where samples have several; a row of the same view, sample and position is always encoded alike.

        Raises ValueRefusedError, naming sample, position and view, for a value that cannot be stored.
        """

    @abstractmethod
    def check(
        self,
        rows: Mapping[str, NDArray[Any]],
        samples: NDArray[np.int64],
        view: int,
        num_outputs: int,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Raises ValueRefusedError for encoded rows that `encode` never returns; rows of another file are checked."""

    @abstractmethod
    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """Logits (B, C) from rows of every table; (C,) from one row. Where not every logit is stored, they are such
        that their softmax at `temperature` is what is known. Raises as `require_temperature` does.
        """

    def compare(self, rows: Mapping[str, NDArray[Any]], logits: NDArray[np.floating]) -> tuple[float, float]:
        """How far encoded rows are from logits (B, C) that should be theirs, and how much of it may come from encoding:
        the largest |stored − given| of what is stored, and that of the given logits encoded themselves.
        """
        anew = self.encode(logits, np.arange(len(logits)), 0)
        stored, rounded = (self.decode(each, logits.shape[1]).astype("f8") for each in (rows, anew))
        return float(np.abs(stored - logits).max()), float(np.abs(rounded - logits).max())

    def row_bytes(self, num_outputs: int) -> int:
        """Bytes that one view of a sample takes in all tables together."""
        return sum(column.row_bytes for column in self.columns(num_outputs).values())


def row_name(
    samples: NDArray[np.int64], view: int, place: int, positions: NDArray[np.int64] | None = None
) -> str:
    """For messages: of which sample, position and view the row at a place of a batch is.

    >>> row_name(np.array([4, 4]), 0, 1, np.array([0, 1]))
    'sample 4, position 1, view 0'
    """
    at = "" if positions is None else f", position {positions[place]}"
    return f"sample {samples[place]}{at}, view {view}"


def require_finite(
    logits: NDArray[np.floating],
    samples: NDArray[np.int64],
    view: int,
    positions: NDArray[np.int64] | None = None,
) -> None:
    """Raises ValueRefusedError, naming sample and view, for NaN, Inf and what overflows float32.

    >>> require_finite(np.array([[1.0, np.nan]]), np.array([7]), view=0)
    Traceback (most recent call last):
    ...
    decant.cache.errors.ValueRefusedError: sample 7, view 0: logit nan is not finite...
    """
    most = np.finfo("f4").max
    if not logits.size or (-most <= logits.min() and logits.max() <= most):  # both are NaN where one is
        return
    bad = ~(np.abs(logits) <= most)
    if bad.any():
        row, output = np.argwhere(bad)[0]
        value = logits[row, output]
        where = row_name(samples, view, int(row), positions)
        raise ValueRefusedError(f"{where}: logit {value} {why_refused(value)}")


def why_refused(value: np.floating) -> str:
    """Why a value that is not finite, or overflows float32, is refused."""
    if np.isfinite(value):
        return "overflows float32"
    or_zero = (
        ", or it is the logarithm of a probability of 0, which log(p + 1e-9) avoids" if value < 0 else ""
    )
    return (
        f"is not finite: the teacher fails on this input, or overflows in half precision{or_zero}; rows that were "
        "written are kept"
    )
