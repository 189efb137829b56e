"""What a recipe of a language model leads to: its texts, and where its teacher, its caches and its students lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from decant.cache import Dense, Encoding, LogitCache, Manifest, Positions, Quantised, Sparse, Store, Verify
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.tasks import Measured
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import positions_of, require_same_samples, samples_manifest
from decant.pipeline.errors import NotMadeError, RecipeError
from decant.pipeline.networks.causal import config_of, deciding_settings
from decant.pipeline.networks.spec import CAUSAL
from decant.pipeline.phases.given_caches import say_other_encoding
from decant.pipeline.phases.language.served_teacher import read_note, served_teacher, teacher_digest
from decant.pipeline.phases.language.sources import Part
from decant.pipeline.phases.language.texts import LanguageData
from decant.pipeline.phases.plan import AnyPlan
from decant.pipeline.runs.result import Result
from decant.pipeline.served import ServedTeacher

_HEAD = 64


@dataclass(frozen=True)
class LanguagePlan(AnyPlan):
    """The plan of a recipe of a language model, and of one of its caches: that of the training part, unless `of_part`
    was asked for another.
    """

    data: LanguageData
    part: Part = "train"

    @classmethod
    def of(cls, recipe: Recipe, base: Path, store: Store | None = None) -> LanguagePlan:
        """The plan of a recipe, with runs in `base` and caches in `store`, by default the usual one."""
        return cls(recipe, base, store or Store(), LanguageData(recipe.settings, base))

    def of_part(self, part: Part) -> Self:
        """The same with the cache of another part."""
        return replace(self, part=part)

    @property
    def of_cache(self) -> str:
        """The part that its cache is of."""
        return self.part

    @property
    def by_cache(self) -> tuple[Self, ...]:
        """A plan for each cache that `cache-logits` makes: students are trained from one, and measured with the others,
        of texts that they have not seen.
        """
        return tuple(self.of_part(part) for part in self.data.parts)

    @property
    def fingerprints(self) -> LanguageData:
        """Of its data."""
        return self.data

    @property
    def is_readable(self) -> bool:
        """Whether its texts are tokenised; they are when a phase first needs them."""
        return self.data.is_prepared

    @property
    def test_digest(self) -> str:
        """The digest of the texts of its test part."""
        return self.data.digest("test")

    @property
    def has_labels(self) -> bool:
        """Whether students can be trained on labels alone: a token's label is the one that follows."""
        return True

    @property
    def measured_by(self) -> Measured:
        """By what they say of the next tokens."""
        return "language"

    @property
    def samples(self) -> TokenSamples:
        """The samples of the part."""
        return self.data.samples(self.part)

    @cached_property
    def positions(self) -> Positions:
        """The positions of the part's samples that have rows."""
        return positions_of(self.samples)

    @property
    def num_views(self) -> int:
        """V of the part's cache."""
        given = self.settings.cache.encoding
        return given.views or 1 if given is not None and self.part == "train" else 1

    @cached_property
    def server(self) -> ServedTeacher | None:
        """How the teacher is asked, where it is behind a server."""
        return served_teacher(self.settings)

    @cached_property
    def teacher(self) -> Result:
        """The finished teacher. Raises as `AnyPlan.teacher` does, and RecipeError for one that is behind a server."""
        if self.server is not None:
            raise RecipeError(
                f"teacher.server: the teacher is behind {self.server.url}, and there are no weights of it here"
            )
        return super().teacher

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the teacher's cache. Raises as `teacher` does, and NotMadeError where the server of one was
        not asked yet.
        """
        if self.server is None:
            return self.manifest_of(self.teacher)
        noted = read_note(self.teacher_folder)
        if noted is None:
            raise NotMadeError(
                f"{self.teacher_folder}: {self.server.url} was not asked yet with these settings of these texts; run: "
                f"{self.recipe.command('cache-logits')}"
            )
        return self.served_manifest(noted)

    @property
    def teacher_digest(self) -> str | None:
        """What results name the recipe's own teacher by; None while there is none. Raises DamagedError."""
        if self.server is not None:
            noted = read_note(self.teacher_folder)
            return None if noted is None else teacher_digest(noted)
        own = self.load_teacher()
        return None if own is None else own.weights_sha256

    @property
    def served_encoding(self) -> Sparse:
        """How the rows of a teacher behind a server are stored. Raises as `encoding_for` does."""
        encoding = self.encoding_for(None)
        assert isinstance(encoding, Sparse), "a recipe of another one is refused"
        return encoding

    def served_manifest(self, teacher: Mapping[str, Any]) -> Manifest:
        """The manifest of the part's cache of a model that a server says to be this."""
        return self._manifest(teacher, self.served_encoding, "unknown")

    def encoding_for(self, teacher: Result | None) -> Encoding:
        """How the part's rows are stored: as the recipe says, but rows that students are measured with are never draws.
        teacher: None of one that is behind a server.

        Raises RecipeError for more outputs of a row than there are tokens.
        """
        settings, outputs = self.settings.cache, self.data.num_outputs
        given = settings.encoding
        if given is None:
            return Sparse(min(_HEAD, outputs))
        if given.kind == "hidden":
            from decant.pipeline.phases.language.finished_teacher import (
                hidden_encoding,  # reads weights: torch
            )

            assert teacher is not None, "no server tells hidden states"
            return hidden_encoding(teacher, outputs, settings.precision)
        if given.kind == "dense":
            return Dense(settings.dtype)
        if given.kind == "dense-u8":
            return Quantised()
        draws, temperatures = given.draws or 0, given.temperatures or (1.0,)
        head = given.head if given.head is not None else 0 if draws else min(_HEAD, outputs)
        if head + draws > outputs:
            raise RecipeError(
                f"cache.encoding.{'draws' if draws else 'head'}: {head + draws:,} logits of a row are more than the "
                f"{outputs:,} tokens; set it lower"
            )
        if self.part != "train" and draws:
            return Sparse(min(_HEAD, outputs), temperatures)
        return Sparse(head, temperatures, draws, given.seed or 0)

    def manifest_of(self, teacher: Result) -> Manifest:
        """The manifest of the part's cache that any teacher would lead to."""
        encoding, config = self.encoding_for(teacher), config_of(teacher.network.args[CAUSAL])
        of_teacher = {
            "network": {"name": config.model_type},
            "weights_sha256": teacher.weights_sha256,
            "settings": deciding_settings(config),
        }
        return self._manifest(of_teacher, encoding, self.settings.cache.precision)

    def _manifest(self, teacher: Mapping[str, Any], encoding: Encoding, precision: str) -> Manifest:
        return samples_manifest(
            self.samples,
            self.positions,
            teacher,
            encoding=encoding,
            precision=precision,
            num_outputs=self.data.num_outputs,
            num_views=self.num_views,
        )

    def open_cache(self, part: Part = "train", verify: Verify = "lazy") -> LogitCache:
        """The cache of a part; for training the file that `cache.from` names, where one is.

        Raises NotMadeError, with the command, where a teacher or cache is missing; FileNotFoundError for a file of
        `cache.from` that is; MismatchError where a cache is of other tokens, and CacheError for damage.
        """
        settings = self.settings.cache
        given, plan = settings.from_, self.of_part(part)
        if part == "train" and isinstance(given, str):
            where: Path | str = given
        else:
            lazily = settings.remote == "lazy"
            found = plan.store.locate(plan.manifest) if lazily else plan.find_cache()
            if found is None:
                raise plan.not_built()
            where = found
        cache = LogitCache.open(
            where,
            verify=verify,
            table="mapped" if settings.table == "device" else settings.table,
            lazy=settings.remote == "lazy",
        )
        require_same_samples(plan.samples, cache)
        if part == "train" and given is not None:
            say_other_encoding(settings, cache)
        return cache

    def held_out_cache(self, part: Part) -> LogitCache | None:
        """The cache of a part that students are measured on; None where the recipe names a cache and has no teacher of
        its own. Raises as `open_cache` does.
        """
        if self.settings.cache.from_ is not None and self.teacher_digest is None:
            return None
        return self.open_cache(part)
