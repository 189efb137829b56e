"""What phase one does for each kind of recipe: what a writer of its cache begins with, and the teacher's pass over the
rows that are missing. Finding, locking, sharing and publishing are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch

from decant.cache import Head, LogitCacheWriter, Positions
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.phases.language.plan import LanguagePlan

Advance = Callable[[int], object]
"""Is given the number of rows, in the sense of `LogitCacheWriter.is_written`, after each batch."""


class TeacherPass(Protocol):
    """The teacher's pass over what a plan has a cache of."""

    @property
    def positions(self) -> Positions | None:
        """Where samples have several rows each: how many."""

    @property
    def head(self) -> Head | None:
        """What makes logits of hidden states, where these are stored. May load the teacher."""

    def units(self, writer: LogitCacheWriter, processes: int) -> Sequence[Any]:
        """What is handed out to so many processes, one after the other; the last ones are small."""

    def part(self, writer: LogitCacheWriter, number: int, of: int) -> Iterable[Any]:
        """The units of part `number` of `of`, from 0."""

    def fill(
        self,
        writer: LogitCacheWriter,
        device: torch.device,
        units: Iterable[Any] | None = None,
        advance: Advance | None = None,
    ) -> int:
        """Has the teacher compute the rows of units that are missing, by default all, and returns their number, of
        positions where samples have several. If there are none, no teacher is loaded. By default a bar shows them.
        """

    def require_unchanged(self) -> None:
        """Raises CorruptError where the data have changed since the teacher saw them."""


def identify_teacher(plan: RecipePlan) -> None:
    """Finds out which teacher a plan has, where only a server can say that. Raises as `served_pass.identify` does."""
    if isinstance(plan, LanguagePlan) and plan.server is not None:
        from decant.pipeline.phases.language.served_pass import identify

        identify(plan)


def pass_of(plan: RecipePlan) -> TeacherPass:
    """The pass of a plan. Raises NotMadeError where its teacher is not finished."""
    if isinstance(plan, LanguagePlan) and plan.server is not None:
        from decant.pipeline.phases.language.served_pass import ServedTokensPass

        return ServedTokensPass(plan)
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language.teacher_pass import TokensPass

        return TokensPass(plan)
    from decant.pipeline.phases.views_pass import ViewsPass

    return ViewsPass(plan)
