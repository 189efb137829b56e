"""Distillation with Lightning."""

from decant.pipeline.integrations.lightning import DistillationDataModule, DistillationModule, SetEpoch

__all__ = ["DistillationDataModule", "DistillationModule", "SetEpoch"]
