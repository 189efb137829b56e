"""The data of a recipe in a loop of one's own: what the recipe's own students see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import decant
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.recipe_dataset import recipe_dataset

RECIPE = """
[data]
name = "toy:pictures"
validation = 0.25
[views]
count = 3
augment = [{ op = "pad-crop", padding = 1 }]
[teacher]
network = "conv"
epochs = 1
[student]
network = "linear"
epochs = 1
"""
MODULE = """
import numpy as np
def pictures(root, split):
    random = np.random.default_rng(0)
    darkest = 50 if split == "test" else 0
    return [(random.integers(darkest, 256, (1, 6, 6), dtype=np.uint8), label % 2) for label in range(40)]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose data are a function beside it."""
    (tmp_path / "toy.py").write_text(MODULE)
    (tmp_path / "toy.toml").write_text(RECIPE)
    return tmp_path / "toy.toml"


def test_training_samples_have_the_recipes_views_and_the_others_none(recipe: Path) -> None:
    train, validation, test = (recipe_dataset(recipe, part) for part in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (30, 10, 40)
    assert not torch.equal(train[3, 0][0], train[3, 1][0])
    assert torch.equal(test[3, 0][0], test[3, 1][0])
    assert min(int(test[index][0].min()) for index in range(40)) == 50, "the function's test part"
    assert torch.equal(train[3][0], train[3, 0][0])
    plain = recipe_dataset(recipe, overrides=["views.count=1", "views.augment=[]", "data.validation=0.5"])
    assert len(plain) == 20


def test_a_mistake_is_a_recipe_error() -> None:
    for words, says in (
        ({"part": "validation"}, "digits: has no validation part"),
        ({"overrides": ["data.nmae=x"]}, "data.nmae: unknown key"),
        ({"recipe": "language-model"}, r"read its texts with decant\.language\.tokenise"),
        ({"part": "tset"}, "part: expected train, validation or test, found 'tset'"),
    ):
        with pytest.raises(RecipeError, match=says):
            decant.recipe_dataset(**words)  # type: ignore[arg-type]
