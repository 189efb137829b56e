"""`recipe_dataset`: the data of a recipe, for a training loop of one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from decant.pipeline.config.recipe import DEFAULT
from decant.pipeline.data import load_data
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.datasets import RecipeData
from decant.pipeline.runs.open import load_given_recipe
from decant.pipeline.support.modules import search
from decant.pipeline.views import ViewedData

Part = Literal["train", "validation", "test"]


def recipe_dataset(
    recipe: str | os.PathLike[str] = DEFAULT, part: Part = "train", *, overrides: Sequence[str] = ()
) -> ViewedData:
    """The data of a recipe as a map-style dataset, for `SoftLabelDataset` and the cache that `decant cache-logits` has
    made of the same recipe.

    recipe: the name of a recipe that ships, or a .toml file. overrides: `"section.key=value"`, as `--set` takes them.
    part: "train" is what students are trained on and the cache is of, so without what validates, or the transfer set
    where there is one. It has the recipe's views: `dataset[i, v]` is (input, label) of view v of sample i, and
    `dataset[i]` of view 0. "validation" and "test" are not augmented.

    Inputs are what the teacher's pass compares: images (C, H, W) uint8 as their files have them, which networks of
    recipes scale and normalise themselves; features (F,) float32; of texts a dictionary of token ids (L,). Labels are
    int64, −1 where there is none; (T,) float32 of a regression; (C,) float32 shares where views mix samples. With
    `dataset.batch(keys)`, inputs and labels of many keys are read at once.

    Raises RecipeError for a recipe with a mistake, of a language model, or without such a part; DataError where the
    data cannot be read.

    >>> train = recipe_dataset("digits", overrides=["data.validation=0.2"])
    >>> image, label = train[0]
    >>> len(train), image.shape, image.dtype, int(label)
    (1150, torch.Size([1, 8, 8]), torch.uint8, 0)
    >>> len(recipe_dataset("digits", "test"))
    360
    """
    if part not in get_args(Part):
        raise RecipeError(f"part: expected train, validation or test, found {part!r}")
    given = os.fspath(recipe)
    if given.endswith(".toml"):
        search(Path(given).absolute().parent)  # where functions that it names may be
    settings = load_given_recipe(given, overrides).settings
    if settings.data.of_tokens:
        raise RecipeError(f"{given}: is of a language model; read its texts with decant.language.tokenise")
    data = RecipeData(settings, decode="at once")
    if part == "train":
        return data.student_train
    if part == "test":
        return ViewedData(load_data(settings.data, settings.views, "test"), settings.views.plain)
    if data.validation is None:
        raise RecipeError(
            f"{given}: has no validation part; data.validation = 0.1 holds a tenth of the data out"
        )
    return data.validation
