"""Whether a teacher's outputs are about the next token: a check that needs no reference.

The next token is among the 16 most likely ones in most positions of a trained network, and rarely where rows are
shifted by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_ENOUGH = 512  # positions
_FEWEST = 64
_MOST_LIKELY = 16
_TIMES = 3  # as often as the next token


class ShiftGuard:
    """Counts how often the next token, and the one at the position itself, is among the 16 most likely.

    >>> import torch
    >>> guard = ShiftGuard()
    >>> tokens = torch.arange(100)
    >>> guard.see(200 * torch.eye(100) - tokens, next_ids=(tokens + 1) % 100, current_ids=tokens)
    >>> guard.doubt()
    'the token itself is among the 16 most likely at 100 % of the positions, and the next one at 16 %: ...'
    """

    def __init__(self) -> None:
        self.count = self.next_found = self.current_found = 0

    @property
    def wants_more(self) -> bool:
        """Whether there were too few positions to tell."""
        return self.count < _ENOUGH

    def see(self, logits: Tensor, next_ids: Tensor, current_ids: Tensor) -> None:
        """logits: (q, C); next_ids, current_ids: (q,)."""
        likely = logits.topk(min(_MOST_LIKELY, logits.shape[1])).indices
        self.see_likely(likely.cpu().numpy(), next_ids.cpu().numpy(), current_ids.cpu().numpy())

    def see_likely(
        self, likely: NDArray[np.integer], next_ids: NDArray[np.integer], current_ids: NDArray[np.integer]
    ) -> None:
        """likely: (q, k) the most likely tokens, by falling probability; next_ids, current_ids: (q,)."""
        some = likely[:, :_MOST_LIKELY]
        self.count += len(some)
        self.next_found += int((some == next_ids[:, None]).any(axis=1).sum())
        self.current_found += int((some == current_ids[:, None]).any(axis=1).sum())

    @property
    def share(self) -> float:
        """Of the positions, at how many the next token was among the most likely."""
        return self.next_found / max(1, self.count)

    def doubt(self) -> str | None:
        """What is doubtful; None where nothing is, or too little was seen."""
        here = self.current_found / max(1, self.count)
        if self.count < _FEWEST or here < 0.25 or here < _TIMES * self.share:
            return None
        return (
            f"the token itself is among the {_MOST_LIKELY} most likely at {here:.0%} of the positions, and the next "
            f"one at {self.share:.0%}: is the teacher untrained, or are its outputs shifted by one?"
        ).replace("%", " %")
