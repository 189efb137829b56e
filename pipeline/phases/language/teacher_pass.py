"""The teacher's pass over the tokens of one part of a recipe's texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch

from decant.cache import Encoding, Head, Hidden, LogitCacheWriter, MismatchError, Sparse
from decant.pipeline.errors import RecipeError
from decant.pipeline.language.batches import probe
from decant.pipeline.language.building import shared
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.criteria import require_objective
from decant.pipeline.language.teacher_pass import TeacherPass, Window
from decant.pipeline.phases.language.finished_teacher import load_teacher
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.student import require_trainable
from decant.pipeline.phases.untrainable import say_if_untrainable
from decant.pipeline.runs.result import load_result

_TOKENS_PER_BATCH = 4096
_FEWEST_UNITS_A_PROCESS = 4
"""Where windows would be fewer for each process, batches are handed out."""


class TokensPass:
    """See `phases.passes.TeacherPass`."""

    def __init__(self, plan: LanguagePlan) -> None:
        self._plan, self._teacher = plan, plan.teacher
        self.positions = plan.positions
        say_if_useless(plan, plan.encoding_for(self._teacher))

    @cached_property
    def head(self) -> Head | None:
        """What makes logits of the hidden states, where these are stored."""
        if not isinstance(self._plan.encoding_for(self._teacher), Hidden):
            return None
        return self.model(torch.device("cpu")).head()

    def units(self, writer: LogitCacheWriter, processes: int) -> Sequence[Window]:
        """Windows, and then their batches."""
        return shared(self._pass().windows(writer), processes)

    @staticmethod
    def units_of(windows: Sequence[Window], processes: int) -> Sequence[Window]:
        """What so many parts are made of: windows, or, where there are few, their batches."""
        if len(windows) >= _FEWEST_UNITS_A_PROCESS * processes:
            return windows
        return [[batch] for window in windows for batch in window]

    def part(self, writer: LogitCacheWriter, number: int, of: int) -> Sequence[Window]:
        """The units of a part, which follow each other."""
        return self.part_of(self.units_of(self._pass().windows(writer), of), number, of)

    @staticmethod
    def part_of(units: Sequence[Window], number: int, of: int) -> Sequence[Window]:
        """Those of a part, of units that all parts divide among them."""
        return units[number * len(units) // of : (number + 1) * len(units) // of]

    def fill(
        self,
        writer: LogitCacheWriter,
        device: torch.device,
        units: Iterable[Window] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> int:
        """Computes the rows of units that are missing, and returns how many positions they are of."""
        if all(writer.is_written(view).all() for view in range(writer.manifest.num_views)):
            return 0
        return self.on(device).fill(writer, units, advance)

    def require_unchanged(self) -> None:
        """Nothing to ask: the tokens are a file of its own, checked as it is read."""

    def on(self, device: torch.device) -> TeacherPass:
        """The pass with the teacher on a device."""
        return self._pass(self.model(device))

    def _pass(self, model: CausalModel | None = None) -> TeacherPass:
        """Without a model one that says what it would compute."""
        plan = self._plan
        return TeacherPass(
            model or CausalModel(torch.nn.Module(), 1),
            plan.samples,
            plan.encoding_for(self._teacher),
            plan.num_views,
            tokens_per_batch(plan),
            show_progress=True,
            setting="cache.tokens_per_batch",
        )

    def model(self, device: torch.device) -> CausalModel:
        """The teacher on a device."""
        teacher, plan = self._teacher, self._plan
        model = _loaded(
            teacher.folder, teacher.weights_sha256, plan.data.num_outputs, plan.settings.cache.precision
        )
        model.network.to(device)
        model.prepare(probe(plan.samples))
        return model


def tokens_per_batch(plan: LanguagePlan) -> int:
    """How many tokens, with padding, the teacher reads at once."""
    return plan.settings.cache.tokens_per_batch or _TOKENS_PER_BATCH


@functools.lru_cache(maxsize=1)
def _loaded(folder: Path, weights_sha256: str, num_outputs: int, precision: str) -> CausalModel:
    """A teacher, in evaluation mode; kept from the cache of one part to that of the next."""
    teacher = load_result(folder)
    assert teacher is not None, "a plan has a finished teacher"
    network = load_teacher(teacher).to(getattr(torch, precision)).eval()
    return CausalModel(network, num_outputs)


def say_if_useless(plan: LanguagePlan, encoding: Encoding) -> None:
    """Says before a pass that the recipe's own students cannot be trained, or not on what it writes; others may."""
    if plan.part == "train":
        say_if_untrainable(functools.partial(require_trainable, plan))
        useless = "the recipe's own students cannot learn from this cache"
        say_if_untrainable(functools.partial(_require_useful, plan, encoding), useless)


def _require_useful(plan: LanguagePlan, encoding: Encoding) -> None:
    """Raises RecipeError where the recipe's own students cannot learn from rows that are encoded so."""
    objective = plan.settings.student.objective
    require_objective(objective, encoding, "the cache")
    temperature = getattr(objective, "temperature", None)
    if isinstance(encoding, Sparse) and temperature and not getattr(objective, "interpolate", False):
        try:
            encoding.require_temperature(float(temperature))
        except MismatchError as error:
            raise RecipeError(f"student.objective.{error}") from error
