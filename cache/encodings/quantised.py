"""Every logit as one byte, on a scale of its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.encoding import Column, Encoding, require_finite, row_name
from decant.cache.errors import ValueRefusedError

_LEVELS = 255


@dataclass(frozen=True)
class Quantised(Encoding):
    """Two tables: `codes` (V, N, C) uint8, and `scale` (V, N, 2) float32, the least logit of a row and a step. A logit
    is least + step·code; a row takes C + 8 bytes.

    The step is a 255th of the row's range, and no logit is off by more than half of it: 0.06 for a range of 30. Serves
    every temperature and loss.

    >>> rows = Quantised().encode(np.array([[0.0, 51.0, 255.0]]), np.array([0]), 0)
    >>> rows["codes"].tolist(), rows["scale"].tolist()
    ([[0, 51, 255]], [[0.0, 1.0]])
    """

    format_version: ClassVar[int] = 2

    @property
    def identity(self) -> dict[str, Any]:
        """The kind alone: there is nothing to set."""
        return {"kind": "dense-u8"}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """There is nothing to read."""
        return cls()

    @property
    def name(self) -> str:
        """For messages."""
        return "uint8"

    def columns(self, num_outputs: int) -> dict[str, Column]:
        """`codes` and `scale`."""
        return {"codes": Column((num_outputs,), np.dtype("u1")), "scale": Column((2,), np.dtype("<f4"))}

    def encode(
        self,
        logits: NDArray[np.floating],
        samples: NDArray[np.int64],
        view: int,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Rounds to the nearest of 256 levels. Raises ValueRefusedError for NaN, Inf and what overflows float32."""
        require_finite(logits, samples, view, positions)
        logits = logits.astype("f8")  # a range of float16 may overflow float16
        least, largest = logits.min(axis=1, keepdims=True), logits.max(axis=1, keepdims=True)
        wide = np.flatnonzero(largest - least > np.finfo("f4").max)
        if len(wide):
            place = int(wide[0])
            raise ValueRefusedError(
                f"{row_name(samples, view, place, positions)}: logits from {least[place, 0]:.4g} to "
                f"{largest[place, 0]:.4g}: their range overflows float32"
            )
        # In float32, as they are read: the codes are of the very step and least value that are stored.
        scale = np.concatenate([least, (largest - least) / _LEVELS], axis=1).astype("<f4")
        step = np.where(scale[:, 1:] > 0, scale[:, 1:], 1).astype("f8")
        codes = np.rint((logits - scale[:, :1].astype("f8")) / step).clip(0, _LEVELS)
        return {"codes": codes.astype("u1"), "scale": scale}

    def check(
        self,
        rows: Mapping[str, NDArray[Any]],
        samples: NDArray[np.int64],
        view: int,
        num_outputs: int,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Raises ValueRefusedError for a scale that is not finite, or makes logits that are not, or falls."""
        with np.errstate(over="ignore", invalid="ignore"):
            largest = rows["scale"][:, 0] + np.float32(_LEVELS) * rows["scale"][:, 1]
        bad = ~np.isfinite(largest) | (rows["scale"][:, 1] < 0)
        if bad.any():
            place = int(np.flatnonzero(bad)[0])
            found = rows["scale"][place].tolist()
            raise ValueRefusedError(
                f"{row_name(samples, view, place, positions)}: scale: expected a finite value and a step of 0 or more, "
                f"found {found}"
            )

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """(B, C) float32, whatever the temperature."""
        scale = rows["scale"]
        logits: NDArray[np.floating] = rows["codes"].astype("<f4")
        logits *= scale[..., 1:]
        logits += scale[..., :1]
        return logits
