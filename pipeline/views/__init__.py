"""Views: (seed, index, view) → the same augmented pixels."""

from pipeline.views.viewed import ViewedData

__all__ = ["ViewedData"]
