"""Every logit as it is, in float16 or float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.encoding import Column, Encoding, row_name, why_refused
from decant.cache.encodings.half import all_finite
from decant.cache.errors import FormatError, ValueRefusedError

_DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


@dataclass(frozen=True)
class Dense(Encoding):
    """One table `logits` (V, N, C) of raw teacher outputs, never divided by a temperature.

    `dtype` is "float16" or "float32"; a row takes 2·C or 4·C bytes. float16 holds magnitudes up to 65,504 with a
    relative error of 2⁻¹¹; larger ones are refused when they are written. Raises ValueError for another dtype.

    >>> Dense("float16").row_bytes(num_outputs=1000)
    2000
    """

    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(_DTYPES)}, found {self.dtype!r}")

    @property
    def identity(self) -> dict[str, Any]:
        """As version 1 of the format has it: the dtype alone."""
        return {"dtype": self.dtype}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """Takes the field `dtype`. Raises FormatError."""
        name = content.get("dtype")
        if not isinstance(name, str) or name not in _DTYPES:
            raise FormatError(
                f"manifest: identity.encoding.dtype must be one of {', '.join(_DTYPES)}, found {name!r}"
            )
        return cls("float16" if name == "float16" else "float32")

    @property
    def logits_dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        return _DTYPES[self.dtype]

    def columns(self, num_outputs: int) -> dict[str, Column]:
        """`logits` alone."""
        return {"logits": Column((num_outputs,), self.logits_dtype)}

    def encode(
        self,
        logits: NDArray[np.floating],
        samples: NDArray[np.int64],
        view: int,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Casts to the stored dtype. Raises ValueRefusedError for NaN, Inf and what overflows the dtype."""
        with np.errstate(over="ignore"):
            stored = logits.astype(self.logits_dtype, copy=False)
        if not all_finite(stored):
            row, output = np.argwhere(~np.isfinite(stored))[0]
            value = logits[row, output]
            where = row_name(samples, view, int(row), positions)
            raise ValueRefusedError(f"{where}: logit {value} {self._why(value)}")
        return {"logits": stored}

    def _why(self, value: np.floating) -> str:
        """Why it is refused, and what to do."""
        if not np.isfinite(value) or self.dtype == "float32":
            return why_refused(value)
        return (
            f'overflows {self.dtype}, which holds up to 65,504; store them as float32: cache.dtype = "float32" in a '
            'recipe, decant.encodings.Dense("float32") in your own loop'
        )

    def check(
        self,
        rows: Mapping[str, NDArray[Any]],
        samples: NDArray[np.int64],
        view: int,
        num_outputs: int,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Raises ValueRefusedError for NaN and Inf."""
        self.encode(rows["logits"], samples, view, positions)

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """The rows as they are, without a copy, whatever the temperature."""
        logits: NDArray[np.floating] = rows["logits"]
        return logits
