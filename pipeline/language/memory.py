"""What is said where memory runs out on a batch of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from decant.pipeline.errors import ModelError, is_out_of_memory
from decant.pipeline.support.modules import RAISED

SETTING = "tokens_per_batch"
"""What bounds a batch, as an argument of a function; in a recipe it stands in a section."""


@contextmanager
def named_memory(name: str, batch: str, setting: str = SETTING) -> Iterator[None]:
    """Turns an error of memory that ran out into a ModelError with the name of the network, the batch and the setting.

    >>> with named_memory("Llama", "a batch of 4 × 128 tokens", "cache.tokens_per_batch"):
    ...     raise MemoryError  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    decant.pipeline.errors.ModelError: Llama: ran out of memory on a batch of 4 × 128 tokens; set a smaller
    cache.tokens_per_batch, or a smaller max_length
    """
    try:
        yield
    except RAISED as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"{name}: ran out of memory on {batch}; set a smaller {setting}, or a smaller max_length"
        ) from error
