"""Causal students in the training loop of recipes: whole batches of token samples, and how the network is called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.cache import LogitCache, MismatchError
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import require_same_samples
from decant.pipeline.corpus.difference import decoder_of
from decant.pipeline.language.alignment import require_same_tokens
from decant.pipeline.language.batches import TeacherBatch, collate, probe
from decant.pipeline.language.blocks import Block
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.dataset import targets_of
from decant.pipeline.language.doubts import say_if_router_loss_is_left_out
from decant.pipeline.objectives.chunked import PendingLogits
from decant.pipeline.training.loading import Keys


class TokenBatches:
    """Token samples in batches for `training.loop.train`: (inputs, labels (Q,)), and with a cache the teacher's rows of
    the Q places that predict a token. Both have the same inputs.

    Raises MismatchError for a cache of other texts, another tokenizer or another cut; `batch` for one of other tokens,
    all of which are compared, or whose rows are of other places.
    """

    def __init__(self, samples: TokenSamples, cache: LogitCache | None = None) -> None:
        if cache is not None:
            require_same_samples(samples, cache)
        self.samples, self.cache = samples, cache
        self._decode = decoder_of(samples.corpus.tokenizer)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, keys: Keys) -> tuple[Any, ...]:
        """The samples keys[:, 0], with the rows of view keys[0, 1]."""
        indices, view = keys[:, 0].astype(np.int64), int(keys[0, 1])
        made = collate(self.samples, indices)
        inputs = TokenInputs.of(made)
        if self.cache is None:
            return inputs, made.next_ids
        self._require_same(self.cache, indices, made.token_ids.numpy(), made.next_ids.numpy())
        return inputs, made.next_ids, targets_of(self.cache, indices, made.next_ids.numpy(), view)

    def _require_same(
        self,
        cache: LogitCache,
        indices: NDArray[np.int64],
        ids: NDArray[np.int64],
        next_ids: NDArray[np.int64],
    ) -> None:
        lengths = self.samples.lengths[indices]
        require_same_tokens(cache, indices, ids, lengths, self._decode)
        begins = np.cumsum(lengths) - lengths
        counts = self.samples.num_positions[indices]
        stored = cache.lengths[indices]
        if not np.array_equal(stored, counts):
            raise MismatchError(f"{cache.path}: has rows of other places than are learnt from here")
        at = cache.places(indices) + np.repeat(begins, counts)
        if not np.array_equal(ids[at + 1], next_ids):
            raise MismatchError(f"{cache.path}: its rows are of other places than are learnt from here")


class CausalCall:
    """Calls a causal network with a batch's inputs: hidden states at the places that predict, and the last layer that
    makes their logits, which the loss computes some at a time.

    network: in evaluation mode, as its head is looked for. Raises ModelError where it is no causal language model, or
    has fewer outputs than there are tokens.
    """

    def __init__(self, network: nn.Module, samples: TokenSamples, num_outputs: int) -> None:
        self._model = CausalModel(network, num_outputs)
        say_if_router_loss_is_left_out(network)
        was_training = network.training
        network.eval()
        self._model.prepare(probe(samples))
        network.train(was_training)

    def __call__(self, network: nn.Module, inputs: dict[str, Tensor], setting: str) -> PendingLogits | Tensor:
        """Raises ModelError where the network fails."""
        return self._model.last_layer(self._model.states_at(blocks_of(inputs), inputs["places"]))


class TokenInputs(dict[str, Tensor]):
    """What `CausalCall` takes: tensors alone, which loaders pin and devices get."""

    described = ""
    """The size of the batch in words."""

    @classmethod
    def of(cls, batch: TeacherBatch) -> TokenInputs:
        """Those of a batch."""
        found = cls(places=batch.places)
        for number, block in enumerate(batch.blocks):
            found |= {f"input_ids {number}": block.ids, f"attention_mask {number}": block.mask}
        found.described = f"{batch.size} tokens"
        return found


def blocks_of(inputs: dict[str, Tensor]) -> list[Block]:
    """The blocks in `TokenInputs`."""
    return [
        Block(inputs[f"input_ids {number}"], inputs[f"attention_mask {number}"])
        for number in range(len(inputs) // 2)
    ]
