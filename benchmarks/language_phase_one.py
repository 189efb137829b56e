"""A language model's phase one, against the network itself on the same batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.caching import synchronize
from benchmarks.conditions import Conditions
from benchmarks.language_models import SMALL, SMOLLM2, device_here, llama, random_texts, untrained
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, medians
from decant import LogitCacheWriter, Manifest, language
from decant.cache import Encoding
from decant.encodings import Hidden, Sparse
from decant.pipeline.corpus.cached import positions_of
from decant.pipeline.language.batches import batches, plan_of, probe
from decant.pipeline.language.blocks import Block
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.teacher_pass import TeacherPass


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 28, a line for each encoding: from the first batch to the published file, and the logits of the same batches
    as the network returns them.
    """
    device = device_here()
    shape = conditions.choose(SMOLLM2, SMALL)
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    network = llama(conditions, shape).to(device, dtype)
    samples = random_texts(
        conditions, conditions.choose(200_000 if on_gpu else 512, 200), 512 if on_gpu else 128
    )
    budget = conditions.choose(8192 if on_gpu else 256, 128)
    model = CausalModel(network, shape.outputs)
    model.prepare(probe(samples))
    encodings = {"sparse": Sparse(), "hidden": Hidden.of(model.head())}
    passes = [_Pass(conditions, model, samples, encoding, budget) for encoding in encodings.values()]
    repetitions = conditions.choose(5, 1)
    bare, *found = medians(forward(model, samples, budget), *passes, repetitions=repetitions)
    what = f"{shape}, {int(samples.lengths.sum()):,} tokens, {str(dtype).removeprefix('torch.')} on {device.type}"
    for name, one, seconds in zip(encodings, passes, found, strict=True):
        yield Measurement(
            28, f"phase one of a language model, `{name}`, {what}", "the network's logits of the same batches",
            seconds / bare, Unit.TIME, 1.10, f"{one.publishing:.3f} of {seconds:.3f} s publish the file",
            details={"seconds": seconds, "against_seconds": bare, "repetitions": repetitions},
        )  # fmt: skip


class _Pass:
    """Calls of a teacher's pass into a new cache each time."""

    def __init__(
        self,
        conditions: Conditions,
        model: CausalModel,
        samples: language.TokenSamples,
        encoding: Encoding,
        budget: int,
    ) -> None:
        self._path = conditions.folder / f"{encoding.identity['kind']}.h5"
        self._samples, self._encoding = samples, encoding
        self._positions = positions_of(samples)
        self._manifest = Manifest.build(
            num_samples=len(samples),
            num_outputs=model.num_outputs,
            encoding=encoding,
            positions=self._positions,
        )
        self._pass = TeacherPass(model, samples, encoding, 1, budget, show_progress=False)
        self.publishing = 0.0
        """Seconds of the last call in which the file was checked, synced and published."""

    def __call__(self) -> float:
        """Seconds until the file is published."""
        self._path.unlink(missing_ok=True)
        head = self._encoding.head if isinstance(self._encoding, Hidden) else None
        writing = LogitCacheWriter(self._path, self._manifest, positions=self._positions, head=head)
        with untrained(), writing as writer:
            started = time.perf_counter()
            self._pass.fill(writer)
            filled = time.perf_counter()
            writer.publish()
            ended = time.perf_counter()
        self.publishing = ended - filled
        return ended - started


def forward(model: CausalModel, samples: language.TokenSamples, budget: int) -> Timed:
    """Calls the network itself on the batches of the pass, which lie on its device."""
    network, device = model.network, model.device
    planned = [batch for window in plan_of(samples, budget) for batch in window]
    made = [
        Block(*(tensor.to(device) for tensor in block))
        for batch in batches(samples, planned)
        for block in batch.blocks
    ]

    @torch.inference_mode()
    def run() -> float:
        synchronize(device)
        started = time.perf_counter()
        for block in made:
            _logits(network, block)
        synchronize(device)
        return time.perf_counter() - started

    return run


def _logits(network: nn.Module, block: Block) -> Any:
    return network(input_ids=block.ids, attention_mask=block.mask, use_cache=False).logits
