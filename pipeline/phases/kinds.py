"""The kinds of recipes: which plan one has, and which functions its phases are. Nothing else asks of which kind one is.

samples that have a label each  `plan.Plan`, and the modules beside this one
texts of a language model       `language.plan.LanguagePlan`, and the modules in `language/`
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from decant.cache import Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.phases.datasets import Decode
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.plan import Plan

RecipePlan: TypeAlias = Plan | LanguagePlan


def plan_of(
    recipe: Recipe, base: Path, store: Store | None = None, *, decode: Decode = "packs ahead"
) -> RecipePlan:
    """The plan of a recipe, with runs in `base` and caches in `store`, by default the usual one.

    decode: when images are decoded, or which.

    >>> from decant.pipeline.config.recipe import load_recipe
    >>> plan_of(load_recipe("digits"), Path("runs/digits")).has_labels
    True
    """
    if recipe.settings.data.of_tokens:
        return LanguagePlan.of(recipe, base, store)
    return Plan.of(recipe, base, store, decode=decode)
