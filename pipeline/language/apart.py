"""Whether a network keeps samples apart that a collator put into one row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.language.head import are_close
from decant.pipeline.own_loop.teacher import device_of, evaluating
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.signatures import signature

_MOST = 16  # tokens of each of two samples


def are_in_one_row(inputs: dict[str, Tensor]) -> bool:
    """Whether rows of a batch hold several samples each, whose positions begin again."""
    positions = inputs.get("position_ids")
    if positions is None or "attention_mask" in inputs:
        return False
    return bool(_begins_anew(positions).any())


@torch.no_grad()
def require_apart(network: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Raises ModelError for a network to which the second sample of a row says something else than it does in front of
    the first.

    Both rows have the same shape, so that a GPU computes them by the same kernels: by others the numbers may differ by
    more than one rounding.

    network: the one inside all wrappers. inputs: `input_ids`, `position_ids` and what else there is of each token, as
    `seq_idx`, (B, L) of a batch. Where there is anything else by which samples may be told apart, or the network cannot
    be called so, as some attention takes half precision alone, nothing is found out.
    """
    ids, positions = inputs["input_ids"], inputs["position_ids"]
    if any(getattr(value, "shape", None) != ids.shape for value in inputs.values()):
        return
    row = int(_begins_anew(positions).any(1).nonzero()[0])
    begins = [0, *(1 + torch.nonzero(_begins_anew(positions[row]))[:2, 0]).tolist()]
    pairs = zip(begins, [*begins[1:], ids.shape[1]], strict=False)
    first, second = [slice(begin, min(end, begin + _MOST)) for begin, end in pairs][:2]
    length = second.stop - second.start

    def joined(*parts: slice) -> dict[str, Tensor]:
        return {name: torch.cat([value[row][part] for part in parts])[None] for name, value in inputs.items()}

    try:
        evaluated = evaluating(network, device_of(network, None))
        with evaluated, torch.autocast(ids.device.type, enabled=False):
            behind = _logits(network, joined(first, second))[:, -length:]
            before = _logits(network, joined(second, first))[:, :length]
    except RAISED:
        return
    rounding = (
        torch.float16 if behind.element_size() >= torch.float32.itemsize else torch.bfloat16
    )  # as TF32 rounds
    if not are_close(behind, before, rounding):
        raise ModelError(
            f"{type(network).__name__}: does not keep samples apart that are in one row: its outputs for the second "
            "change with the first, whatever position_ids say, and the teacher read each alone; pad them, by a "
            "TokenDataset without collator"
        )


def _begins_anew(positions: Tensor) -> Tensor:
    """(…, L − 1) whether the position after each is no later one, so that a sample begins there."""
    return positions.diff() <= 0


def _logits(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    takes = signature(network.forward).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {**inputs, "use_cache": False}
    found: Tensor = network(
        **{name: value for name, value in given.items() if name in takes or any_name}
    ).logits
    return found
