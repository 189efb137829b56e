"""Phase one: what is in the file is what the teacher says of each sample, and it is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from decant.cache import LogitCache, Store, input_crc32
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import NotMadeError, WeightsError
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.cost import estimate
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import require_trainable
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.notes import Pass, pass_of, remember_pass
from decant.pipeline.runs.result import WEIGHTS
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.small import CPU, build_cache, recipe, teach

VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


@pytest.mark.parametrize("batch_size", [1437, 256, 33])
def test_the_cached_row_of_a_sample_is_the_teachers_output_for_it(tmp_path: Path, batch_size: int) -> None:
    options = (*VIEWS, f"cache.batch_size={batch_size}", 'cache.dtype="float32"')
    cache = build_cache(tmp_path, *options)
    network = load_network(teach(tmp_path, *options)).eval()
    viewed = Splits.load(recipe(*options).settings).student_train
    chosen = np.random.default_rng(0).integers(0, len(viewed), 50).tolist()
    for view in range(2):
        inputs = torch.stack([viewed[index, view][0] for index in chosen])
        with torch.inference_mode():
            live = network(inputs)
        torch.testing.assert_close(torch.from_numpy(cache.logits(chosen, view)), live, rtol=1e-4, atol=1e-4)


def test_views_labels_and_checksums_are_those_of_the_data(tmp_path: Path) -> None:
    cache = build_cache(tmp_path, *VIEWS)
    viewed = Splits.load(recipe(*VIEWS).settings).student_train
    assert np.array_equal(cache.labels, viewed.data.labels)
    for index, view in [(0, 0), (0, 1), (1436, 1), (700, 0)]:
        assert cache.input_crc32[view, index] == input_crc32(viewed[index, view][0])
    assert not np.array_equal(cache.input_crc32[0], cache.input_crc32[1])


def test_float16_is_the_rounding_of_float32_and_no_more(tmp_path: Path) -> None:
    half, full = build_cache(tmp_path), build_cache(tmp_path, 'cache.dtype="float32"')
    assert half.path != full.path
    assert np.array_equal(half.logits(slice(None)), full.logits(slice(None)).astype(np.float16))


def test_a_second_call_finds_the_file_and_loads_no_teacher(tmp_path: Path) -> None:
    cache = build_cache(tmp_path)
    teacher = teach(tmp_path)
    (teacher.folder / WEIGHTS).write_bytes(b"not weights at all")
    again = cache_logits(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU, print)
    assert again.seconds is None
    assert again.cache.path == cache.path
    assert again.metrics["top1"] > 0.2, "two epochs are better than chance"


def test_weights_that_are_not_the_ones_that_were_trained_are_refused(tmp_path: Path) -> None:
    teacher, other = teach(tmp_path), teach(tmp_path, "teacher.seed=1")
    (teacher.folder / WEIGHTS).write_bytes((other.folder / WEIGHTS).read_bytes())
    with pytest.raises(WeightsError, match="not the weights that"):
        cache_logits(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU, print)


def test_without_a_teacher_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match=r"run: decant teacher --set teacher\.network\.width=4"):
        cache_logits(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU, print)


def test_what_the_pass_took_is_noted_by_who_made_the_file_and_not_by_who_found_it(tmp_path: Path) -> None:
    teach(tmp_path, *VIEWS)
    runs, store = tmp_path / "runs", Store(tmp_path / "caches")
    made = cache_logits(Plan.of(recipe(*VIEWS), runs, store), CPU, print)
    assert made.seconds is not None
    noted = pass_of(runs, made.cache.manifest.key)
    assert noted == Pass(made.seconds, 2 * 1437, 0, device_name(CPU))
    other = Pass(7.0, 1, 0, "abacus")
    remember_pass(runs, made.cache.manifest.key, other)
    cache_logits(Plan.of(recipe(*VIEWS), runs, store), CPU, print)
    assert pass_of(runs, made.cache.manifest.key) == other


GROWING = ('views.augment=[{op="pad-crop", padding=1}]',)


def test_more_views_take_over_those_that_are_there(tmp_path: Path) -> None:
    build_cache(tmp_path, *GROWING, "views.count=2")
    asked = recipe(*GROWING, "views.count=5")
    store = Store(tmp_path / "caches")
    assert estimate(Plan.of(asked, tmp_path / "runs", store), CPU).views_taken_over == 2
    made = cache_logits(Plan.of(asked, tmp_path / "runs", store), CPU, print)
    assert (made.views_taken_over, made.rows) == (2, 3 * 1437)
    noted = pass_of(tmp_path / "runs", made.cache.manifest.key)
    assert noted is not None
    assert (noted.views_taken_over, noted.rows) == (2, 3 * 1437)
    afresh = cache_logits(Plan.of(asked, tmp_path / "runs", Store(tmp_path / "other")), CPU, print)
    assert (afresh.views_taken_over, afresh.rows) == (0, 5 * 1437)
    assert afresh.cache.path.read_bytes() == made.cache.path.read_bytes()


def test_fewer_views_need_no_teacher_at_all(tmp_path: Path) -> None:
    build_cache(tmp_path, *GROWING, "views.count=3")
    fewer = estimate(
        Plan.of(recipe(*GROWING, "views.count=2"), tmp_path / "runs", Store(tmp_path / "caches")), CPU
    )
    assert (fewer.views_taken_over, fewer.seconds) == (2, 0.0)
    (teach(tmp_path, *GROWING).folder / WEIGHTS).write_bytes(b"whoever reads this fails")
    asked = recipe(*GROWING, "views.count=2")
    made = cache_logits(Plan.of(asked, tmp_path / "runs", Store(tmp_path / "caches")), CPU, print)
    assert (made.views_taken_over, made.rows, made.cache.num_views) == (2, 0, 2)
    assert made.cache.verify() == []


def test_every_outcome_is_cached_once_and_by_the_same_teacher(tmp_path: Path) -> None:
    cache = build_cache(tmp_path, *GROWING, 'views.count="all"')
    assert cache.num_views == 9
    assert len(np.unique(cache.input_crc32[:, 0])) == 9
    assert teach(tmp_path, *GROWING, 'views.count="all"').folder == teach(tmp_path, *GROWING).folder
    assert cache.path != build_cache(tmp_path, *GROWING, "views.count=9").path


def test_mixed_samples_are_cached_with_the_label_of_their_own(tmp_path: Path) -> None:
    options = ("views.count=2", 'views.augment=[{op="flip"}, {op="mixup", alpha=1.0}]')
    cache = build_cache(tmp_path, *options, 'cache.dtype="float32"')
    viewed = Splits.load(recipe(*options).settings).student_train
    assert np.array_equal(cache.labels, viewed.data.labels)
    network = load_network(teach(tmp_path, *options)).eval()
    keys = np.array([[3, 0], [3, 1], [1000, 1]])
    with torch.inference_mode():
        live = network(viewed.batch(keys)[0])
    found = torch.from_numpy(cache.logits(keys[:, 0], keys[:, 1]))
    torch.testing.assert_close(found, live, rtol=1e-4, atol=1e-4)


def test_a_cached_logit_is_the_live_one_rounded_to_float16(tmp_path: Path) -> None:
    """Over 1,000 random samples and views, and nowhere more than rounding allows."""
    options = (*GROWING, 'views.count="all"')
    cache = build_cache(tmp_path, *options)
    full = build_cache(tmp_path, *options, 'cache.dtype="float32"')
    network = load_network(teach(tmp_path, *options)).eval()
    viewed = Splits.load(recipe(*options).settings).student_train
    random = np.random.default_rng(0)
    indices, views = random.integers(0, 1437, 1000), random.integers(0, 9, 1000)
    with torch.inference_mode():
        live = network(viewed.batch(np.stack([indices, views], axis=1))[0]).numpy()
    stored, exact = cache.logits(indices, views).astype(np.float32), full.logits(indices, views)
    assert np.array_equal(stored, exact.astype(np.float16).astype(np.float32))
    half_a_unit = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float32) / 2
    arithmetic = np.abs(exact - live)  # other batches, other order of sums
    assert arithmetic.max() < 1e-4
    assert (np.abs(stored - live) <= half_a_unit + arithmetic).all()


def test_another_question_is_another_file(tmp_path: Path) -> None:
    paths = {
        build_cache(tmp_path, *options).path
        for options in [
            (),
            ("teacher.seed=1",),
            VIEWS,
            (*VIEWS, "views.seed=1"),
            ('cache.precision="bfloat16"',),
        ]
    }
    assert len(paths) == 5
    for path in paths:
        assert LogitCache.open(path).verify() == []


def test_how_it_is_run_is_no_part_of_the_question(tmp_path: Path) -> None:
    assert build_cache(tmp_path).path == build_cache(tmp_path, "cache.batch_size=7").path


def test_that_the_students_of_a_recipe_cannot_be_trained_is_said_before_the_pass_and_takes_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(tmp_path)
    plan = Plan.of(
        recipe("student.network={name='mlp', hiden=3}"), tmp_path / "runs", Store(tmp_path / "caches")
    )
    forget_what_was_said()
    cache_logits(plan, CPU, print)
    untrainable, err = "the recipe's own students cannot be trained: ", capsys.readouterr().err
    assert untrainable in err
    assert "unknown argument 'hiden'" in err.partition(untrainable)[2]
    forget_what_was_said()
    cache_logits(plan, CPU, print)  # found
    assert untrainable not in capsys.readouterr().err
    read, raw = list[int](), ArrayData.raw

    def counted(self: ArrayData, indices: NDArray[np.integer]) -> NDArray[Any]:
        read.append(len(indices))
        return raw(self, indices)

    monkeypatch.setattr(ArrayData, "raw", counted)
    require_trainable(Plan.of(recipe(), tmp_path / "runs"))
    assert sum(read) <= 1, f"{sum(read):,} samples were read, which of image files are decoded in each part"
