"""Views: (seed, index, view) → the same augmented pixels."""

from decant.pipeline.views.dataset import ViewedData

__all__ = ["ViewedData"]
