"""The teacher never sees a sample of the transfer set, and the cache and students see no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decant.cache import MismatchError, Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.data.samples import NO_LABEL
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.networks.build import build_network
from decant.pipeline.phases import job
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.fingerprints import data_fingerprint
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.evaluation import predict
from tests.helpers.small import CPU, build_cache, recipe, teach

SHARE = "data.transfer.share=0.2"
UNLABELLED = ("data.transfer.labels=false",)


def splits(*overrides: str) -> Splits:
    return Splits.load(recipe(*overrides).settings)


def rows(part: Any) -> set[bytes]:
    return {image.tobytes() for image in part.data.raw(np.arange(len(part)))}


def students(folder: Path, *overrides: str) -> list[Result]:
    made = train_students(Plan.of(recipe(*overrides), folder / "runs", Store(folder / "caches")), CPU)
    return [result for result, _ in made]


def test_without_a_transfer_set_teacher_and_students_learn_from_the_same() -> None:
    found = splits()
    assert found.teacher_train.data is found.student_train.data
    assert found.student_train.data.split == "train"


def test_the_parts_share_no_sample_and_are_all_of_the_training_part() -> None:
    whole, found = splits().student_train, splits(SHARE)
    assert (len(found.teacher_train), len(found.student_train)) == (1150, 287)
    taught, transferred = found.teacher_train.data.indices, found.student_train.data.indices  # type: ignore[attr-defined]
    assert not set(taught) & set(transferred)
    assert sorted([*taught, *transferred]) == list(range(len(whole)))
    assert not rows(found.teacher_train) & rows(found.student_train), "these digits have no two alike"
    for part, chosen in ((found.teacher_train, taught), (found.student_train, transferred)):
        assert np.array_equal(part.data.raw(np.array([3, 1])), whole.data.raw(chosen[[3, 1]]))
        assert np.array_equal(part.data.labels, whole.data.labels[chosen])
        assert part.data.classes == whole.data.classes


def test_the_seed_decides_which_samples_are_held_out() -> None:
    one, again, other = (
        splits(SHARE, *seed).student_train.data.digest() for seed in ((), (), ("data.transfer.seed=1",))
    )
    assert one == again != other


def test_what_a_digest_is_of_is_samples_and_labels() -> None:
    digests = {
        found.data.digest()
        for found in (
            splits(SHARE).student_train,
            splits(SHARE).teacher_train,
            splits(SHARE, *UNLABELLED).student_train,
            splits("data.transfer.share=0.3").student_train,
            splits().student_train,
        )
    }
    assert len(digests) == 5


def test_the_cache_is_of_the_transfer_set_and_says_so(tmp_path: Path) -> None:
    cache, found = build_cache(tmp_path, SHARE, "cache.dtype=float32"), splits(SHARE)
    data = cache.manifest.identity["data"]
    assert (data["split"], data["length"]) == ("transfer", 287)
    assert data == data_fingerprint(found.student_train.data)
    live = predict(load_network(teach(tmp_path, SHARE)), found.student_train, CPU).numpy()
    np.testing.assert_allclose(cache.logits(slice(None)), live, rtol=1e-3, atol=1e-3)


def test_a_teacher_is_another_by_what_was_held_out_and_not_by_whether_that_has_labels(tmp_path: Path) -> None:
    whole, held_out, more = (teach(tmp_path, *o) for o in ((), (SHARE,), ("data.transfer.share=0.3",)))
    assert len({result.weights_sha256 for result in (whole, held_out, more)}) == 3
    assert teach(tmp_path, SHARE, *UNLABELLED).folder == held_out.folder


def test_the_teacher_is_trained_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every input that the network takes while it is trained is one of its own part."""
    import torch

    seen, found = set[bytes](), splits(SHARE)
    build = build_network

    def watched(spec: Any, seed: int = 0) -> torch.nn.Module:
        network = build(spec, seed)
        network.register_forward_pre_hook(
            lambda module, inputs: (
                seen.update(image.numpy().tobytes() for image in inputs[0]) if module.training else None
            )
        )
        return network

    monkeypatch.setattr(job, "build_network", watched)
    teach(tmp_path, SHARE)
    assert seen == rows(found.teacher_train)


def test_students_learn_from_it_with_and_without_labels(tmp_path: Path) -> None:
    build_cache(tmp_path, SHARE)
    assert [result.kind for result in students(tmp_path, SHARE)] == ["labels", "distilled"]
    cache = build_cache(tmp_path, SHARE, *UNLABELLED)
    assert (cache.labels == NO_LABEL).all()
    (alone,) = students(tmp_path, SHARE, *UNLABELLED)
    assert alone.kind == "distilled"
    assert alone.metrics["agreement"] > 0.1, "it agrees with a teacher that learnt from other samples"


def test_a_cache_of_the_whole_training_part_is_refused(tmp_path: Path) -> None:
    whole = build_cache(tmp_path).path
    with pytest.raises(MismatchError, match=r"data\.split: expected 'transfer', found 'train'"):
        students(tmp_path, SHARE, f"cache.from={str(whole)!r}")


def write(root: Path, part: str, *classes: str) -> None:
    for place, name in enumerate(classes):
        (root / part / name).mkdir(parents=True)
        for count in range(3):
            Image.new("RGB", (4, 4), (60 * place, 50 * count, len(part))).save(
                root / part / name / f"{count}.png"
            )


def folder(root: Path, *overrides: str) -> Splits:
    here = ("data.name=imagefolder", f"data.root={root}", "data.transfer.part=more", "data.pack=never")
    return Splits.load(load_recipe("digits", [*here, *overrides]).settings)


def test_a_part_of_its_own_may_be_without_labels(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path, part, "cat", "dog")
    write(tmp_path, "more", "any")
    found = folder(tmp_path, *UNLABELLED)
    assert (len(found.teacher_train), len(found.student_train)) == (6, 3)
    assert found.student_train.data.labels.tolist() == [-1, -1, -1]
    assert found.student_train.data.classes == ("cat", "dog")
    with pytest.raises(
        DataError, match="have different classes: more lacks cat, dog; train lacks any; if these"
    ):
        folder(tmp_path)


def test_a_part_of_its_own_may_have_labels(tmp_path: Path) -> None:
    for part in ("train", "test", "more"):
        write(tmp_path, part, "cat", "dog")
    assert folder(tmp_path).student_train.data.labels.tolist() == [0, 0, 0, 1, 1, 1]


def unnamed(root: str, split: str) -> list[tuple[Any, int]]:
    """Class 4 comes up once, and no class has a name."""
    return [(np.full(3, float(index)), index % 4 if index < 40 else 4) for index in range(41)]


def targets(root: str, split: str) -> list[tuple[Any, Any]]:
    return [(np.full(3, float(index)), np.array([index, 1.0], np.float32)) for index in range(20)]


def test_a_part_in_which_a_class_does_not_come_up_has_as_many() -> None:
    found = splits(f"data.name={__name__}:unnamed", SHARE)
    assert {len(part.data.classes) for part in (found.teacher_train, found.student_train)} == {5}


def test_hidden_targets_of_a_regression_are_nan() -> None:
    settings = load_recipe("regression", [f"data.name={__name__}:targets", SHARE, *UNLABELLED]).settings
    found = Splits.load(settings)
    assert found.student_train.data.labels.shape == (4, 2)
    assert np.isnan(found.student_train.data.labels).all()
    assert not np.isnan(found.teacher_train.data.labels).any()


def test_a_share_that_leaves_nobody_anything_is_refused() -> None:
    for share, said in (("1e-06", "1,437 to the teacher and 0"), ("0.9999", "0 to the teacher and 1,437")):
        with pytest.raises(DataError, match=rf"data\.transfer\.share: {share}.*leaves {said}"):
            splits(f"data.transfer.share={share}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.transfer={}", "data.transfer.share: give either that"),
        ('data.transfer={share=0.2, part="more"}', "data.transfer.share: give either that"),
        ('data.transfer={part="val"}', "data.transfer.part: 'val' has another use"),
        ('data.transfer={part="more"}', "data.transfer.part: digits has train and test parts alone"),
        ("data.transfer.share=1.0", "data.transfer.share: expected a number above 0 and below 1, found 1.0"),
    ],
)
def test_what_is_no_transfer_set_is_refused(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(override)
    assert said in str(caught.value)
