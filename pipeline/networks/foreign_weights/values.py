"""What may be wrong with the tensors themselves: quantised, complex, sparse or without values, NaN, infinite."""

from __future__ import annotations

import torch
from torch import Tensor

from decant.pipeline.errors import WeightsError


def converted(theirs: Tensor, own: Tensor) -> Tensor:
    """`theirs` in the dtype of `own`: any float becomes any float, integers stay integers.

    >>> converted(torch.ones(2, dtype=torch.float16), torch.zeros(2))
    tensor([1., 1.])

    Raises WeightsError, saying in a phrase what is wrong, for what is no plain tensor of finite numbers. Infinities
    that the network has in the same places, as masks do, are none of these.
    """
    wrong = _wrong_kind(theirs, own)
    if wrong:
        raise WeightsError(wrong)
    if not own.is_floating_point() and theirs.is_floating_point() and bool((theirs != theirs.round()).any()):
        raise WeightsError(f"is {_dtype(theirs)} with fractions, expected {_dtype(own)}")
    _require_finite(theirs, own, "has")
    taken = theirs.to(own.dtype)
    _require_finite(taken, own, f"does not fit into {_dtype(own)}: it becomes")
    return taken


def loses_precision(theirs: Tensor, taken: Tensor) -> bool:
    """Whether a conversion rounded any number.

    >>> loses_precision(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.1))
    True
    """
    if theirs.dtype == taken.dtype or not theirs.is_floating_point():
        return False
    return (
        bool((taken.to(theirs.dtype) != theirs).any())
        if theirs.dtype.itemsize > taken.dtype.itemsize
        else False
    )


def _wrong_kind(theirs: Tensor, own: Tensor) -> str | None:
    if theirs.is_meta:
        return "has no values (it is a meta tensor)"
    if theirs.is_quantized or (theirs.is_floating_point() and theirs.itemsize == 1):
        return f"is quantised ({_dtype(theirs)}); give the weights that it was made from"
    if theirs.layout != torch.strided or theirs.is_nested:
        return "is sparse or nested; save it dense"
    if theirs.is_complex() and not own.is_complex():
        return f"is complex ({_dtype(theirs)}), expected {_dtype(own)}"
    if own.is_floating_point() and not theirs.is_floating_point():
        return (
            f"is {_dtype(theirs)}, expected {_dtype(own)}: quantised; give the weights that it was made from"
        )
    return None


def _require_finite(values: Tensor, own: Tensor, has: str) -> None:
    if not (values.is_floating_point() or values.is_complex()):
        return
    finite = torch.isfinite(values)
    if finite.all() or torch.equal(finite, torch.isfinite(own)):
        return
    kind = "NaN" if torch.isnan(values).any() else "infinity"
    raise WeightsError(f"{has} {kind} ({int((~finite).sum()):,} of {values.numel():,} values)")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
