"""The validation part: drawn by a seed from each class alike, held out from teacher and student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import ValidationSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.data.validation import draw_share, hold_out
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.phases.datasets import RecipeData, Splits
from tests.helpers.small import recipe


def rows(part: object) -> set[bytes]:
    return {image.tobytes() for image in part.data.raw(np.arange(len(part)))}  # type: ignore[attr-defined]


def test_a_recipe_without_one_has_none_and_says_nothing_of_it() -> None:
    plain = recipe()
    assert Splits.load(plain.settings).validation is None
    assert "validation" not in plain.to_toml()
    assert "validation" not in plain.settings.data.model_dump()


def test_a_share_is_held_out_from_teacher_and_student_and_of_each_class_alike() -> None:
    whole, found = Splits.load(recipe().settings), Splits.load(recipe("data.validation=0.2").settings)
    assert found.validation is not None
    assert (len(found.student_train), len(found.validation)) == (1150, 287)
    assert found.teacher_train.data is found.student_train.data
    assert not rows(found.student_train) & rows(found.validation), "these digits have no two alike"
    assert rows(found.student_train) | rows(found.validation) == rows(whole.student_train)
    of_each = np.bincount(found.validation.data.labels) / np.bincount(whole.student_train.data.labels)
    assert np.abs(of_each - 0.2).max() < 0.005, of_each
    assert found.test.data.digest() == whole.test.data.digest()


def test_the_seed_alone_decides_which_samples_it_has() -> None:
    def digest(*overrides: str) -> str:
        data = RecipeData(recipe(*overrides).settings).validation_data
        assert data is not None
        return data.digest()

    first = digest("data.validation=0.2", "views.seed=3")
    assert digest("data.validation.share=0.2") == first
    assert digest("data.validation={share=0.2, seed=1}") != first


def test_what_is_held_out_is_part_of_the_fingerprint() -> None:
    plain, held_out = RecipeData(recipe().settings), RecipeData(recipe("data.validation=0.2").settings)
    assert plain.student_fingerprints != held_out.student_fingerprints
    assert plain.teacher_fingerprints != held_out.teacher_fingerprints


def test_a_transfer_set_is_drawn_from_what_is_left() -> None:
    found = Splits.load(recipe("data.validation=0.2", "data.transfer.share=0.5").settings)
    assert found.validation is not None
    parts = [rows(found.teacher_train), rows(found.student_train), rows(found.validation)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1437


def test_the_last_sample_of_a_class_is_trained_on_and_samples_without_label_do_not_validate() -> None:
    labels = np.array([0] * 50 + [1] + [2] * 3 + [-1] * 40)
    chosen = draw_share(labels, "classification", 0.9, seed=0)
    assert 50 not in chosen
    assert chosen.max() < 54
    assert 0.8 < len(chosen) / 54 <= 0.9, len(chosen)
    unknown = np.array([[np.nan], [0.0], [1.0], [1.0], [0.0]], np.float32)
    assert 0 not in draw_share(unknown, "binary", 0.5, seed=0)


def test_classes_without_names_stay_without() -> None:
    """Else the training part would have other class names than the test part."""
    whole = ArrayData("mine", "train", np.zeros((8, 2), np.float32), np.array([0, 1] * 4), ())
    rest, held_out = hold_out(ValidationSettings(share=0.5), whole)
    assert held_out is not None
    assert rest.classes == held_out.classes == ()


def folder(root: Path, *parts: str) -> Path:
    drawn = np.random.default_rng(0)
    for part in parts:
        for name in "ab":
            for number in range(4):
                path = root / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(drawn.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)
    return root


def test_a_folder_of_its_own_beside_train_and_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path, "train", "val", "test")
    words = ["data.name=imagefolder", f"data.root={root}", "data.pack=never"]
    found = Splits.load(load_recipe("digits", [*words, "data.validation=val"]).settings)
    assert found.validation is not None
    assert not capsys.readouterr().err, "a part that validates is not one that is left unused"
    assert len(rows(found.validation) | rows(found.student_train) | rows(found.test)) == 24
    plain = RecipeData(load_recipe("digits", words).settings)
    with_part = RecipeData(load_recipe("digits", [*words, "data.validation=val"]).settings)
    assert plain.student_fingerprints == with_part.student_fingerprints, "what is trained on is the same"


def test_val_alone_beside_train_cannot_be_both(tmp_path: Path) -> None:
    root = folder(tmp_path, "train", "val")
    words = ["data.name=imagefolder", f"data.root={root}", "data.validation=val", "data.pack=never"]
    with pytest.raises(DataError, match="has no folder test or valid or validation; it has train, val"):
        Splits.load(load_recipe("digits", words).settings)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.validation=val", "digits has train and test parts alone; set validation.share"),
        ("data.validation=1.0", "data.validation.share: expected a number above 0 and below 1, found 1.0"),
        ("data.validation={seed=1}", "share: give either that, of the training part, or `part`"),
        ("data.validation=train", "'train' is what networks are trained on"),
        ("data.validation=true", "data.validation: expected a table, found true"),
        (
            "student.keep=best",
            "student.keep: epochs are chosen by a validation part, and there is none; set data.v",
        ),
        ("student.patience=3", "student.patience: epochs are chosen by a validation part"),
        ("teacher.keep=best", "teacher.keep: epochs are chosen by a validation part"),
        ("student.ema_decay=0.9", 'student.ema_decay: is of average = "ema"; leave it out'),
        ("student.swa_start=0.5", 'student.swa_start: is of average = "swa"; leave it out'),
    ],
)
def test_what_cannot_be_is_named_before_anything_runs(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe(override)
    assert said in str(raised.value)


def test_the_test_part_does_not_validate() -> None:
    own = ["data.name=mine:data", "data.test=holdout"]
    with pytest.raises(RecipeError, match="'holdout' is what networks are measured on; name another part"):
        recipe(*own, "data.validation=holdout")


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation\.share: 0\.0001 of 1,437 samples leaves 1,437"):
        Splits.load(recipe("data.validation=0.0001").settings)
