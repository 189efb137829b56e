"""A trial of a sweep of a language model: trained as any student of its recipe is."""

from __future__ import annotations

from dataclasses import replace

from decant.cache import LogitCache
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.tasks import OF_TEACHER
from decant.pipeline.errors import RecipeError
from decant.pipeline.language.blocks import computed_tokens
from decant.pipeline.language.criteria import require_objective
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.language.job import TokenJob, train_network
from decant.pipeline.phases.language.measuring import TOKENS_PER_BATCH
from decant.pipeline.phases.language.networks import student_spec
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.sources import Part
from decant.pipeline.phases.language.student import digest_of, jobs_for_seed
from decant.pipeline.phases.soft_labels import require_temperature
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.sweeps.students import AnyStudents, Watch, Watched
from decant.pipeline.training.token_keys import TokenKeys


class LanguageStudents(AnyStudents[LanguagePlan, TokenJob]):
    """Of a recipe of a language model. The caches of validation and test part are those of the recipe as it is."""

    metric = "perplexity"
    """The key of what students are chosen by."""
    _held_out: dict[Part, LogitCache] | None = None

    def job(self, recipe: Recipe, kind: Kind, seed: int) -> TokenJob:
        """The training of one network of a recipe. Students on the tokens alone are compared with the teacher too where
        they are chosen by that. Raises as `LanguagePlan.open_cache` does.
        """
        plan, held_out = self._of(recipe), self.held_out(recipe)
        jobs = jobs_for_seed(plan, self._cache(recipe), held_out, self.spec(recipe), seed)
        job = next(job for job in jobs if job.kind == kind)
        return replace(job, held_out=held_out) if self.metric in OF_TEACHER else job

    def train(
        self, job: TokenJob, recipe: Recipe, watch: Watch, *, tested: bool = False
    ) -> tuple[Result, bool]:
        """Trains a network or finds it, as `train_network` does. Only with `tested` is it measured on the test part."""
        parts: tuple[Part, ...] = ("validation", "test") if tested else ("validation",)
        return train_network(replace(job, measured_on=parts), self._of(recipe), self._device, Watched(watch))

    def check(self, recipe: Recipe) -> None:
        """Raises RecipeError for an objective that the cache does not suffice for, and for a metric that compares with
        a teacher that is not there.
        """
        cache = self._cache(recipe)
        require_objective(recipe.settings.student.objective, cache.manifest.encoding, cache.path)
        require_temperature(cache, recipe.settings)
        if self.metric in OF_TEACHER and "validation" not in self.held_out(recipe):
            raise RecipeError(
                f"sweep.metric: {self.metric!r} compares with the teacher on the validation part, and there is no "
                f'cache of that part of the teacher of {cache.path}; choose by "perplexity"'
            )

    @property
    def budget(self) -> str:
        """Tokens and steps of a student of the recipe as it is."""
        settings, samples = self._plan.settings.student, self._plan.data.samples("train")
        budget = settings.tokens_per_batch or TOKENS_PER_BATCH
        keys = TokenKeys(computed_tokens(samples), samples.num_positions, budget, settings.seed)
        tokens = settings.epochs * int(samples.num_positions.sum())
        steps = settings.epochs * -(-len(keys) // settings.accumulate)
        return f": a student of this recipe learns from {tokens:,} tokens in {steps:,} steps"

    def held_out(self, recipe: Recipe) -> dict[Part, LogitCache]:
        """What the teacher that a recipe's students learn from says of validation and test part, as far as there are
        caches of them.
        """
        teacher = digest_of(self._cache(recipe))
        return {part: cache for part, cache in self._of_teacher().items() if digest_of(cache) == teacher}

    def _of_teacher(self) -> dict[Part, LogitCache]:
        """What the recipe's own teacher says of them; opened once."""
        if self._held_out is None:
            parts: tuple[Part, ...] = ("validation", "test")
            found = {part: self._plan.held_out_cache(part) for part in parts if part in self._plan.data.parts}
            self._held_out = {part: cache for part, cache in found.items() if cache is not None}
        return self._held_out

    def _cache(self, recipe: Recipe) -> LogitCache:
        (cache,) = self.cache(recipe).members
        return cache

    def _specify(self, plan: LanguagePlan) -> NetworkSpec:
        return student_spec(plan)

    def _open(self, plan: LanguagePlan) -> LogitCache:
        return plan.open_cache("train")
