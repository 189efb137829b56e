"""One student, cut from its teacher, taught in one way with one seed; the logits of all positions never exist."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.study.language.arms import EPOCHS, HEAD_16, Arm, Rows, Schedule
from benchmarks.study.language.phase_one import Part
from decant import LogitCache, language
from decant.objectives import TeacherHead, fused_kd
from decant.pipeline.language.causal_model import CausalModel

_ROWS = {"cpu": 512, "cuda": 2048}
"""Positions whose logits exist at once; on a GPU all of a batch, as each kernel takes time to be started."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share."""

    layers: tuple[int, ...]
    """Of the teacher, which the student begins with."""
    tokens: int
    """That each student is trained on, about."""
    max_length: int
    batch_size: int
    """Samples of an update."""
    lr: float
    alpha: float
    """Of the objective: (1 − α)·CE + α·T²·KL."""


@dataclass(frozen=True)
class Study:
    """What all runs are made from."""

    settings: Settings
    teacher: nn.Module
    """In float32, from which students are cut."""
    reader: CausalModel
    """The teacher as phase one ran it, in bfloat16, for students that are taught live."""
    head: TeacherHead
    """Makes its logits of hidden states, in float32."""
    train: Part
    caches: dict[str, LogitCache]
    """Of the training part, by name."""
    test: Part
    device: torch.device
    """Where students are trained and measured."""

    @property
    def steps(self) -> int:
        """Of each run: a multiple of four."""
        found = len(self.train.samples) // self.settings.batch_size // 4 * 4
        assert found, "there are fewer samples than four batches"
        return found

    def order(self, schedule: Schedule, seed: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """(epoch, samples of a batch) of each step: a function of schedule and seed alone."""
        epochs, batch = EPOCHS[schedule], self.settings.batch_size
        chosen = np.random.default_rng(0).permutation(len(self.train.samples))[: self.steps * batch // epochs]
        generator = np.random.default_rng((1, seed))
        for epoch in range(epochs):
            for indices in generator.permutation(chosen).reshape(-1, batch):
                yield epoch, indices


def run(study: Study, arm: Arm, seed: int) -> dict[str, Any]:
    """Trains a student and measures it on the test documents: everything that is known of it, as plain JSON."""
    torch.manual_seed(seed)
    student: Any = language.cut_layers(study.teacher, study.settings.layers).to(study.device).train()
    dataset = _dataset(study, arm)
    optimizer = torch.optim.AdamW(
        student.parameters(), study.settings.lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    tokens, losses = 0, list[Tensor]()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for step, (epoch, indices) in enumerate(study.order(arm.schedule, seed)):
        dataset.set_epoch(epoch)
        batch = dataset.collate([dataset[index] for index in indices.tolist()])
        for group in optimizer.param_groups:
            group["lr"] = study.settings.lr * _share(step, study.steps)
        losses.append(_backward(study, arm, student, batch.to(study.device)))
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch.inputs["attention_mask"].sum())
    loss = float(torch.stack(losses[-10:]).mean())  # waits for the device
    seconds, core_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    found = language.measure(student, study.test.samples, study.test.hidden, tokens_per_batch=2048)
    return {
        "arm": arm.name,
        "schedule": arm.schedule,
        "temperature": arm.temperature,
        "seed": seed,
        "device": study.device.type,
        "steps": study.steps,
        "tokens": tokens,
        "bytes_per_token": bytes_per_token(arm, study.train.hidden),
        "seconds": seconds,
        "core_seconds": core_seconds,
        "loss": loss,
        "test": asdict(found),
    }


def bytes_per_token(arm: Arm, hidden: LogitCache) -> int | None:
    """Of its cache; None where there is none."""
    if arm.source in ("labels", "live"):
        return None
    if isinstance(arm.source, Rows):
        return arm.source.views * arm.source.encoding.row_bytes(hidden.num_outputs)
    return hidden.encoding.row_bytes(hidden.num_outputs)


def _dataset(study: Study, arm: Arm) -> language.TokenDataset:
    """Of labels and of a live teacher the rows are not used: those are taken that are read in the least time."""
    rows = arm.source if isinstance(arm.source, Rows) else HEAD_16
    cache = study.train.hidden if arm.source == "hidden" else study.caches[rows.name]
    return language.TokenDataset(study.train.samples, cache)


def _share(step: int, steps: int) -> float:
    """Of the learning rate: it rises for a tenth of the steps, then falls by a cosine."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _backward(study: Study, arm: Arm, student: Any, batch: language.TokenBatch) -> Tensor:
    """Adds the gradients of a batch; returns its loss. The student's products are in bfloat16, softmaxes, weights and
    the teacher's logits in float32.
    """
    targets = batch.targets
    if arm.source == "live":
        states = study.reader.hidden(batch.inputs["input_ids"], batch.inputs["attention_mask"])
        targets = batch.at(states).clone()
    if isinstance(targets, Tensor):
        targets = study.head.targets(targets)
    with torch.autocast(study.device.type, torch.bfloat16):
        loss = fused_kd(
            batch.at(student.model(**batch.inputs, use_cache=False).last_hidden_state),
            student.lm_head.weight[: batch.num_outputs],
            targets,
            batch.labels,
            0.0 if arm.source == "labels" else study.settings.alpha,
            arm.temperature,
            tail=arm.tail,
            chunk_rows=_ROWS.get(study.device.type),
        ).total
    loss.backward()
    return loss.detach()
