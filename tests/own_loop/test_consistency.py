"""Whatever transform, sampler, worker or process: the cached logits are those of the very pixels that are read."""

from __future__ import annotations

import functools
import random
import warnings
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset, WeightedRandomSampler
from torchvision import transforms as v1
from torchvision.transforms import v2

import decant
from decant.cache import CacheWarning, MismatchError
from decant.pipeline.errors import DataError
from tests.helpers.extras import needs
from tests.own_loop.conftest import CLASSES, N, Named, Pictures, Teacher

pytestmark = pytest.mark.filterwarnings("ignore:.*likely not a trained teacher")


def of_v1(size: int = 16) -> Any:
    return v1.Compose(
        [v1.RandomCrop(size, padding=2), v1.RandomHorizontalFlip(), v1.ColorJitter(0.3, 0.3), v1.ToTensor()]
    )


def of_v2(padding: int = 2) -> Any:
    return v2.Compose(
        [
            v2.RandomCrop(16, padding=padding),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )


def of_timm() -> Any:
    from timm.data import create_transform

    return create_transform(16, is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5)


def of_albumentations() -> Any:
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    return A.Compose([A.RandomCrop(12, 12), A.HorizontalFlip(), A.GaussNoise(p=0.5), ToTensorV2()])


def of_operations() -> Any:
    return [decant.views.pad_crop(2), decant.views.flip(), decant.views.color_jitter()]


class Noise:
    """Draws from NumPy's global generator and from Python's, and from one of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng()

    def __call__(self, image: Any) -> torch.Tensor:
        drawn = np.random.normal() + random.random() + self.generator.normal()  # noqa: NPY002
        return torch.from_numpy(np.float32(image).transpose(2, 0, 1) / 255 + 0.1 * np.float32(drawn))


TRANSFORMS = {
    "torchvision v1": of_v1,
    "torchvision v2": of_v2,
    "decant.views": of_operations,
    "a callable": Noise,
    "timm": of_timm,
    "albumentations": of_albumentations,
}


SPAWNED = ("torchvision v2", "timm", "albumentations")
"""Whose workers are spawned as well, which takes seconds."""


@functools.cache
def live(teacher: Teacher, views: decant.Views, index: int, view: int) -> torch.Tensor:
    teacher.eval()
    with torch.no_grad():
        return teacher(views[index, view][0][None])[0]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs(name) if name in ("timm", "albumentations") else [])
        for name in TRANSFORMS
    ],
)
def test_cached_logits_are_those_of_a_live_teacher(name: str, teacher: Teacher, tmp_path: Path) -> None:
    """1,000 random views, read in one process, in forked workers and in spawned ones."""
    views = decant.Views(Pictures(), TRANSFORMS[name](), count=20, seed=3)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5", batch_size=16)
    drawn = np.random.default_rng(4).integers(0, (N, 20), (1000, 2))
    train = decant.SoftLabelDataset(views, cache, check_inputs="all")
    keys = [(int(index), int(view)) for index, view in drawn]
    contexts = [(None, 0), ("fork", 2), *([("spawn", 1)] if name in SPAWNED else [])]
    for context, workers in contexts:
        loader = DataLoader(train, 50, sampler=keys, num_workers=workers, multiprocessing_context=context)
        teacher.eval()
        with torch.no_grad():
            worst = max(float((teacher(images) - logits).abs().max()) for images, _, logits in loader)
        assert worst < 2**-11 * 16, f"{name} in {context or 'one process'}: {worst}"
    other = decant.Views(Pictures(), TRANSFORMS[name](), count=20, seed=3)
    assert torch.equal(other[7, 5][0], views[7, 5][0])
    assert float((live(teacher, views, 7, 5) - cache_row(cache, 7, 5)).abs().max()) < 2**-7


def cache_row(cache: decant.LogitCache, index: int, view: int) -> torch.Tensor:
    return torch.from_numpy(cache.logits(index, view)).float()


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (lambda: decant.Views(Pictures(), of_v1(), count=2), "views.transform"),
        (lambda: decant.Views(Pictures(), of_v2(padding=3), count=2), "views.transform[1]"),
        (lambda: decant.Views(Pictures(), of_v2(), count=2, seed=1), "views.seed"),
        (lambda: decant.Views(Pictures(), of_v2(), count=3), "views.count"),
        (lambda: decant.Views(Pictures(length=N - 1), of_v2(), count=2), "data.length"),
    ],
    ids=["another transform", "one parameter", "another seed", "more views", "fewer samples"],
)
def test_another_view_is_refused(other: Any, field: str, teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    cache = decant.cache_logits(teacher, decant.Views(Pictures(), of_v2(), count=2), path)
    with pytest.raises(MismatchError) as refused:
        decant.SoftLabelDataset(other(), cache)
    assert field in str(refused.value)
    with pytest.raises(MismatchError) as refused:
        decant.cache_logits(teacher, other(), path)
    assert field in str(refused.value)
    assert decant.LogitCache.open(path).num_views == 2, "what was there stays"


def test_random_transforms_of_a_plain_dataset_are_refused(teacher: Teacher, tmp_path: Path) -> None:
    """The two snippets of the README trained on 64 of 64 wrong rows so, without a word."""
    data = Pictures(of_v2())
    with pytest.raises(DataError, match=r"Pictures draws random numbers; make it decant.Views"):
        decant.cache_logits(teacher, data, tmp_path / "teacher.h5")
    batches = [torch.stack([data[index][0] for index in range(N)])]
    manifest = decant.Manifest.build(num_samples=N, num_outputs=3)
    with decant.LogitCacheWriter(tmp_path / "mine.h5", manifest) as writer:
        writer.write(range(N), teacher(batches[0]), labels=data.targets, inputs=batches[0])
        cache = decant.LogitCache.open(writer.publish())
    with pytest.raises(MismatchError, match="not what the teacher saw"):
        next(iter(DataLoader(decant.SoftLabelDataset(data, cache), 16, shuffle=True)))
    views = decant.Views(data, count=2)
    train = decant.SoftLabelDataset(views, decant.cache_logits(teacher, views, tmp_path / "views.h5"))
    assert torch.equal(train[5, 1][0], views[5, 1][0])


def test_one_flip_in_two_is_found_in_the_first_batch(teacher: Teacher, tmp_path: Path) -> None:
    """One input of a batch is compared, but of the first batch a number of them."""
    views = decant.Views(Pictures(), v2.Compose([v2.PILToTensor()]), count=1)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    flipped = Pictures(v2.Compose([v2.RandomHorizontalFlip(), v2.PILToTensor()]))
    with pytest.raises(MismatchError, match="not what the teacher saw"):
        next(iter(DataLoader(decant.SoftLabelDataset(flipped, cache), 32, shuffle=True)))


class Remembers:
    """Another picture at every call."""

    calls = 0

    def __call__(self, image: Any) -> torch.Tensor:
        Remembers.calls += 1
        return v2.functional.pil_to_tensor(image) + Remembers.calls


class Hidden:
    """Has a generator that nobody can find."""

    def __call__(self, image: Any) -> Any:
        return v2.functional.pil_to_tensor(image).float() + np.random.default_rng().normal()


@pytest.mark.parametrize("step", [Remembers, Hidden])
def test_what_cannot_be_repeated_is_refused_by_name(step: Any, teacher: Teacher, tmp_path: Path) -> None:
    transform = v2.Compose([v2.RandomHorizontalFlip(), step()])
    with pytest.raises(DataError, match=rf"not the same.*the transform .*{step.__name__}.* draws from"):
        decant.cache_logits(teacher, decant.Views(Pictures(), transform), tmp_path / "teacher.h5")
    assert list(tmp_path.glob("*.h5*")) in ([], [tmp_path / "teacher.h5.lock"])


class OwnNoise:
    """Draws from a generator of its own, as the transforms of albumentations do."""

    def __init__(self) -> None:
        self.random = np.random.default_rng()

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.random.normal()


NOISE, RNG = OwnNoise(), np.random.default_rng()


def names_an_object(image: Any) -> torch.Tensor:
    return torch.stack([NOISE(each) for each in v2.functional.pil_to_tensor(image).float()])


class NamesAnObject:
    """Its method names what the module has."""

    def __call__(self, image: Any) -> torch.Tensor:
        return self.noisy(v2.functional.pil_to_tensor(image).float())

    def noisy(self, image: torch.Tensor) -> torch.Tensor:
        return NOISE(image) + RNG.normal()


class NoisyPictures(Pictures):
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return names_an_object(image), label


@pytest.mark.parametrize("kind", ["function", "lambda", "method", "dataset"])
def test_generators_that_the_users_code_names_are_found(kind: str) -> None:
    step = {
        "function": names_an_object,
        "lambda": lambda image: NOISE(v2.functional.pil_to_tensor(image).float()),
        "method": NamesAnObject(),
    }
    views = decant.Views(NoisyPictures() if kind == "dataset" else Pictures(), step.get(kind), count=2)
    first = [views[index, 1][0] for index in range(9)]
    again = torch.stack([item[0] for item in views.__getitems__([(index, 1) for index in range(8, -1, -1)])])
    assert torch.equal(torch.stack(first), again.flip(0))
    assert not torch.equal(views[0, 0][0], first[0])


def test_the_loop_draws_what_it_would_without_views() -> None:
    views = decant.Views(Pictures(), Noise(), count=2)

    def drawn(read: Any) -> list[float]:
        torch.manual_seed(1)
        np.random.seed(2)  # noqa: NPY002
        random.seed(3)
        values = []
        for _ in range(3):  # of normals, NumPy keeps every second one for the next call
            values += [float(torch.rand(())), float(np.random.normal()), random.random()]  # noqa: NPY002
            read()
        return values

    expected = drawn(lambda: None)
    assert drawn(lambda: views[3]) == expected
    assert drawn(lambda: views.__getitems__(list(range(20)))) == expected


def test_weighted_sampling_reads_further_views(teacher: Teacher, tmp_path: Path) -> None:
    views = decant.Views(Pictures(), of_v2(), count=4)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    train = decant.SoftLabelDataset(views, cache, check_inputs="all")
    train.set_epoch(1)
    assert [train._drawn.split([5, 5, 6, 5], 4, 1, 1)[1].tolist()] == [[1, 2, 1, 3]]
    train.set_epoch(1)
    for sampler in (
        WeightedRandomSampler([1.0] + [0.01] * (N - 1), 80),
        RandomSampler(train, replacement=True),
    ):
        for workers in (0, 2):
            loader = DataLoader(train, 16, sampler=sampler, num_workers=workers)
            teacher.eval()
            with torch.no_grad():
                for images, _, logits in loader:
                    assert float((teacher(images) - logits).abs().max()) < 2**-7
    train.set_epoch(1)
    batch = train.__getitems__([5, 5])
    assert torch.equal(batch[0][0], views[5, 1][0])
    assert torch.equal(batch[1][0], views[5, 2][0])
    assert torch.equal(train[5][0], views[5, 1][0]), "an index by itself reads the view of the epoch"


def test_an_epoch_reads_its_view_in_workers_that_stay(teacher: Teacher, tmp_path: Path) -> None:
    views = decant.Views(Pictures(), of_v2(), count=3)
    train = decant.SoftLabelDataset(views, decant.cache_logits(teacher, views, tmp_path / "teacher.h5"))
    loader = DataLoader(train, 30, num_workers=2, persistent_workers=True)
    for epoch in range(4):
        train.set_epoch(epoch)
        views.set_epoch(epoch)
        images = torch.cat([batch[0] for batch in loader])
        assert torch.equal(images, torch.stack([views[index, epoch % 3][0] for index in range(N)]))
        assert torch.equal(images[7], views[7][0])


def test_new_workers_that_read_one_view_for_ever_are_said(teacher: Teacher, tmp_path: Path) -> None:
    """`set_epoch` is called once, before the loop. Passes to measure with, between the epochs, are none too many."""
    views = decant.Views(Pictures(), of_v2(), count=3)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    train = decant.SoftLabelDataset(views, cache)
    loader = DataLoader(train, 30, shuffle=True, num_workers=1, multiprocessing_context="fork")
    train.set_epoch(4)
    for _ in range(2):
        list(loader)
    with pytest.raises(CacheWarning, match=r"a third pass of a loader reads view 1, of 3, as set_epoch\(4\)"):
        list(loader)
    right = decant.SoftLabelDataset(views, cache)
    loaders = [DataLoader(right, 30, num_workers=1), DataLoader(right, 30, num_workers=1)]
    for epoch in range(2):
        right.set_epoch(epoch)
        list(zip(*loaders, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_views_whose_epoch_is_never_set_are_said_in_the_third_pass(workers: int) -> None:
    views = decant.Views(Pictures(), of_v2(), count=3)
    loader = DataLoader(
        views, 30, shuffle=True, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    for _ in range(2):
        list(loader)
    with pytest.raises(CacheWarning, match=r"views: a third pass reads view 0 only, of 3: call set_epoch"):
        list(loader)
    for dataset in (decant.Views(Pictures(), of_v2(), count=3), decant.Views(Pictures(), of_v2(), count=1)):
        for epoch in range(3):
            dataset.set_epoch(epoch)
            list(DataLoader(dataset, 30, num_workers=workers))


def test_longer_tuples_are_read_by_the_keys_of_their_views(teacher: Teacher, tmp_path: Path) -> None:
    class Numbered(Pictures):
        def __getitem__(self, index: int) -> Any:
            return (*super().__getitem__(index), index)

    views = decant.Views(Numbered(), of_v2(), count=2, keys=(0, 1))
    train = decant.SoftLabelDataset(views, decant.cache_logits(teacher, views, tmp_path / "teacher.h5"))
    image, label, logits = train[7, 1]
    assert torch.equal(image, views[7, 1][0])
    assert (label, len(logits)) == (7 % CLASSES, CLASSES)


def test_half_of_a_random_split_may_have_a_cache_of_its_own(teacher: Teacher, tmp_path: Path) -> None:
    half = torch.utils.data.random_split(
        Pictures(v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])), [0.5, 0.5]
    )[0]
    train = decant.SoftLabelDataset(half, decant.cache_logits(teacher, half, tmp_path / "half.h5"))
    assert torch.equal(train[9][0], half[9][0])
    part = decant.SoftLabelDataset(Subset(half, [9, 2]), train.cache)
    assert torch.equal(part[0][2], train[9][2])
    with pytest.raises(decant.CacheError, match="the dataset has 60, the cache 30"):
        decant.SoftLabelDataset(half.dataset, train.cache)


def test_parts_with_a_cache_each_are_read_together_as_where_data_have_grown(
    teacher: Teacher, tmp_path: Path
) -> None:
    parts = [decant.Views(Subset(Pictures(), range(*ends)), of_v2(), count=3) for ends in ((0, 40), (40, 60))]
    caches = [decant.cache_logits(teacher, each, tmp_path / f"{len(each)}.h5") for each in parts]
    both = torch.utils.data.ConcatDataset(list(map(decant.SoftLabelDataset, parts, caches)))
    teacher.eval()
    for epoch in range(3):
        for part in both.datasets:
            part.set_epoch(epoch)  # type: ignore[attr-defined]
        for inputs, _, logits in DataLoader(both, 16, shuffle=True):
            with torch.no_grad():
                assert float((teacher(inputs) - logits).abs().max()) < 2**-7
    together = decant.cache_logits(
        teacher, decant.Views(Pictures(), of_v2(), count=3), tmp_path / "together.h5"
    )
    for within, cache in (
        (torch.utils.data.ConcatDataset(parts), together),
        (Subset(parts[0], range(20)), caches[1]),
    ):
        holder = type(within).__name__
        with pytest.raises(
            decant.CacheError, match=rf"a {holder} of Views takes an index alone: make it Views of"
        ):
            decant.SoftLabelDataset(within, cache)
    with pytest.raises(
        decant.CacheError, match=r"give a torch.utils.data.Subset of the views of all, Subset\("
    ):
        decant.SoftLabelDataset(parts[0], together)


@pytest.mark.parametrize("as_stored", [False, True])
def test_what_teacher_or_student_alone_does_may_change_its_input_in_place(
    as_stored: bool, teacher: Teacher, tmp_path: Path
) -> None:
    """The checksum of what both share was of what one of them had made of it, or the data were changed."""
    of_teacher, of_student = (v2.Normalize([mean] * 3, [0.25] * 3, inplace=True) for mean in (0.5, 0.4))
    to_floats = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    data, shared = (list(Pictures(to_floats)), None) if as_stored else (Pictures(), to_floats)
    views = decant.Views(data, shared, count=1, teacher=of_teacher, student=of_student)
    plain = [decant.Views(data, shared, count=1)[index][0].clone() for index in range(60)]
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    inputs, _, logits = next(iter(DataLoader(decant.SoftLabelDataset(views, cache, check_inputs="all"), 60)))
    assert torch.allclose(inputs, (torch.stack(plain) - 0.4) / 0.25, atol=1e-6)
    teacher.eval()
    with torch.no_grad():
        assert float((teacher((torch.stack(plain) - 0.5) / 0.25) - logits).abs().max()) < 2**-5


def test_inputs_of_a_class_of_their_own_stay_so_and_are_changed_by_one_alone() -> None:
    """As what a tokenizer of transformers returns, whose fields are attributes."""
    given = UserDict(pixels=torch.ones(2))

    def of_student(value: Any) -> Any:
        return value.data["pixels"].add_(1)

    views = decant.Views(
        [(given, 0)], count=1, teacher=lambda value: value.data["pixels"], student=of_student
    )
    assert views[0][0].tolist() == [2, 2]
    assert given["pixels"].tolist() == [1, 1]


def test_dictionaries_stay_dictionaries(teacher: Teacher, tmp_path: Path) -> None:
    views = decant.Views(Named(), {"image": of_v2()}, count=2)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    train = decant.SoftLabelDataset(views, cache, check_inputs="all")
    train.set_epoch(1)
    batch = next(iter(DataLoader(train, 8)))
    assert list(batch) == ["image", "label", "path", "teacher_logits"]
    teacher.eval()
    with torch.no_grad():
        assert float((teacher(batch["image"]) - batch["teacher_logits"]).abs().max()) < 2**-7
    assert cache.labels.tolist() == Pictures().targets
    with pytest.raises(
        DataError, match=r"dictionaries of image, label, path: \{field: transform\} takes one field"
    ):
        _ = decant.Views(Named(), v1.ToTensor())[0]


def test_a_teacher_may_see_another_size_of_the_same_view(teacher: Teacher, tmp_path: Path) -> None:
    shared = [v2.RandomCrop(12), v2.RandomHorizontalFlip()]
    for_teacher = v2.Compose([v2.Resize(24), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    for_student = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32)])
    views = decant.Views(Pictures(), shared, count=2, teacher=for_teacher, student=for_student)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    train = decant.SoftLabelDataset(views, cache, check_inputs="all")
    image, _, logits = train[9, 1]
    assert image.shape == (3, 12, 12)
    plain = decant.Views(Pictures(), shared, count=2)[9, 1][0]
    assert torch.equal(image, for_student(plain))
    teacher.eval()
    with torch.no_grad():
        assert float((teacher(for_teacher(plain)[None])[0] - logits).abs().max()) < 2**-7
    other = decant.Views(Pictures(), shared, count=2, teacher=v2.ToImage(), student=for_student)
    with pytest.raises(MismatchError, match=r"views.teacher"):
        decant.SoftLabelDataset(other, cache)
    mirrored = [v2.RandomHorizontalFlip(), for_student]
    random_part = decant.Views(Pictures(), shared, count=2, teacher=for_teacher, student=mirrored)
    with pytest.raises(DataError, match=r"views\.student: .*RandomHorizontalFlip.* draws random numbers"):
        decant.cache_logits(teacher, random_part, tmp_path / "b.h5")
    smaller = decant.Views(Pictures(), shared, count=2, teacher=for_teacher, student=v2.ToImage())
    assert decant.SoftLabelDataset(smaller, cache)[9, 1][0].shape == (3, 12, 12), "students may differ"


@pytest.mark.parametrize("mix", [decant.views.mixup(1.0), decant.views.cutmix()])
def test_mixed_samples_are_mixed_for_the_teacher_too(mix: Any, teacher: Teacher, tmp_path: Path) -> None:
    views = decant.Views(Pictures(), [decant.views.flip(), mix], count=3)
    cache = decant.cache_logits(teacher, views, tmp_path / "teacher.h5")
    train = decant.SoftLabelDataset(views, cache, check_inputs="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        image, shares, logits = train[5, 2]
    assert shares.shape == (3,)
    assert float(shares.sum()) == pytest.approx(1)
    teacher.eval()
    with torch.no_grad():
        assert float((teacher(image[None])[0] - logits).abs().max()) < 2**-7
