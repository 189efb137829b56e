"""Distillation with TRL's SFTTrainer."""

from decant.pipeline.integrations.trl import SFTDistillationMixin, SFTDistillationTrainer

__all__ = ["SFTDistillationMixin", "SFTDistillationTrainer"]
