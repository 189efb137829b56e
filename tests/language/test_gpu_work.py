"""What a language model's pass and a student's step start on a GPU and wait for, counted on a processor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decant.encodings import Hidden, Sparse
from decant.language import TokenSamples, cache_logits
from decant.pipeline.config.objectives import KD
from decant.pipeline.config.settings import Training
from decant.pipeline.language import criteria
from decant.pipeline.language.batches import TeacherBatch
from decant.pipeline.language.blocks import Block
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.teacher_pass import TeacherPass
from decant.pipeline.language.training import CausalCall, TokenBatches
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.step import Step
from tests.helpers import language
from tests.helpers.extras import needing
from tests.helpers.gpu_work import GPU, gpu_work, gradients

OUTPUTS, WIDTH = 49_152, 576
HIDDEN = Hidden(WIDTH, "0" * 64)


class Network(nn.Module):
    """A causal network of two layers, one of which is its head."""

    def __init__(self) -> None:
        super().__init__()
        kind: Any = {"device": GPU, "dtype": torch.bfloat16}
        self.embedding = nn.Embedding(OUTPUTS, WIDTH, **kind)
        self.head = nn.Linear(WIDTH, OUTPUTS, bias=False, **kind)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.embedding(input_ids))


@pytest.mark.parametrize(
    ("encoding", "views", "count", "launches", "passes", "copies"),
    [
        (Sparse(head=64), 1, 5_000, 195, 14, 5),
        (HIDDEN, 1, 5_000, 36, 12, 2),
        (Sparse(head=0, draws=50), 2, 300, 200, 290, 11),
    ],
    ids=["sparse", "hidden", "draws"],
)
def test_a_batch_is_encoded_beside_the_next_with_few_kernels_and_no_wait(
    monkeypatch: pytest.MonkeyPatch,
    encoding: Any,
    views: int,
    count: int,
    launches: int,
    passes: int,
    copies: int,
) -> None:
    """Of `count` positions: 5,000 are two parts. `passes` is what is read and written, in copies of all logits in
    bfloat16: the product with the head is one, and what is made in float32 counts twice.
    """
    with gpu_work(monkeypatch) as (calls, work):
        network = Network()
        model = CausalModel(network, OUTPUTS)
        model._head = model._linear = network.head
        model.num_rows = OUTPUTS
        samples: Any = SimpleNamespace(num_positions=np.array([count]))
        run = TeacherPass(model, samples, encoding, views, 8192, show_progress=False)
        run._guard.count = 10**6  # it has seen enough
        places, ids = torch.zeros(count, dtype=torch.int64, device=GPU), torch.zeros(16, 512).long().to(GPU)
        blocks = [Block(ids, torch.ones_like(ids))]
        batch = TeacherBatch(np.array([0]), blocks, places, places, places, places)
        for counted in (work.launches, work.bytes, calls.log):
            counted.clear()
        run._encoded(batch)
    started = sum(work.launches.values())
    assert started <= launches, work.launches
    assert started > launches / 2, "else this bound says little; set it lower"
    moved = sum(work.bytes.values()) / (2 * OUTPUTS * count)
    assert passes / 2 < moved <= passes, work.bytes.most_common(9)
    assert not work.waits
    assert work.copies == copies, "each is begun, and nobody waits for it"
    usual, beside = "the usual stream of cuda:0", "stream 1 of cuda:0"
    assert calls.log == [
        f"{beside} waits for {usual}",
        *[f"used in {beside}"] * 3,
        *[f"event in {beside}"] * (1 + views),
    ]


def prepared(model: CausalModel, _: Tensor) -> None:
    """In place of what looks for the head, which compares values."""
    model._head = model._linear = model.network.lm_head
    model.num_rows = 340


@needing("transformers")
@pytest.mark.parametrize(
    ("encoding", "launches"),
    [(None, 175), (Sparse(head=16), 250), (Sparse(head=4, draws=8), 255), ("hidden", 220)],
    ids=["labels", "sparse", "draws", "hidden"],
)
def test_a_students_step_mixes_no_devices_and_waits_for_nothing(
    samples: TokenSamples,
    teacher: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: Any,
    launches: int,
) -> None:
    """Its forward pass, loss and optimizer: PyTorch begins a backward pass on a real GPU alone. There transformers
    looks at the mask of padding, which has no values here.
    """
    content = {"epochs": 1, "optimizer": "adamw", "precision": "bfloat16", "tokens_per_batch": 200}
    settings = Training(network={"name": "llama"}, **content)
    cache = None if encoding is None else cache_logits(teacher, samples, tmp_path / "c.h5", encoding=encoding)
    objective = KD(name="kd", temperature=1.0)
    criterion = criteria.from_labels if cache is None else criteria.from_cache(objective, cache)
    batch = TokenBatches(samples, cache).batch(np.stack([np.arange(8), np.zeros(8, np.int64)], axis=1))
    with monkeypatch.context() as patch, gpu_work(patch) as (_, work):
        with torch.device(GPU):
            network = language.llama(340, seed=3)
        patch.setattr(CausalModel, "prepare", prepared)
        patch.setattr(Tensor, "backward", lambda loss: gradients(network))
        call = CausalCall(network, samples, 340)
        stepper = Stepper(network, make_optimizer(network, settings, GPU), settings)
        step = Step(network, criterion, stepper, settings, call=call, setting="tokens_per_batch")
        for _ in range(2):
            work.launches.clear()
            step(batch, 0.0)
    assert not work.waits
    assert sum(work.launches.values()) <= launches, work.launches
    assert work.launches["_fused_adamw_"] == 1
