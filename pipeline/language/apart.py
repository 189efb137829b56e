"""Whether a network says the same of a sample behind another in its row, or behind padding, as in front of it."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.language.head import are_close
from decant.pipeline.own_loop.teacher import device_of, evaluating
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.signatures import signature

_MOST = 16  # tokens of each of two samples, or of padding and a sample


def are_behind_others(inputs: dict[str, Tensor]) -> bool:
    """Whether samples of a batch lie behind what they must not see: others in their row, or padding."""
    return are_in_one_row(inputs) or are_behind_padding(inputs)


def are_behind_padding(inputs: dict[str, Tensor]) -> bool:
    """Whether rows of a batch begin with padding."""
    mask = inputs.get("attention_mask")
    return mask is not None and mask.ndim == 2 and bool((mask[:, 0] == 0).any())


def are_in_one_row(inputs: dict[str, Tensor]) -> bool:
    """Whether rows of a batch hold several samples each, whose positions begin again."""
    positions = inputs.get("position_ids")
    return positions is not None and positions.ndim == 2 and bool(_begins_anew(inputs).any())


@torch.no_grad()
def require_apart(network: nn.Module, inputs: dict[str, Any]) -> None:
    """Raises ModelError for a network to which the second sample of a row, or one behind padding, says something else
    than it does in front of what it lies behind.

    Both rows have the same shape, so that a GPU computes them by the same kernels: by others the numbers may differ by
    more than one rounding.

    network: the one inside all wrappers. inputs: `input_ids`, and what else there is of each token, as `position_ids`,
    `attention_mask` or `seq_idx`, (B, L) of a batch; and where samples begin, as transformers'
    `DataCollatorWithFlattening` says it. Where samples may be told apart by anything else, or the network cannot be
    called so, as some attention takes half precision alone, nothing is found out.
    """
    if are_behind_padding(inputs):
        _require_same(network, inputs, *_padding(inputs["attention_mask"]), _SEES_PADDING)
    if are_in_one_row(inputs):
        _require_same(
            network,
            inputs,
            *_samples(inputs),
            _SEES_OTHERS + (_BESIDE_A_MASK if "attention_mask" in inputs else ""),
        )


def _require_same(
    network: nn.Module, inputs: dict[str, Any], row: int, first: slice, second: slice, said: str
) -> None:
    """Raises ModelError, with what is `said`, where the second part of a row changes with the first before it."""
    one_way, other_way = _row_of(inputs, row, first, second), _row_of(inputs, row, second, first)
    if one_way is None or other_way is None:
        return
    length = second.stop - second.start
    try:
        evaluated = evaluating(network, device_of(network, None))
        with evaluated, torch.autocast(inputs["input_ids"].device.type, enabled=False):
            behind = _logits(network, one_way)[:, -length:]
            before = _logits(network, other_way)[:, :length]
    except RAISED:
        return
    wide = behind.element_size() >= torch.float32.itemsize
    rounding = torch.float16 if wide else torch.bfloat16  # as TF32 rounds, in which float32 may be multiplied
    if not are_close(_finite(behind), _finite(before), rounding):
        raise ModelError(f"{type(network).__name__}: {said}")


_SEES_OTHERS = (
    "does not keep samples apart that are in one row: its outputs for the second change with the first, whatever "
    "position_ids say, and the teacher read each alone; pad them, by a TokenDataset without collator"
)
_BESIDE_A_MASK = (
    ", or leave out attention_mask, beside which networks of transformers do not heed position_ids"
)
_SEES_PADDING = (
    "sees the padding in front of a sample: its outputs change with it, whatever attention_mask and position_ids say, "
    "and the teacher read each sample alone; pad on the right, as a TokenDataset without padding_side and collator does"
)


def _samples(inputs: dict[str, Any]) -> tuple[int, slice, slice]:
    """A row (of B, L) that holds several samples, and the beginnings of the first two."""
    anew, real = _begins_anew(inputs), _real(inputs)
    row = int(anew.any(1).nonzero()[0])
    begins = [int(real[row].int().argmax()), *(1 + torch.nonzero(anew[row])[:2, 0]).tolist()]
    pairs = zip(begins, [*begins[1:], real.shape[1]], strict=False)
    lengths = [(begin, int(real[row, begin:end].sum())) for begin, end in pairs]
    first, second = [slice(begin, begin + min(length, _MOST)) for begin, length in lengths][:2]
    return row, first, second


def _padding(mask: Tensor) -> tuple[int, slice, slice]:
    """The row (of B, L) with most padding in front, the end of that, and the beginning of the sample."""
    begins = mask.int().argmax(1)
    row = int(begins.argmax())
    begin, end = int(begins[row]), int(begins[row] + mask[row].sum())
    return row, slice(max(0, begin - _MOST), begin), slice(begin, min(end, begin + _MOST))


def _row_of(inputs: dict[str, Any], row: int, *parts: slice) -> dict[str, Any] | None:
    """The inputs of a row that has these parts of another alone; None where there is one that is not understood."""
    lengths = [part.stop - part.start for part in parts]
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == inputs["input_ids"].shape:
            found[name] = torch.cat([value[row][part] for part in parts])[None]
        elif isinstance(value, Tensor) and name.startswith("cu_seq_lens"):
            found[name] = value.new_tensor([0, *itertools.accumulate(lengths)])
        elif name.startswith("max_length"):
            found[name] = max(lengths)
        else:
            return None
    return found


def _finite(logits: Tensor) -> Tensor:
    """Logits with 0 for those that are masked by −inf, which have no difference."""
    return logits.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _begins_anew(inputs: dict[str, Any]) -> Tensor:
    """(B, L − 1) whether the position after each is no later one, so that a sample begins there; of padding it is not
    asked.
    """
    real = _real(inputs)
    return (inputs["position_ids"].diff() <= 0) & real[:, 1:] & real[:, :-1]


def _real(inputs: dict[str, Any]) -> Tensor:
    """(B, L) which places are tokens and no padding."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["position_ids"], dtype=torch.bool) if mask is None else mask != 0


def takes(network: nn.Module, name: str) -> bool:
    """Whether a network can be given an argument of that name."""
    try:
        known = signature(network.forward).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return True
    return name in known or any(one.kind is one.VAR_KEYWORD for one in known.values())


def _logits(network: nn.Module, inputs: dict[str, Any]) -> Tensor:
    given = {**inputs, "use_cache": False}
    found = network(**{name: value for name, value in given.items() if takes(network, name)})
    logits: Tensor = found if isinstance(found, Tensor) else found.logits
    return logits
