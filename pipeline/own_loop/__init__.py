"""Distillation in a training loop of one's own: views of any dataset, and the cache of any teacher."""

from decant.pipeline.own_loop.caching import cache_logits
from decant.pipeline.own_loop.dataset import Views

__all__ = ["Views", "cache_logits"]
