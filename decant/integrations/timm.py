"""Distillation with timm."""

from decant.pipeline.integrations.timm import CachedDistillationTask

__all__ = ["CachedDistillationTask"]
