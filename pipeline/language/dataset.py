"""`TokenDataset`: token samples joined with the teacher's rows, for a training loop of one's own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from decant.cache import Hidden, LogitCache, OfOneVersion, SharedEpoch, Sparse
from decant.cache.io import usage
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import require_same_samples
from decant.pipeline.corpus.difference import decoder_of
from decant.pipeline.errors import DataError
from decant.pipeline.language.alignment import require_aligned, require_same_tokens
from decant.pipeline.language.apart import are_behind_padding
from decant.pipeline.language.doubts import say_if_of_other_tokens
from decant.pipeline.objectives import FusedTargets, SparseTargets, TeacherHead

Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
Side = Literal["left", "right"]


@dataclass(frozen=True)
class TokenBatch:
    """Some samples, padded, and a row of the teacher's for each place that predicts a token to learn."""

    inputs: dict[str, Any]
    """What the student takes: `input_ids` and `attention_mask` (B, L), perhaps `position_ids`, and what else a collator
    of your own gives.
    """
    places: Tensor
    """(Q,) int64: which of the B·L places the rows are of."""
    labels: Tensor
    """(Q,) int64: the token that follows each place."""
    targets: SparseTargets | Tensor
    """The teacher's rows: sparse ones; logits (Q, C) of a dense cache; of hidden states (Q, d), from which
    `TokenDataset.teacher_logits` makes logits.
    """
    num_outputs: int
    """C."""

    def at(self, outputs: Tensor) -> Tensor:
        """(Q, …): what the student gives for all places, (B, L, …), at those that have rows. Logits (B, L, R) of a
        student whose vocabulary is padded are those of the C tokens: (Q, C). Hidden states are taken as they are.

        Raises DataError for outputs of other places than the batch has.
        """
        expected = tuple(self.inputs["input_ids"].shape)
        if tuple(outputs.shape[:2]) != expected:
            raise DataError(
                f"the student's outputs {tuple(outputs.shape)} are not of the {expected[0]} × {expected[1]} places of "
                "the batch; a network that puts tokens of its own before a text, or gives the last alone, does that"
            )
        return outputs.flatten(0, 1)[self.places.to(outputs.device)]

    def logits(self, outputs: Any) -> Tensor:
        """(Q, C) of what a student returned: logits (B, L, R), or an output that has them as `logits`; R ≥ C.

        Raises DataError for fewer outputs than the teacher's rows have.
        """
        found = outputs if isinstance(outputs, Tensor) else outputs.logits
        if found.shape[-1] < self.num_outputs:
            raise DataError(
                f"the student has {found.shape[-1]:,} outputs, and the teacher's rows are of {self.num_outputs:,}"
            )
        say_if_of_other_tokens("the student", found.shape[-1], self.num_outputs)
        return self.at(found)[:, : self.num_outputs]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> TokenBatch:
        """The same on a device."""
        return self._each(
            lambda tensor: tensor.to(device, non_blocking=non_blocking), self.targets.to(device)
        )

    def pin_memory(self) -> TokenBatch:
        """The same in page-locked memory, as a loader with `pin_memory` asks for."""
        return self._each(Tensor.pin_memory, self.targets.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor], targets: SparseTargets | Tensor) -> TokenBatch:
        inputs = {
            name: change(value) if isinstance(value, Tensor) else value for name, value in self.inputs.items()
        }
        return TokenBatch(inputs, change(self.places), change(self.labels), targets, self.num_outputs)


class TokenDataset(OfOneVersion, Dataset[dict[str, Any]]):
    """Token samples with the teacher's rows of them. An item is a sample's `input_ids` (L,) and its number; `collate`
    makes a `TokenBatch` of some, to be given to a DataLoader as `collate_fn`.

    A cache of other texts, another tokenizer, another chat template or another cut is refused when the dataset is made;
    the tokens of every batch are compared with those that the teacher read, all of them.

    With several views, epoch e reads view e mod V, see `set_epoch`. Raises MismatchError.

    >>> import tempfile, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> teacher = LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes))
    >>> folder = tempfile.TemporaryDirectory()
    >>> from decant import language
    >>> corpus = language.tokenise(["a text", "and another"], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> samples = language.TokenSamples(corpus, max_length=8)
    >>> cache = language.cache_logits(teacher, samples, f"{folder.name}/teacher.h5")
    >>> train = TokenDataset(samples, cache)
    >>> batch = train.collate([train[0], train[1]])
    >>> batch.inputs["input_ids"].shape, batch.labels.shape, batch.targets.ids.shape
    (torch.Size([2, 8]), torch.Size([13]), torch.Size([13, 64]))
    >>> batch.logits(teacher(**batch.inputs)).shape
    torch.Size([13, 257])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        samples: TokenSamples,
        cache: LogitCache,
        *,
        padding_side: Side = "right",
        collator: Collator | None = None,
    ) -> None:
        """padding_side: of batches; with "left", `position_ids` are given too. A network that ignores attention_mask,
        as RWKV and xLSTM do, needs padding on the right. collator: makes `input_ids` and `attention_mask` of items, in
        place of the padding here, as those of transformers. One that pads nothing and returns no mask may put all
        tokens into one row; its `position_ids` begin again with each sample, by which networks of transformers keep
        samples apart if they are called with use_cache=False.
        """
        if padding_side not in ("left", "right"):
            raise DataError(f'padding_side: expected "left" or "right", found {padding_side!r}')
        require_same_samples(samples, cache)
        self.samples, self.cache = samples, cache
        self._side, self._collator = padding_side, collator
        self._epoch = SharedEpoch()
        usage.note(cache.path)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = range(len(self))[operator.index(index)]
        return {"input_ids": torch.from_numpy(self.samples.tokens(place)), "sample": place}

    def set_epoch(self, epoch: int) -> None:
        """From now on rows are those of view epoch mod V, in this process and in every live worker. Raises ValueError,
        and CorruptError where the cache has changed since it was read.
        """
        self.cache.check_unchanged()
        self._epoch.set(epoch)

    def collate(self, items: Sequence[Mapping[str, Any]]) -> TokenBatch:
        """A batch of some items. Parts of a sample that do not see one another are rows of their own.

        Raises MismatchError, naming the first token that differs, where the batch has other tokens than the teacher
        read, or rows are of other places; DataError for items that are not of this dataset.
        """
        indices = np.array([_number(item) for item in items], np.int64)
        rows = self._rows(items, indices)
        inputs = self._padded(rows) if self._collator is None else _named(self._collator(rows))
        _require_told_apart(inputs, len(rows))
        real = _real_places(inputs)
        if are_behind_padding(inputs):  # by a collator, which need not say where samples begin
            inputs.setdefault("position_ids", _positions(inputs["attention_mask"]))
        ids = inputs["input_ids"].flatten()[real].numpy().astype(np.int64)
        lengths = self.samples.lengths[indices]
        decode = decoder_of(self.samples.corpus.tokenizer)
        require_same_tokens(self.cache, indices, ids, self._lengths(inputs, indices, len(rows)), decode)
        begins = np.cumsum(lengths) - lengths
        at = self.cache.places(indices) + np.repeat(begins, self.samples.num_positions[indices])
        labels = ids[at + 1]
        return TokenBatch(
            inputs,
            real[torch.from_numpy(at)],
            torch.from_numpy(labels),
            self._targets(indices, labels),
            self.cache.num_outputs,
        )

    def teacher_logits(self, batch: TokenBatch) -> Tensor:
        """(Q, C) float32, the teacher's logits of a batch of a cache of hidden states, or of a dense one, on the device
        of the batch. Raises TypeError for sparse rows, which do not have them.
        """
        if not isinstance(batch.targets, Tensor):
            raise TypeError(
                "teacher_logits: sparse rows have no logits of all outputs; compare with batch.targets"
            )
        if not isinstance(self.cache.manifest.encoding, Hidden):
            return batch.targets.float()
        return self.head.logits(batch.targets)

    def fused_targets(self, batch: TokenBatch) -> FusedTargets:
        """What `decant.objectives.fused_kd` compares with, of any cache: sparse rows, logits (Q, C), or hidden states
        with the head that makes logits of them, a chunk at a time.
        """
        if isinstance(batch.targets, Tensor) and isinstance(self.cache.manifest.encoding, Hidden):
            return self.head.targets(batch.targets)
        return batch.targets

    @cached_property
    def head(self) -> TeacherHead:
        """Of a cache of hidden states, what makes logits of them. Raises TypeError for another cache."""
        return TeacherHead(self.cache.head)

    def _rows(self, items: Sequence[Mapping[str, Any]], indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Items without their numbers; each part of one that sees itself alone is one of its own."""
        rows: list[dict[str, Any]] = []
        for item, index in zip(items, indices.tolist(), strict=True):
            kept = {name: value for name, value in item.items() if name != "sample"}
            groups = self.samples.groups(index).tolist()
            if len(groups) == 1:
                rows.append(kept)
            else:
                rows += [{"input_ids": part} for part in kept["input_ids"].split(groups)]
        return rows

    def _lengths(
        self, inputs: Mapping[str, Tensor], indices: NDArray[np.int64], rows: int
    ) -> NDArray[np.int64]:
        """(B,) how many tokens each sample has in a batch; what it should have, where a collator put all in one row."""
        mask = inputs.get("attention_mask")
        if mask is None or len(mask) != rows:
            return self.samples.lengths[indices]
        counts = np.array([len(self.samples.groups(index)) for index in indices.tolist()])
        found: NDArray[np.int64] = np.add.reduceat(mask.sum(1).numpy(), np.cumsum(counts) - counts)
        return found

    def _padded(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        padding = getattr(self.samples.corpus.tokenizer, "pad_token_id", None) or 0
        if padding >= self.cache.num_outputs:  # as one that was added for padding, which no network knows
            padding = 0
        ids = torch.full((len(rows), longest), padding)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            own = row["input_ids"]
            some = slice(0, len(own)) if self._side == "right" else slice(longest - len(own), longest)
            ids[number, some], mask[number, some] = own, 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._side == "left":
            inputs["position_ids"] = _positions(mask)
        return inputs

    def _targets(self, indices: NDArray[np.int64], labels: NDArray[np.int64]) -> SparseTargets | Tensor:
        return targets_of(self.cache, indices, labels, self._epoch.number % self.cache.num_views)


def targets_of(
    cache: LogitCache, indices: NDArray[np.int64], labels: NDArray[np.int64], view: int
) -> SparseTargets | Tensor:
    """The teacher's rows of some samples: sparse ones, logits (Q, C), or hidden states (Q, d). labels: (Q,) the token
    that follows each. Raises MismatchError where rows are of other places.
    """
    encoding = cache.manifest.encoding
    if isinstance(encoding, Hidden):
        return torch.from_numpy(np.array(cache.hidden(indices, view)))
    if not isinstance(encoding, Sparse):
        return torch.from_numpy(np.array(cache.logits(indices, view)))
    rows = cache.rows(indices, view)
    require_aligned(cache, indices, rows, labels, cache.next_log_prob(indices, view))
    return SparseTargets.from_rows(rows, encoding, cache.num_outputs)


def _number(item: Mapping[str, Any]) -> int:
    if not isinstance(item, Mapping) or "sample" not in item or "input_ids" not in item:
        raise DataError(
            "collate: expected items of a decant.language.TokenDataset, with input_ids and sample"
        )
    return int(item["sample"])


def _named(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the student takes of a collator's batch; labels are left out, as the loss is computed outside."""
    inputs = {
        name: value for name, value in batch.items() if name != "labels" and isinstance(value, Tensor | int)
    }
    if "input_ids" not in inputs:
        raise DataError(f"collator: returned {', '.join(map(str, batch)) or 'nothing'}, and no input_ids")
    return inputs


def _require_told_apart(inputs: Mapping[str, Any], rows: int) -> None:
    """Raises DataError where a collator put several samples into one row, and nothing says where one begins."""
    joined = len(inputs["input_ids"]) < rows
    if joined and "attention_mask" not in inputs and len(inputs) == 1:
        raise DataError(
            f"collator: put {rows:,} samples into {len(inputs['input_ids']):,} rows without position_ids, by which a "
            "network tells them apart; return these too, beginning again with each sample"
        )


def _positions(mask: Tensor) -> Tensor:
    """(B, L) the place of each token within its sample; networks count padding in front unless they are told."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _real_places(inputs: Mapping[str, Tensor]) -> Tensor:
    """(T,) which of the B·L places are tokens and no padding, in their order."""
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    if mask.shape != inputs["input_ids"].shape:
        raise DataError(
            f"collator: expected attention_mask {tuple(inputs['input_ids'].shape)}, found {tuple(mask.shape)}"
        )
    return mask.flatten().nonzero()[:, 0]
