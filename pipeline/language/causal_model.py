"""A causal language model in two halves: hidden states of a batch of texts, and logits of some of its positions.

The logits of all positions, (B, L, C), are the largest tensor of a forward pass by far. So the pass ends before the
head, and the head is applied to the positions that are wanted, some at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from decant.cache import Head
from decant.pipeline.errors import ModelError, is_out_of_memory
from decant.pipeline.language.batches import TeacherBatch
from decant.pipeline.language.blocks import Block
from decant.pipeline.language.doubts import say_if_of_other_tokens
from decant.pipeline.language.head import (
    After,
    afters,
    are_close,
    candidates,
    inner_layer,
    plain_layer,
    recorded,
)
from decant.pipeline.language.memory import SETTING, named_memory
from decant.pipeline.objectives.chunked import PendingLogits
from decant.pipeline.objectives.fused.last_layer import LastLayer
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.plugins import in_words
from decant.pipeline.support.signatures import signature

_CHUNK_BYTES = 64 << 20  # of logits that exist at once
_ON_A_DEVICE = 4  # as many, since each kernel of a GPU is started by the host


class CausalModel:
    """A network that predicts tokens, as one that gives logits (Q, C) float32 of chosen positions, a few at a time.

    network: any module that takes `input_ids` (B, L), and if need be `attention_mask`, and returns logits (B, L, R), as
    they are or as the field `logits`. num_outputs: C, how many of the R outputs are tokens; the others, by which
    vocabularies are padded, are left out.

    The head is what `get_output_embeddings` names, or the one linear layer that computes the logits. A soft cap and a
    scale that the configuration has are applied after it. Both are checked against the whole network before anything is
    computed with them; where they do not give its logits, the whole network's are used, which is said.
    """

    def __init__(self, network: nn.Module, num_outputs: int) -> None:
        self.network = network
        self.num_outputs, self.num_rows = num_outputs, 0
        self._takes = _arguments(network)
        self._head: nn.Module | None = None
        self._linear: nn.Linear | None = None
        self._after = After()

    @property
    def after(self) -> str:
        """What is done to the outputs of the head, in words."""
        return self._after.words

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        first = next(iter(self.network.parameters()), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> str:
        """That of the parameters, as `bfloat16`."""
        first = next((value for value in self.network.parameters() if value.is_floating_point()), None)
        return "float32" if first is None else str(first.dtype).removeprefix("torch.")

    @property
    def max_length(self) -> int | None:
        """The most tokens that the network's positions allow; None where it does not say."""
        config = getattr(self.network, "config", None)
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            found = getattr(config, name, None)
            if isinstance(found, int) and found > 0:
                return found
        return None

    @torch.no_grad()
    def prepare(self, ids: Tensor) -> None:
        """Finds the head by a small batch of tokens (B, L), and checks that it gives the network's logits.

        Nothing here is computed in inference mode: what a network keeps of a call, as angles of positions, is used by
        calls that need a gradient.

        Raises ModelError where the network gives no logits (B, L, R), or has fewer outputs than there are tokens.
        """
        ids = ids.to(self.device)
        self._require_decoder()
        known = known_tokens(self.network)
        self._require_rows(self.num_outputs if known is None else known)
        seen: dict[nn.Module, Tensor] = {}
        with (
            named_memory(self.name, f"a batch of {ids.shape[0]:,} × {ids.shape[1]:,} tokens"),
            recorded(self.network, seen),
        ):
            logits = self._logits(self._call(ids, torch.ones_like(ids)), ids)
        self.num_rows = logits.shape[2]
        self._require_rows(self.num_rows)
        say_if_of_other_tokens(self.name, self.num_rows, self.num_outputs)
        self._require_finite(logits[..., : self.num_outputs])
        self._require_causal(ids, logits)
        self._head = self._linear = None
        for head in candidates(self.network, seen, logits):
            for after in afters(self.network):
                if are_close(after(seen[head]), logits):
                    self._head, self._after = head, after
                    break
            if self._head is not None and self._agrees(ids, logits):
                self._head = inner_layer(self._head, seen)
                self._linear = plain_layer(
                    self._head, partial(self.states, ids, torch.ones_like(ids)), logits.dtype
                )
                return
            self._head = None
        say_once(
            f"{self.name}: no layer of it is found that computes its logits from hidden states, so those of all "
            "positions of a batch exist at once; a smaller tokens_per_batch takes less memory"
        )

    @torch.no_grad()
    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the head is applied to, (B, L, d); or the logits (B, L, R), where no head was found.

        ids, mask: (B, L) int64. Raises ModelError.
        """
        return self.states(ids, mask)

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The same with what a gradient needs."""
        if self._head is None:
            return self._logits(self._call(ids, mask), ids)
        caught: list[Tensor] = []

        def catch(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            caught.append(given[0] if given else next(iter(named.values())))
            raise _ReachedHead

        handle = self._head.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self._call(ids, mask)
        except _ReachedHead:
            pass
        finally:
            handle.remove()
        if not caught or caught[0].shape[:2] != ids.shape:
            raise ModelError(f"{self.name}: did not reach its head with hidden states {(*ids.shape, 'd')}")
        return caught[0]

    def states_at(self, blocks: Sequence[Block], places: Tensor) -> Tensor:
        """The `states` (Q, d) at some places of blocks that lie on the network's device, one after the other."""
        each = [self.states(*block).flatten(0, 1) for block in blocks]
        return (each[0] if len(each) == 1 else torch.cat(each))[places]

    @torch.no_grad()
    def hidden_at(self, batch: TeacherBatch, setting: str = SETTING) -> Tensor:
        """(Q, d) what the head is applied to at the positions of a batch; or logits (Q, R), where no head was found.

        Raises ModelError, which names the batch and the `setting` where memory runs out.
        """
        with self.naming(batch, setting):
            blocks = [Block(*(value.to(self.device) for value in block)) for block in batch.blocks]
            return self.states_at(blocks, batch.places.to(self.device))

    def naming(self, batch: TeacherBatch, setting: str = SETTING) -> AbstractContextManager[None]:
        """Says of which samples a batch is where memory runs out."""
        first, last = int(batch.samples.min()), int(batch.samples.max())
        return named_memory(
            self.name, f"a batch of {batch.size} tokens, of samples {first:,} to {last:,}", setting
        )

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """The logits (q, C) float32 of some positions after the other; hidden: (Q, d)."""
        for some in self._logits_of(hidden, torch.float32.itemsize):
            yield some.float()

    @torch.no_grad()
    def narrow_logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """The same in the dtype of the head, but no wider one, for who reads them where they lie: no other copy of them
        is written.
        """
        for some in self._logits_of(hidden, hidden.element_size()):
            yield some.float() if some.element_size() > torch.float32.itemsize else some

    def _logits_of(self, hidden: Tensor, itemsize: int) -> Iterator[Tensor]:
        size = _CHUNK_BYTES if hidden.device.type == "cpu" else _ON_A_DEVICE * _CHUNK_BYTES
        for some in hidden.split(max(1, size // (itemsize * (self.num_rows or hidden.shape[1])))):
            found = some if self._head is None else self._after(self._head(some))
            yield found[:, : self.num_outputs]

    @property
    def ends_in_linear_layer(self) -> bool:
        """Whether one linear layer of PyTorch makes its logits of hidden states, so that it matters not where and when
        that is called.
        """
        return self._linear is not None

    def last_layer(self, states: Tensor) -> PendingLogits | Tensor:
        """The logits (Q, C) of hidden states (Q, d), which a loss computes some at a time; themselves, where no linear
        layer was found that makes them.
        """
        layer = self._head
        if layer is None:
            return states[:, : self.num_outputs]
        if self._linear is None:
            return self._after(layer(states))[:, : self.num_outputs]
        layer = self._linear
        own, scale = len(layer.weight) == self.num_outputs, self._after.scale
        weight = layer.weight if own else layer.weight[: self.num_outputs]
        bias = layer.bias if own or layer.bias is None else layer.bias[: self.num_outputs]
        of_autocast = torch.get_autocast_dtype(states.device.type)
        return PendingLogits(
            states,
            weight,
            bias if bias is None or scale == 1 else bias * scale,
            LastLayer(scale, self._after.cap),
            of_autocast if torch.is_autocast_enabled(states.device.type) else None,
        )

    def head(self) -> Head:
        """The head with what is done after it, for a cache of hidden states: weight (C, d), and bias (C,) if any.

        Raises ModelError where no linear layer was found to be the head.
        """
        layer = self._linear
        if layer is None:
            raise ModelError(
                f"{self.name}: has no linear layer that makes its logits of hidden states, so these cannot be stored "
                "in their place; store logits: encoding=decant.encodings.Sparse()"
            )
        scale, cap = self._after.scale, self._after.cap
        dtype: Literal["float16", "float32"] = "float16" if layer.weight.dtype == torch.float16 else "float32"
        bias = None if layer.bias is None else layer.bias[: self.num_outputs].detach().float() * scale
        weight = layer.weight[: self.num_outputs].detach()
        weight = weight if dtype == "float16" else weight.float()
        return Head.of(
            weight.cpu(), None if bias is None else bias.cpu(), scale=scale, soft_cap=cap, dtype=dtype
        )

    @property
    def linear_head(self) -> nn.Linear | None:
        """The one linear layer that makes the logits, once it was found; None for another head, as an adapted one."""
        adapted = {getattr(module, "base_layer", None) for module in self.network.modules()}
        return None if self._linear in adapted else self._linear

    @property
    def name(self) -> str:
        """Of the network's class."""
        return type(self.network).__name__

    def _call(self, ids: Tensor, mask: Tensor) -> Any:
        named = {"attention_mask": mask, "use_cache": False}
        given = {name: value for name, value in named.items() if name in self._takes}
        try:
            if "input_ids" in self._takes:
                return self.network(input_ids=ids, **given)
            return self.network(ids, **given)
        except _ReachedHead:
            raise
        except RAISED as error:
            if is_out_of_memory(error):
                raise  # who made the batch says which it is
            raise ModelError(
                f"{self.name}: failed on a batch of {ids.shape[0]:,} × {ids.shape[1]:,} tokens ({in_words(error)})"
            ) from error

    def _logits(self, returned: Any, ids: Tensor) -> Tensor:
        found = returned
        if isinstance(returned, Mapping):
            found = returned.get("logits")
        elif not isinstance(returned, Tensor):
            found = getattr(
                returned, "logits", returned[0] if isinstance(returned, tuple) and returned else None
            )
        if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[:2] != ids.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"{self.name}: expected logits {(*ids.shape, 'C')}, one row for each token, found {shape}: has it a "
                "language-model head?"
            )
        if not found.is_floating_point():
            raise ModelError(f"{self.name}: logits must be floats, found {found.dtype}")
        return found

    def _require_rows(self, rows: int) -> None:
        """Raises ModelError where the network's first or last layer has fewer rows than there are tokens."""
        if rows < self.num_outputs:
            raise ModelError(
                f"{self.name}: knows {rows:,} tokens, and the tokenizer {self.num_outputs:,}; take the tokenizer of "
                "this network, or give the network a row for each token (resize_token_embeddings)"
            )

    def _require_decoder(self) -> None:
        """Raises ModelError for a network of transformers that reads a second text, of which there is none."""
        if getattr(getattr(self.network, "config", None), "is_encoder_decoder", False):
            raise ModelError(
                f"{self.name}: is an encoder and a decoder: its outputs are about a second text, and samples have one; "
                "run it yourself, and write its rows by decant.LogitCacheWriter, see docs/guides/positions.md"
            )

    def _require_finite(self, logits: Tensor) -> None:
        """Raises ModelError for logits (B, L, C) of which some are no numbers."""
        bad = ~torch.isfinite(logits)
        if not bad.any():
            return
        token = int(bad.flatten(0, 1).any(0).nonzero()[0])
        if bool((logits[..., token] == -torch.inf).all()):
            raise ModelError(
                f"{self.name}: gives the token {token:,} a logit of −inf everywhere, as where tokens are masked, and a "
                "row of a cache has finite logits: mask them by a large negative number, as −10,000"
            )
        raise ModelError(
            f"{self.name}: gives logits that are not finite for the first tokens: its weights are damaged, or it "
            "overflows in half precision"
        )

    def _require_causal(self, ids: Tensor, logits: Tensor) -> None:
        """Raises ModelError where the logits at a position change with the token after it."""
        other = ids.clone()
        other[:, -1] = (other[:, -1] + 1) % self.num_outputs
        again = self._logits(self._call(other, torch.ones_like(other)), other)
        if not are_close(again[:, :-1], logits[:, :-1], logits.dtype):
            raise ModelError(
                f"{self.name}: its logits at a position change with the token after it, or from call to call: it is "
                "no causal language model in evaluation mode; a masked one, as BERT, cannot say what comes next"
            )

    def _agrees(self, ids: Tensor, logits: Tensor) -> bool:
        """Whether both halves, one after the other, give the network's logits."""
        try:
            hidden = self.hidden(ids, torch.ones_like(ids))
            parts = torch.cat(list(self.logits(hidden.flatten(0, 1))))
        except (*RAISED, ModelError):
            return False
        return are_close(parts, logits.flatten(0, 1)[:, : self.num_outputs], logits.dtype)


class _ReachedHead(BaseException):
    """Ends a forward pass before its head; no network catches it by accident."""


def known_tokens(network: nn.Module) -> int | None:
    """How many tokens the first layer of a network of transformers knows; None where it does not name that layer."""
    try:
        embeddings = getattr(network, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # as of a class of the user's
        return None
    return getattr(embeddings, "num_embeddings", None)


def _arguments(network: nn.Module) -> set[str]:
    """The names that `forward` takes, of a compiled network those of what was compiled."""
    try:
        return set(signature(getattr(network, "_orig_mod", network).forward).parameters)
    except (TypeError, ValueError):
        return set()
