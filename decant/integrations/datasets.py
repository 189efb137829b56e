"""Distillation with Hugging Face's datasets."""

from decant.pipeline.integrations.datasets import kept_rows

__all__ = ["kept_rows"]
