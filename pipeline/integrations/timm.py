"""Distillation with timm: a training task that takes cached logits in place of a teacher."""

from __future__ import annotations

from typing import Any

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from decant.pipeline.errors import DataError
from decant.pipeline.integrations.batches import Objective, is_of_classes, logits_of, terms_of
from decant.pipeline.objectives import kd


class CachedDistillationTask(TrainingTask):
    """timm's `LogitDistillationTask` without the teacher: `task(input, target, teacher_logits)`.

    Gives what timm's tasks give: `loss`, `output` (the student's logits), `task_loss` (the term of the labels) and
    `kd_loss` (that of the teacher).

    >>> import timm
    >>> student = timm.create_model("resnet10t", num_classes=4)
    >>> task = CachedDistillationTask(student)
    >>> result = task(torch.zeros(2, 3, 32, 32), torch.tensor([0, 3]), torch.zeros(2, 4))
    >>> sorted(result)
    ['kd_loss', 'loss', 'output', 'task_loss']
    """

    def __init__(
        self,
        student_model: nn.Module,
        objective: Objective = kd,
        *,
        mixed_labels: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        """objective: one of `decant.objectives`, as `decant.objectives.KD()`. mixed_labels: the views themselves mix
        samples, so that labels are rows of shares (B, C).
        """
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module: Any = student_model
        self.objective, self.mixed_labels = objective, mixed_labels

    def forward(
        self, input: Tensor, target: Tensor, teacher_logits: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Raises DataError without teacher logits, and for labels that were mixed after the dataset gave them."""
        if teacher_logits is None:
            raise DataError(
                "the batch has no teacher logits: a loader of timm drops them; use torch.utils.data.DataLoader over "
                "decant.SoftLabelDataset, and call task(input, target, teacher_logits)"
            )
        if target.is_floating_point() and not self.mixed_labels and is_of_classes(self.objective):
            raise DataError(
                "labels are shares of classes: timm's Mixup mixes a batch that the teacher never saw so, and every "
                "row of teacher logits is of another image; mix in the views, or leave Mixup out (mixed_labels=True "
                "takes labels that the views mixed)"
            )
        student_logits = logits_of(self.trainable_module(input))
        terms = terms_of(self.objective, student_logits, teacher_logits, target)
        found = {
            "loss": terms.total,
            "output": student_logits,
            "task_loss": terms.hard,
            "kd_loss": terms.soft,
        }
        return {name: value for name, value in found.items() if value is not None}

    def prepare_distributed(
        self, device_ids: list[int] | None = None, **ddp_kwargs: Any
    ) -> CachedDistillationTask:
        """Wraps the student in DistributedDataParallel."""
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compiles the student."""
        self.trainable_module = torch.compile(
            self.trainable_module, backend=backend, mode=mode, **compile_kwargs
        )
        self.eval_model = self.trainable_module
        return self.trainable_module
