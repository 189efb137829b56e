"""The logits of a finished network on the test split, kept beside its weights.

A student is compared with its teacher by them, so that no teacher is loaded.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache.io.files import write_atomically

TEST_LOGITS = "test_logits.npy"


def save_test_logits(folder: Path, logits: torch.Tensor) -> None:
    """Writes the logits (N, C) float32 of a network on the N samples of the test split."""
    content = io.BytesIO()  # np.save to a file would report a full disk with an error of its own
    np.save(content, logits.numpy())
    write_atomically(folder / TEST_LOGITS, content.getbuffer())


def load_test_logits(folder: Path) -> NDArray[np.float32]:
    """Reads what `save_test_logits` wrote: (N, C). Raises OSError, ValueError or EOFError if the file is missing or
    damaged.
    """
    logits: NDArray[np.float32] = np.load(folder / TEST_LOGITS, allow_pickle=False)
    return logits
