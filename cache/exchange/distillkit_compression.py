"""The compressed rows of DistillKit: log-probabilities as a polynomial and residuals, ids as bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.ids import MOST
from decant.cache.errors import FormatError, StorageError, shorten
from decant.cache.io.opening import open_read

_DTYPES = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}
_FIELDS = {
    "d",
    "k",
    "exact_k",
    "exact_dtype",
    "polynomial_terms",
    "term_dtype",
    "residual_bins",
    "delta_encoding",
    "error_diffusion",
    "normalize_t",
}
_MOST_BYTES = 1 << 16  # of a file of settings
_MOST_POWER = 64


@dataclass(frozen=True)
class Residuals:
    """Some residuals of a row: integers of `bits` bits, times a scale.

    >>> Residuals("float16", bits=4, count=4).bytes, Residuals("float16", bits=3, count=3).bytes
    (4, 4)
    """

    scale_dtype: str
    bits: int
    count: int

    @property
    def bytes(self) -> int:
        """Of a row."""
        return np.dtype(_DTYPES[self.scale_dtype]).itemsize + (self.bits * self.count + 7) // 8


@dataclass(frozen=True)
class Compression:
    """How DistillKit has packed the k likeliest outputs of a row, as its `compression_config.yaml` says.

    Of the log-probabilities, in falling order, the first are floats; the others are a polynomial in their place, and
    residuals of it. An id takes as many bits as tell `outputs` apart.
    """

    outputs: int
    """d, of which ids are."""
    kept: int
    """k."""
    exact: int
    exact_dtype: str
    terms: tuple[int | str, ...]
    """Powers of the place in the rest of the row, "sqrt" and "exp"."""
    term_dtype: str
    residuals: tuple[Residuals, ...]
    deltas: bool
    """Each log-probability is stored as what it adds to the one before."""
    to_one: bool
    """Places are 0 to 1, and not 0 to their number."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file of YAML or JSON. Raises FormatError, naming the field, and StorageError where PyYAML is not
        installed.
        """
        try:
            import yaml
        except ModuleNotFoundError:
            raise StorageError(
                f"{path}: needs PyYAML, which is not installed: pip install 'decant-kd[parquet]'"
            ) from None
        with open_read(path) as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise FormatError(f"{path}: more than {_MOST_BYTES:,} bytes, which no configuration has")
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
        try:
            return cls.of(content)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None

    @classmethod
    def of(cls, content: object) -> Self:
        """From the fields of `compression_config.yaml`, or of `logprob_compressor` of a configuration.

        >>> Compression.of({"d": 100, "k": 8, "exact_k": 8, "residual_bins": []}).row_bytes
        32
        """
        if isinstance(content, Mapping) and isinstance(content.get("logprob_compressor"), Mapping):
            content = content["logprob_compressor"]
        if not isinstance(content, Mapping):
            raise FormatError(f"expected fields as d, k and exact_k, found {shorten(content)}")
        unknown = sorted(str(name) for name in content.keys() - _FIELDS)
        if unknown:
            raise FormatError(f"{unknown[0]}: no field of it; there are {', '.join(sorted(_FIELDS))}")
        kept = _integer(content, "k", 1, MOST)
        exact = _integer(content, "exact_k", 0, kept)
        bins = content.get("residual_bins") or ()
        if not isinstance(bins, list | tuple) or not all(isinstance(each, Mapping) for each in bins):
            raise FormatError(f"residual_bins: expected a list of tables, found {shorten(bins)}")
        residuals = tuple(
            Residuals(
                _dtype(each, "scale_dtype", None),
                _integer(each, "element_bits", 1, 64),
                _integer(each, "num_elements", 1, kept),
            )
            for each in bins
        )
        terms = _terms(content.get("polynomial_terms") or ())
        if sum(each.count for each in residuals) > kept - exact:
            raise FormatError(f"residual_bins: of more than the {kept - exact:,} values that are not exact")
        if exact < kept and not terms and not residuals:
            raise FormatError("polynomial_terms and residual_bins: one of both says what is not exact")
        return cls(
            outputs=_integer(content, "d", 2, MOST),
            kept=kept,
            exact=exact,
            exact_dtype=_dtype(content, "exact_dtype", "float32"),
            terms=terms,
            term_dtype=_dtype(content, "term_dtype", "float32"),
            residuals=residuals,
            deltas=_flag(content, "delta_encoding", True),
            to_one=_flag(content, "normalize_t", False),
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's log-probabilities."""
        return (
            self.exact * np.dtype(_DTYPES[self.exact_dtype]).itemsize
            + len(self.terms) * np.dtype(_DTYPES[self.term_dtype]).itemsize
            + sum(each.bytes for each in self.residuals)
        )

    @property
    def id_bits(self) -> int:
        """Of each id."""
        return (self.outputs - 1).bit_length()

    @property
    def id_bytes(self) -> int:
        """Bytes of a row's ids."""
        return (self.kept * self.id_bits + 7) // 8

    def ids(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(Q, k) ids of rows (Q, id_bytes)."""
        return _integers(packed, self.id_bits, self.kept).astype(np.int64)

    def log_probs(self, packed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(Q, k) of rows (Q, row_bytes). What was approximated may be above 0, or rise.

        >>> of = Compression.of({"d": 9, "k": 2, "exact_k": 2, "exact_dtype": "float16", "delta_encoding": True})
        >>> of.log_probs(np.array([[-1.0, -0.5]], "<f2").view("u1")).tolist()
        [[-1.0, -1.5]]
        """
        exact, packed = _floats(packed, self.exact_dtype, self.exact)
        factors, packed = _floats(packed, self.term_dtype, len(self.terms))
        count = self.kept - self.exact
        others = np.zeros((len(packed), count))
        if self.terms and count:
            at = np.linspace(0, 1, count) if self.to_one else np.arange(count, dtype="f8")
            with np.errstate(over="ignore", invalid="ignore"):
                others += factors @ np.stack([_term(term, at) for term in self.terms])
        first = 0
        for each in self.residuals:
            scale, packed = _floats(packed, each.scale_dtype, 1)
            used = each.bytes - np.dtype(_DTYPES[each.scale_dtype]).itemsize
            steps = _integers(packed[:, :used], each.bits, each.count)
            steps = 2 * steps - 1 if each.bits == 1 else steps - 2.0 ** (each.bits - 1)
            others[:, first : first + each.count] += steps * scale
            first, packed = first + each.count, packed[:, used:]
        found = np.concatenate([exact, others], axis=1)
        return np.cumsum(found, axis=1) if self.deltas else found


def _integer(content: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = content.get(name)
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"{name}: expected an integer of {least:,} to {most:,}, found {shorten(value)}")
    return value


def _dtype(content: Mapping[str, Any], name: str, default: str | None) -> str:
    value = content.get(name, default)
    if not isinstance(value, str) or value not in _DTYPES:
        raise FormatError(f"{name}: expected one of {', '.join(_DTYPES)}, found {shorten(value)}")
    return value


def _flag(content: Mapping[str, Any], name: str, default: bool) -> bool:
    value = content.get(name, default)
    if not isinstance(value, bool):
        raise FormatError(f"{name}: expected true or false, found {shorten(value)}")
    return value


def _terms(content: object) -> tuple[int | str, ...]:
    if not isinstance(content, list | tuple):
        raise FormatError(f"polynomial_terms: expected a list, found {shorten(content)}")
    for term in content:
        if not (term in ("sqrt", "exp") or (type(term) is int and 0 <= term <= _MOST_POWER)):
            raise FormatError(
                f"polynomial_terms: expected powers of 0 to {_MOST_POWER}, sqrt and exp, found {shorten(term)}"
            )
    return tuple(content)


def _term(term: int | str, at: NDArray[np.float64]) -> NDArray[np.float64]:
    found = at**term if isinstance(term, int) else np.sqrt(at) if term == "sqrt" else np.exp(at)
    return np.asarray(found, np.float64)


def _floats(
    packed: NDArray[np.uint8], dtype: str, count: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """(Q, count) floats that rows begin with, and what follows."""
    used = count * np.dtype(_DTYPES[dtype]).itemsize
    found = np.ascontiguousarray(packed[:, :used]).view(_DTYPES[dtype]).reshape(len(packed), count)
    if dtype == "bfloat16":
        found = (found.astype("<u4") << 16).view("<f4")
    return found.astype(np.float64), packed[:, used:]


def _integers(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.float64]:
    """(Q, count) integers of so many bits each, the highest first; those above 2⁵³ to rounding."""
    places = np.unpackbits(packed, axis=1, count=bits * count).reshape(len(packed), count, bits)
    found = np.zeros((len(packed), count))
    for place in range(bits):
        found = 2 * found + places[:, :, place]
    return found
