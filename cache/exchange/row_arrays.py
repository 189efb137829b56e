"""Arrays of rows from elsewhere, by name: which shape each has, whether they are rows, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Encoding, Sparse
from decant.cache.errors import ValueRefusedError, warn
from decant.cache.positions import Positions
from decant.cache.source import ROWS

_READ = {"ids", "log_probs", "log_tail", "log_sum_exp", "temperatures", "labels"}
_READ |= {"lengths", "next_log_prob", "tokens", "token_lengths", "places"}
_DIGESTED = 1 << 20  # values that are copied at once
_OF_POSITIONS = ("tokens", "token_lengths", "places", "next_log_prob")


def rows_of(arrays: Mapping[str, ArrayLike], name: str, inner: int = 3) -> NDArray[Any]:
    """An array (V, P, …) of so many axes; one without views is of one."""
    if name not in arrays:
        raise ValueRefusedError(f"{name}: missing; there are {', '.join(sorted(arrays)) or 'no arrays'}")
    try:
        found = np.asarray(arrays[name])
    except ValueError:
        raise ValueRefusedError(f"{name}: expected rows of one length, found lists of several") from None
    found = found[None] if found.ndim == inner - 1 else found
    if found.ndim != inner:
        raise ValueRefusedError(f"{name}: expected {inner - 1} or {inner} axes, found {found.shape}")
    return found


def positions_in(
    arrays: Mapping[str, ArrayLike], rows: int, predicts: str, more: Mapping[str, Any]
) -> Positions | None:
    """The positions of so many rows; None where each row is of a sample of its own."""
    if "lengths" not in arrays:
        beside = [name for name in _OF_POSITIONS if name in arrays]
        if beside:
            raise ValueRefusedError(
                f"{beside[0]}: are of samples with several rows each, and there are no lengths"
            )
        return None
    given = {name: arrays[name] for name in ("tokens", "token_lengths", "places") if name in arrays}
    of = Positions.of(arrays["lengths"], predicts=predicts, **given, **more)  # type: ignore[arg-type]
    if of.num_positions != rows:
        raise ValueRefusedError(f"lengths: of {of.num_positions:,} positions, and there are {rows:,} rows")
    return of


def temperatures_in(arrays: Mapping[str, ArrayLike]) -> tuple[float, ...]:
    """T (m,) of which the arrays know the others' mass; 1 alone where they do not say. Raises ValueRefusedError."""
    given = np.asarray(arrays.get("temperatures", [1.0]))
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise ValueRefusedError(f"temperatures: expected (m,) numbers, found {given.shape} {given.dtype}")
    return tuple(given.astype("f8").tolist())


def require_shapes(
    arrays: Mapping[str, ArrayLike], rows: tuple[int, int], samples: int, encoding: Encoding
) -> None:
    """Raises ValueRefusedError for arrays that are not of the same rows; says which are not read."""
    declared = len(encoding.temperatures) if isinstance(encoding, Sparse) else 0
    for name, inner in (("log_tail", (declared,)), ("log_sum_exp", ()), ("next_log_prob", ())):
        if name in arrays:
            found, expected = rows_of(arrays, name, 2 + len(inner)), (*rows, *inner)
            if found.shape != expected or found.dtype.kind not in "iuf":
                raise ValueRefusedError(
                    f"{name}: expected {expected} numbers, found {found.shape} {found.dtype}"
                )
    labels = None if "labels" not in arrays else np.asarray(arrays["labels"])
    if labels is not None and (labels.shape != (samples,) or labels.dtype.kind not in "iu"):
        raise ValueRefusedError(
            f"labels: expected ({samples},) integers, found {labels.shape} {labels.dtype}"
        )
    read = _READ if declared else {"logits", "labels", *_OF_POSITIONS, "lengths"}
    unread = sorted(arrays.keys() - read)
    if unread:
        warn(f"{', '.join(unread)}: arrays that are not read; those that are: {', '.join(sorted(read))}")


def require_log_probs(log_probs: NDArray[np.floating]) -> None:
    """Raises ValueRefusedError for (V, P, k) that are no log-probabilities, saying what they may be instead."""
    for view, rows in enumerate(log_probs):
        for first in range(0, len(rows), ROWS):
            bad = np.flatnonzero(~(rows[first : first + ROWS] <= 0).all(axis=1))
            if not len(bad):
                continue
            row = first + int(bad[0])
            wrong = rows[row][~(rows[row] <= 0)][0]
            hint = ""
            if not np.isnan(wrong):
                hint = (
                    "; these are probabilities: give their logarithms"
                    if (rows[first : first + ROWS] >= 0).all() and (rows[first : first + ROWS] <= 1).all()
                    else "; of raw logits take the logarithm of the softmax of all outputs"
                )
            of_view = f", view {view}" if len(log_probs) > 1 else ""
            raise ValueRefusedError(
                f"log_probs: row {row:,}{of_view}: expected numbers of 0 or below, found {wrong:.4g}{hint}"
            )


def require_outputs(ids: NDArray[np.integer], num_outputs: int, rows: NDArray[np.int64]) -> None:
    """Raises ValueRefusedError for ids (B, k) beyond C; rows (B,): their numbers, for messages."""
    bad = np.flatnonzero(((ids < 0) | (ids >= num_outputs)).any(axis=1))
    if len(bad):
        raise ValueRefusedError(f"ids: row {rows[bad[0]]:,}: one is no output, of {num_outputs:,}")


def digest_of(arrays: Mapping[str, ArrayLike]) -> str:
    """SHA-256 of what rows are, whatever integers and floats they are given as."""
    digest = hashlib.sha256()
    for name in ("ids", "log_probs", "log_tail", "log_sum_exp", "next_log_prob", "labels", "logits"):
        if name in arrays:
            array = np.asarray(arrays[name])
            digest.update(f"{name} {array.shape} ".encode())
            kind, flat = "<f8" if array.dtype.kind == "f" else "<i8", array.reshape(-1)
            for first in range(0, flat.size, _DIGESTED):
                digest.update(np.ascontiguousarray(flat[first : first + _DIGESTED], kind).data)
    return digest.hexdigest()
