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
from decant.cache.io.opening import require_file
from decant.pipeline.errors import DamagedError

TEST_LOGITS = "test_logits.npy"


def save_test_logits(folder: Path, logits: torch.Tensor) -> None:
    """Writes the logits (N, C) float32 of a network on the N samples of the test split."""
    content = io.BytesIO()  # np.save to a file would report a full disk with an error of its own
    np.save(content, logits.numpy())
    write_atomically(folder / TEST_LOGITS, content.getbuffer())


def load_test_logits(folder: Path, samples: int, outputs: int) -> NDArray[np.float32]:
    """Reads what `save_test_logits` wrote: (N, C) float32 of `samples` and `outputs`. Raises FileNotFoundError, and
    DamagedError where it is another array, or none.
    """
    path, expected = folder / TEST_LOGITS, (samples, outputs)
    try:
        require_file(path, follow=False)
        # This maps what is there, whatever the header says.
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
        found = f"{logits.dtype} {logits.shape}" if isinstance(logits, np.ndarray) else "several arrays"
        if found != f"float32 {expected}":
            raise ValueError(f"expected float32 {expected}, found {found}")
        return np.array(logits)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged header ends in any error of what reads it
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(
            f"{path}: damaged ({reason}); delete the folder, and run the command that made it again"
        ) from None
