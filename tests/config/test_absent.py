"""Keys of other programs: a recipe that has one is told where the setting is, or that there is none."""

from __future__ import annotations

import pytest

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import RecipeError


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("student.ema=0.999", 'it is average = "ema" or "swa" of teacher or student here'),
        ("ema.decay=0.999", 'ema: unknown section; it is average = "ema"'),
        ("teacher.early_stopping=3", "it is called patience here"),
        ("data.val_split=0.1", "it is data.validation here: a share of the training part"),
        ("student.pos_weight=[1]", "student.pos_weight: unknown key; positive answers are not weighed apart"),
        ("student.learning_rate=1", "it is called lr here"),
        ("student.temperature=2", "it is of a student's loss: student.objective"),
        (
            "student.objective={name='dkd',class_weights=[1]}",
            "student.class_weights weighs the samples of this",
        ),
        ("student.objective={name='dkd',learning_rate=1}", "learning_rate: unknown key; known: alpha, beta"),
    ],
)
def test_a_key_of_another_program_is_answered_in_words(override: str, says: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe("digits", [override])
    assert says in str(refused.value)
