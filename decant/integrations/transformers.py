"""Distillation with the Trainer of transformers."""

from decant.pipeline.integrations.language_trainer import TokenDistillationMixin, TokenDistillationTrainer
from decant.pipeline.integrations.transformers import DistillationCollator, DistillationTrainer

__all__ = [
    "DistillationCollator",
    "DistillationTrainer",
    "TokenDistillationMixin",
    "TokenDistillationTrainer",
]
