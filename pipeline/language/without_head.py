"""A causal network that is called through whatever wraps it, as a Trainer does, without logits of all places.

The forward pass is not ended before the head, as wrappers do something after it: the head is replaced for the call by
one that gives a number for each place, and what it was given is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.dataset import TokenBatch
from decant.pipeline.objectives.chunked import PendingLogits

_LONGEST_PROBE = 32


class WithoutHead:
    """Calls a network, and gives the logits of a batch's places as ones that are not computed yet.

    `why_not` says why that cannot be done with a network, whose logits of all places are to be taken then.
    """

    def __init__(self, network: nn.Module, num_outputs: int, ids: Tensor) -> None:
        """network: the one inside all wrappers. ids: (B, L) int64, some tokens to find the head by."""
        self.why_not: str | None = None
        self._model = CausalModel(network, num_outputs)
        was_training = network.training
        network.eval()
        try:
            with in_own_precision(network):
                self._model.prepare(ids)
        except ModelError as error:
            self.why_not = str(error)
        else:
            self.why_not = _obstacle(self._model.linear_head)
        network.train(was_training)

    def __call__(
        self, model: nn.Module, inputs: Mapping[str, Any], batch: TokenBatch
    ) -> PendingLogits | None:
        """model: the network as it is wrapped. None, and `why_not`, where it was called without its head."""
        caught: list[PendingLogits] = []
        with self._caught(batch, caught):
            model(**inputs)
        if len(caught) != 1:
            self.why_not = f"it calls its head {len(caught):,} times in a step"
            return None
        return caught[0]

    @contextmanager
    def _caught(self, batch: TokenBatch, caught: list[PendingLogits]) -> Iterator[None]:
        head = self._model.linear_head
        assert head is not None, "asked for before"

        def forward(hidden: Tensor) -> Tensor:
            pending = self._model.last_layer(batch.at(hidden))
            assert isinstance(pending, PendingLogits), "of a linear layer"
            caught.append(pending)
            # DistributedDataParallel looks for what is used of a network in what it returns
            used = head.weight[0, 0] if head.bias is None else head.weight[0, 0] + head.bias[0]
            return hidden[..., :1] + used

        head.forward = forward  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            del head.forward


@contextmanager
def in_own_precision(network: nn.Module) -> Iterator[None]:
    """Without what Accelerate puts around a forward pass, which computes in another precision than a head by itself."""
    own = vars(network)
    if "forward" not in own or "_original_forward" not in own:
        yield
        return
    wrapped = own["forward"]
    own["forward"] = own["_original_forward"]
    try:
        yield
    finally:
        own["forward"] = wrapped


def _obstacle(head: nn.Linear | None) -> str | None:
    if head is None:
        return "its head is not one linear layer"
    return "something calls its head in a way of its own" if "forward" in vars(head) else None


def probe_of(batch: TokenBatch) -> Tensor:
    """(2, L) some tokens of a batch and the same in the reverse order, to find a head by."""
    mask = batch.inputs.get("attention_mask")
    row: Tensor = batch.inputs["input_ids"][0]
    ids = (row if mask is None else row[mask[0].bool()])[:_LONGEST_PROBE]
    return torch.stack([ids, ids.flip(0)])
