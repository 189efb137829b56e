"""The teacher's last hidden state, and the weights that make logits of it, once for all rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings.encoding import Column, Encoding, row_name
from decant.cache.encodings.half import all_finite
from decant.cache.errors import FormatError, ValueRefusedError, shorten
from decant.cache.inputs import as_values
from decant.cache.io.checksum import is_sha256

_DTYPES: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
_MOST_WIDTH = 1 << 20
Precision = Literal["float16", "float32"]


@dataclass(frozen=True, eq=False)
class Head:
    """What makes logits of hidden states: z = scale·(hidden·weightᵀ) + bias, and cap·tanh(z/cap) with a `soft_cap`.

    `Head.of` makes one of arrays or tensors. weight: (C, d), bias: (C,), float16 or float32. Of a last layer whose
    output is padded to more rows than there are outputs give the rows of the outputs alone.

    >>> head = Head.of(np.eye(3, 2), scale=2.0)
    >>> head.logits(np.float32([[1.0, 4.0]])).tolist()
    [[2.0, 8.0, 0.0]]
    """

    weight: NDArray[np.floating]
    bias: NDArray[np.floating] | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(
        cls,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        scale: float = 1.0,
        soft_cap: float | None = None,
        dtype: Precision = "float32",
    ) -> Self:
        """Takes tensors of any device and dtype, and stores them in `dtype`. Raises ValueRefusedError for other shapes,
        and for values that are not finite in that dtype.
        """
        matrix = _stored("weight", weight, dtype)
        vector = None if bias is None else _stored("bias", bias, dtype)
        if matrix.ndim != 2 or not matrix.size or (vector is not None and vector.shape != matrix.shape[:1]):
            found = "" if vector is None else f" and {vector.shape}"
            raise ValueRefusedError(
                f"head: expected weight (C, d), and bias (C,) if any, found {matrix.shape}{found}"
            )
        return cls(matrix, vector, float(scale), None if soft_cap is None else float(soft_cap))

    @property
    def num_outputs(self) -> int:
        """C."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """The d values of a hidden state."""
        return int(self.weight.shape[1])

    @cached_property
    def sha256(self) -> str:
        """Of the bytes of the tables, one after another."""
        digest = hashlib.sha256()
        for table in self.tables().values():
            digest.update(np.ascontiguousarray(table).data)
        return digest.hexdigest()

    def tables(self) -> dict[str, NDArray[np.floating]]:
        """What a file holds of it, by the tables' names."""
        return {"head": self.weight} if self.bias is None else {"head": self.weight, "head_bias": self.bias}

    def logits(self, hidden: NDArray[np.floating]) -> NDArray[np.float32]:
        """(…, C) float32 from (…, d)."""
        made: NDArray[np.float32] = hidden.astype("f4", copy=False) @ self.weight.astype("f4", copy=False).T
        if self.scale != 1.0:
            made *= np.float32(self.scale)
        if self.bias is not None:
            made += self.bias
        if self.soft_cap is not None:
            made = np.tanh(made / np.float32(self.soft_cap)) * np.float32(self.soft_cap)
        return made


@dataclass(frozen=True)
class Hidden(Encoding):
    """One table `hidden` (V, N, d) of hidden states, and once `head` (C, d), perhaps `head_bias` (C,), which make
    logits of them. Exact at every temperature and for every loss; a row takes 2·d bytes in float16, and d·C
    multiplications to become logits.

    `Hidden.of(head)` is the encoding of a head. A cache is begun with `LogitCacheWriter(path, manifest, head=head)`,
    and `write` takes hidden states (B, d) in the place of logits. `LogitCache.hidden` and `LogitCache.head` return them
    as they are, `LogitCache.logits` their product. Raises ValueError for settings that cannot be.

    >>> Hidden.of(Head.of(np.eye(3, 2))).row_bytes(num_outputs=3)
    4
    """

    width: int
    """d."""
    head_sha256: str
    """Of the tables of the head, see `Head.sha256`."""
    dtype: Precision = "float16"
    """Of the hidden states."""
    head_dtype: Precision = "float32"
    bias: bool = False
    """Whether the head has one."""
    scale: float = 1.0
    soft_cap: float | None = None
    head: Head | None = field(default=None, compare=False, repr=False)
    """The head itself; None where this was read from a manifest alone."""
    format_version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if type(self.width) is not int or not 1 <= self.width <= _MOST_WIDTH:
            raise ValueError(f"width: expected 1 to {_MOST_WIDTH:,}, found {self.width!r}")
        if not is_sha256(self.head_sha256):
            raise ValueError(
                f"head_sha256: expected 64 hexadecimal digits, found {shorten(self.head_sha256)}"
            )
        for name in ("dtype", "head_dtype"):
            if getattr(self, name) not in _DTYPES:
                raise ValueError(
                    f"{name}: expected one of {', '.join(_DTYPES)}, found {getattr(self, name)!r}"
                )
        if type(self.bias) is not bool:
            raise ValueError(f"bias: expected true or false, found {self.bias!r}")
        for name, value in (("scale", self.scale), ("soft_cap", self.soft_cap)):
            if value is None and name == "soft_cap":
                continue
            if type(value) is not float or not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a number above 0, found {value!r}")

    @classmethod
    def of(cls, head: Head, dtype: Precision = "float16") -> Self:
        """The encoding of hidden states that this head makes logits of."""
        return cls(
            head.width,
            head.sha256,
            dtype,
            "float16" if head.weight.dtype == _DTYPES["float16"] else "float32",
            head.bias is not None,
            head.scale,
            head.soft_cap,
            head,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Kind, width and dtype of hidden states, and what the head is."""
        head = {
            "sha256": self.head_sha256,
            "dtype": self.head_dtype,
            "bias": self.bias,
            "scale": self.scale,
            "soft_cap": self.soft_cap,
        }
        return {"kind": "hidden", "width": self.width, "dtype": self.dtype, "head": head}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """Takes what `identity` has. Raises FormatError."""
        head = content.get("head")
        if not isinstance(head, Mapping):
            raise FormatError(f"manifest: identity.encoding.head must be a table, found {shorten(head)}")
        given = (content.get("width"), head.get("sha256"), content.get("dtype"))
        more = (head.get("dtype"), head.get("bias"), head.get("scale"), head.get("soft_cap"))
        try:
            return cls(*given, *more)  # type: ignore[arg-type]  # each is checked there
        except (ValueError, TypeError) as error:
            raise FormatError(f"manifest: identity.encoding.{error}") from None

    @property
    def name(self) -> str:
        """For messages."""
        return f"hidden states of {self.width:,} values, {self.dtype}"

    def given_width(self, num_outputs: int) -> int:
        """d."""
        return self.width

    def columns(self, num_outputs: int) -> dict[str, Column]:
        """`hidden` alone."""
        return {"hidden": Column((self.width,), _DTYPES[self.dtype])}

    def once(self, num_outputs: int) -> dict[str, Column]:
        """`head`, and `head_bias` where there is one."""
        dtype = _DTYPES[self.head_dtype]
        bias = {"head_bias": Column((num_outputs,), dtype)} if self.bias else {}
        return {"head": Column((num_outputs, self.width), dtype), **bias}

    def bind(self, tables: Mapping[str, NDArray[Any]]) -> Self:
        """The same with the head that a file holds."""
        return replace(self, head=Head(tables["head"], tables.get("head_bias"), self.scale, self.soft_cap))

    def check_once(self, tables: Mapping[str, NDArray[Any]]) -> None:
        """Raises FormatError where the head has another SHA-256."""
        found = Head(tables["head"], tables.get("head_bias")).sha256
        if found != self.head_sha256:
            raise FormatError(
                f"`head` is not as the manifest says: SHA-256 expected {self.head_sha256}, found {found}"
            )

    def logits_of(self, given: NDArray[np.floating]) -> NDArray[np.floating]:
        """The product of hidden states (B, d) and the head."""
        return self.decode({"hidden": given}, 0)

    def check_outputs(self, num_outputs: int) -> None:
        """Raises FormatError where the head is known, and is of another number."""
        if self.head is not None and self.head.num_outputs != num_outputs:
            raise FormatError(
                f"head: makes {self.head.num_outputs:,} logits, and num_outputs is {num_outputs:,}"
            )

    def encode(
        self,
        logits: NDArray[np.floating],
        samples: NDArray[np.int64],
        view: int,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Takes hidden states (B, d), and casts them. Raises ValueRefusedError for NaN, Inf and what overflows."""
        with np.errstate(over="ignore"):
            stored = logits.astype(_DTYPES[self.dtype], copy=False)
        if not all_finite(stored):
            row, place = (int(value) for value in np.argwhere(~np.isfinite(stored))[0])
            value = logits[row, place]
            why = "is not finite" if not np.isfinite(value) else f"overflows {self.dtype}"
            raise ValueRefusedError(f"{row_name(samples, view, row, positions)}: hidden state {value} {why}")
        return {"hidden": stored}

    def check(
        self,
        rows: Mapping[str, NDArray[Any]],
        samples: NDArray[np.int64],
        view: int,
        num_outputs: int,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Raises ValueRefusedError for NaN and Inf."""
        self.encode(rows["hidden"], samples, view, positions)

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """(B, C) float32, whatever the temperature. Raises ValueRefusedError where no head is bound."""
        if self.head is None:
            raise ValueRefusedError("head: not known here; read logits by LogitCache.logits")
        return self.head.logits(rows["hidden"])

    def compare(self, rows: Mapping[str, NDArray[Any]], logits: NDArray[np.floating]) -> tuple[float, float]:
        """How far the product is from these logits, and how far rounding hidden states may move it: half a unit in the
        last place of each value, times the largest row sum of the head.
        """
        stored = self.decode(rows, logits.shape[1])
        assert self.head is not None
        unit = 2.0**-11 if self.dtype == "float16" else 2.0**-24
        most = float(np.abs(rows["hidden"].astype("f4")).max(initial=0))
        weight = float(np.abs(self.head.weight.astype("f4")).sum(axis=1).max())
        return float(np.abs(stored - logits).max()), unit * most * weight * self.scale


def _stored(name: str, values: ArrayLike, dtype: Precision) -> NDArray[np.floating]:
    if dtype not in _DTYPES:
        raise ValueRefusedError(f"head: dtype: expected one of {', '.join(_DTYPES)}, found {dtype!r}")
    with np.errstate(over="ignore"):
        stored: NDArray[np.floating] = np.asarray(as_values(values)).astype(_DTYPES[dtype])
    if not all_finite(stored):
        raise ValueRefusedError(f"head: {name}: not all values are finite in {dtype}")
    return stored
