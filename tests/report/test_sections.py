"""Every figure of a page's sections against another way of getting it, and pages of all kinds of runs."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix, recall_score

from decant.cache import Ensemble, LogitCache, Store
from decant.cache.statistics import calibration_error
from decant.pipeline.config.recipe import Recipe, load
from decant.pipeline.config.settings import Settings, ViewsSettings
from decant.pipeline.config.tasks import FIGURES
from decant.pipeline.deploy.check import Checked
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.cache_logits import SampleSeconds, cache_logits
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.report import history, shown
from decant.pipeline.report.chosen import judge
from decant.pipeline.report.making import make_report
from decant.pipeline.report.page import Section
from decant.pipeline.report.sections import cached, classes, cost, exported, inspector, quality
from decant.pipeline.report.sections.curves import points
from decant.pipeline.report.subject import Subject, of_recipe, of_runs
from decant.pipeline.runs.notes import Pass, remember_pass
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loop import METRICS
from decant.pipeline.views import ViewedData
from tests.helpers import texts
from tests.helpers.small import CPU
from tests.report.test_chosen import answers, build

Array = NDArray[np.float64]
TOP1 = FIGURES["classification"][0]


class Samples(list[tuple[NDArray[Any], Any]]):
    """(input, label) with names of the classes; two are called alike, as are two of ImageNet's."""

    classes = ("red", "crane", "crane")


def images(root: str, split: str) -> Samples:
    """8 × 8 pixels of noise, of a colour that says the class; 36 to train on, 18 to test on."""
    random = np.random.default_rng(len(split))
    labels = np.arange(36 if split == "train" else 18) % 3
    pixels = random.integers(0, 150, (len(labels), 3, 8, 8))
    pixels[np.arange(len(labels)), labels] += 60
    return Samples(zip(pixels.astype(np.uint8), labels.tolist(), strict=True))


def half_known(root: str, split: str) -> Samples:
    """The same, where in the test part every other label is unknown, and the last class never comes up."""
    found = images(root, split)
    if split == "train":
        return found
    return Samples(
        [(pixels, None if place % 2 or label == 2 else label) for place, (pixels, label) in enumerate(found)]
    )


def unknown(root: str, split: str) -> Samples:
    """The same, with no label in the test part."""
    found = images(root, split)
    return found if split == "train" else Samples([(pixels, None) for pixels, _ in found])


OWN = (
    f"data.name={__name__}:images",
    "teacher.network={name='mlp', hidden=8, layers=1}",
    "student.network=linear",
)
SHORT = ("teacher.epochs=2", "student.epochs=2", "student.seeds=1")
VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


def made(folder: Path, *words: str, name: str = "digits") -> Subject:
    """Every phase of a recipe, and what a page of it is of."""
    recipe, store = load(name, [*SHORT, *words]), Store(folder / "caches")
    for one in recipe.by_teacher if recipe.settings.cache.from_ is None else ():
        make_teacher(one, folder / "runs", CPU)
        cache_logits(one, folder / "runs", store, CPU, print)
    list(train_students(recipe, folder / "runs", store, CPU))
    return of_recipe(recipe, folder / "runs", store, CPU)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Students of images through two views, with layers that are another in training, beside some on labels alone."""
    student = "student.network={name='conv', width=2}"
    return made(tmp_path_factory.mktemp("sections"), *OWN, *VIEWS, student, "student.seeds=2")


# history


def noted(folder: Path, lines: Sequence[Any], torn: str = "") -> Any:
    """Something whose folder holds these lines of metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + torn, "utf-8")
    return type("Run", (), {"folder": folder})()


LOSS = next(one for one in history.quantities(TOP1) if one.key == "loss")


def test_a_curve_is_mean_lowest_and_highest_of_the_seeds_where_all_have_it(tmp_path: Path) -> None:
    losses = {0: [3.0, 2.0, 1.0, 0.5], 1: [5.0, 1.0, 4.0], 2: [1.0, 6.0, 1.0, 0.1]}
    runs = [
        noted(tmp_path / str(seed), [{"epoch": place + 1, "loss": loss} for place, loss in enumerate(some)])
        for seed, some in losses.items()
    ]
    found = history.curve(runs, LOSS)
    assert found == history.Curve((1, 2, 3), (3.0, 3.0, 2.0), (1.0, 1.0, 1.0), (5.0, 6.0, 4.0))


@pytest.mark.parametrize("count", [1, 2, 3, 999, 1000])
def test_a_curve_that_is_thinned_keeps_its_first_and_last_epoch(count: int) -> None:
    epochs = tuple(range(1, count + 1))
    values = tuple(map(float, epochs))
    thinned = list(history.Curve(epochs, values, values, values).thinned(10))
    assert len(thinned) == min(count, 10)
    assert thinned[0][0] == 1
    assert thinned[-1][0] == count
    steps = np.diff([epoch for epoch, *_ in thinned])
    assert np.ptp(steps) <= 1 if len(steps) else count == 1
    assert all(epoch == mean == low == high for epoch, mean, low, high in thinned)
    rounded = history.Curve((1,), (1 / 3,), (1e-9 / 3,), (123456.789,))
    (point,) = points({0: rounded}, 1)
    assert point == {"network": 0, "epoch": 1, "mean": 0.333333, "low": 3.33333e-10, "high": 123457.0}
    assert len(points({0: history.Curve(epochs, values, values, values)}, 0)) == min(count, 2)


def test_a_run_without_metrics_has_no_curve(tmp_path: Path) -> None:
    run = noted(tmp_path, [])
    assert history.curve([run], LOSS) is None
    (tmp_path / METRICS).unlink()
    assert history.history(tmp_path) == []
    assert history.curve([run], LOSS) is None


@pytest.mark.parametrize(
    "torn",
    ['{"epoch": 3, "lo', '{"epoch": 3\n{"epoch": 4}\n', "{", "null\n", "[3]\n", '{"loss": 1.0}\n', "\n"],
)
def test_a_line_that_is_not_whole_ends_what_is_known_of_a_run(torn: str, tmp_path: Path) -> None:
    lines = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    noted(tmp_path, lines, torn)
    assert history.history(tmp_path) == lines


def test_epochs_whose_loss_is_no_number_are_left_out(tmp_path: Path) -> None:
    losses = [3.0, float("inf"), 2.0, float("nan"), None]
    run = noted(tmp_path, [{"epoch": place + 1, "loss": loss} for place, loss in enumerate(losses)])
    assert history.curve([run], LOSS) == history.Curve((1, 3), *([(3.0, 2.0)] * 3))


# cached


def views_of(cache: LogitCache, temperature: float) -> torch.Tensor:
    """(V, N, C) softmaxes in float64."""
    logits = np.stack([cache.logits(slice(None), view) for view in range(cache.num_views)])
    return (torch.from_numpy(logits.astype(np.float64)) / temperature).softmax(-1)


def some_labels(samples: int = 60) -> NDArray[np.int64]:
    """Of which every seventh is none, and class 4 never comes up."""
    labels = np.arange(samples) % 5
    labels[(labels == 4) | (np.arange(samples) % 7 == 0)] = -1
    return labels


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_labels_are_as_sure_spread_and_alike_as_torch_says(
    temperature: float, dtype: str, tmp_path: Path
) -> None:
    labels = some_labels()
    cache = build(tmp_path / "a.h5", answers(60, 3), labels, dtype)
    found, expected = cached.soft_labels(cache, temperature), views_of(cache, temperature)
    entropy = torch.distributions.Categorical(probs=expected.reshape(-1, 5)).entropy()
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.confidence, expected.reshape(-1, 5).amax(1), rtol=1e-5)
    for label in range(5):
        if label == 4:
            assert np.isnan(found.by_label[label]).all()
        else:
            mean = expected[:, labels == label].mean((0, 1))
            np.testing.assert_allclose(found.by_label[label], mean, rtol=1e-5)


def test_of_many_rows_some_at_even_distances_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build(tmp_path / "a.h5", answers(60, 3), some_labels())
    monkeypatch.setattr(cached, "MAX_ROWS", 40)
    found, every = cached.soft_labels(cache, 1.0), views_of(cache, 1.0).reshape(180, 5)
    rows = [int(179 * place / 39) for place in range(40)]
    np.testing.assert_allclose(found.confidence, every[rows].amax(1), rtol=1e-5)
    labels = np.tile(some_labels(), 3)[rows]
    for label in range(4):
        np.testing.assert_allclose(found.by_label[label], every[rows][labels == label].mean(0), rtol=1e-5)


def test_of_teachers_that_are_kept_apart_the_mean_is_described(tmp_path: Path) -> None:
    members = [
        build(tmp_path / f"{one}.h5", answers(60, 2, one), some_labels(), teacher=str(one)) for one in (0, 1)
    ]
    found = cached.soft_labels(Ensemble(members, "separate"), 2.0)
    mean = sum(views_of(member, 2.0) for member in members).reshape(-1, 5) / 2
    np.testing.assert_allclose(found.entropy, scipy.stats.entropy(mean, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.confidence, mean.amax(1), rtol=1e-5)


def test_the_bins_of_a_chart_hold_every_row_once(tmp_path: Path) -> None:
    values = np.float32([0, 0.5, 0.5, 1 / 30, 1.0, 1.0000001])
    records = cached._bins([values], ["T = 1"], 1.0)
    assert sum(record["share"] for record in records[:-1]) == pytest.approx(100)
    for low, share in ((0.0, 100 / 6), (0.5, 200 / 6), (29 / 30, 200 / 6)):
        (bin_,) = (record for record in records[:-1] if record["low"] == pytest.approx(low))
        assert bin_["share"] == pytest.approx(share), low


def test_of_too_many_classes_no_square_is_made(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quality.quality(subject).content
    monkeypatch.setattr(classes, "MAX_SQUARE", 2)
    assert cached.soft_labels(subject.cache, 1.0).by_label is None
    section = cached.cached(subject)
    assert section.content["unlike"] == "there are more than 2 classes"
    assert set(section.charts) == {"confidence", "entropy"}
    section = quality.quality(subject)
    assert set(section.charts) == {"reliability", "gains"}
    for same in ("errors", "samples", "changed"):
        assert section.content[same] == whole[same]
    assert sorted(section.content["by_class"]) == sorted(whole["by_class"])
    monkeypatch.setattr(classes, "MAX_CLASSES", 1)
    section = quality.quality(subject)
    ((name, *_),) = section.content["by_class"]
    assert {one["class"] for one in records(section, "gains")} == {name}
    assert section.content["listed"] == " The 1 of 3 classes that changed most."


# quality


def outputs(
    samples: int = 400, classes: int = 4, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (N, C) that are often right, and labels of which the last class never comes up."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 1, samples)
    logits = random.normal(size=(samples, classes)).astype(np.float32)
    logits[np.arange(samples), labels] += 1.5
    return logits, labels


def test_confusion_and_accuracy_by_class_are_those_of_scikit_learn() -> None:
    logits, labels = outputs()
    every = list(range(4))
    assert np.array_equal(
        quality.confusion(logits, labels), confusion_matrix(labels, logits.argmax(1), labels=every)
    )
    found = quality.by_class(logits, labels)
    recall = recall_score(labels, logits.argmax(1), labels=every, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found, recall)
    assert np.isnan(found[3])


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_gaps_of_the_reliability_diagram_add_up_to_the_calibration_error(scale: float) -> None:
    logits, labels = outputs()
    logits *= scale
    found = quality.reliability(logits, labels)
    gaps = sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in found) / len(labels)
    shares = torch.from_numpy(logits).softmax(1).numpy()
    right = (logits.argmax(1) == labels).astype(np.float64)
    assert gaps == pytest.approx(calibration_error(shares.max(1), right), rel=1e-5)
    assert sum(one["count"] for one in found) == len(labels)
    assert sum(one["count"] * one["accuracy"] for one in found) == pytest.approx(right.sum())


def test_the_table_says_what_the_results_say(subject: Subject) -> None:
    section = quality.quality(subject)
    assert [which for which, *_ in section.content["errors"]] == ["teacher", "labels only", "student"]
    for (_, wrong, top1, ece), result in zip(
        section.content["errors"], subject.compared.values(), strict=True
    ):
        assert top1 == f"{100 * result.metrics['top1']:.2f} %"
        assert ece == f"{100 * result.metrics['ece']:.2f} %"
        assert int(wrong) == round(18 * (1 - result.metrics["top1"]))


def test_a_test_part_may_be_labelled_in_part(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN, f"data.name={__name__}:half_known")
    section = quality.quality(subject)
    assert section.content["samples"] == 6
    assert [row[0] for row in section.content["by_class"]] == ["red", "crane (1)", "crane (2)"]
    assert set(section.content["by_class"][2][1:]) == {"–"}
    assert section.content["changed"].startswith(" The 2 of 3 classes that changed most.")
    shown_rows = {record["row"] for record in records(section, "confusion0")}
    assert shown_rows == {"red", "crane (1)"}, "a label without samples has no shares"
    student = subject.test_logits(subject.focus.result).argmax(1)
    labels = subject.parts.test.data.labels
    assert section.content["errors"][-1][1] == str(int((student != labels)[labels >= 0].sum()))


def test_without_labels_on_the_test_part_that_is_said(tmp_path: Path) -> None:
    section = quality.quality(made(tmp_path, *OWN, f"data.name={__name__}:unknown"))
    assert section.missing == "the test part has no labels"


def records(section: Section, chart: str) -> list[dict[str, Any]]:
    """What a chart draws."""
    spec = section.charts[chart].to_dict()
    found = spec.get("data") or spec["layer"][-1]["data"]
    return list(found["values"])


def test_gains_by_class_are_differences_of_accuracy(subject: Subject) -> None:
    labels = subject.parts.test.data.labels
    right = {
        which: np.array(
            [(subject.test_logits(result).argmax(1) == labels)[labels == one].mean() for one in range(3)]
        )
        for which, result in subject.compared.items()
    }
    found = {
        (one["class"], one["series"]): one["value"] for one in records(quality.quality(subject), "gains")
    }
    assert len(found) == 6
    for other in ("teacher", "labels only"):
        for label, name in enumerate(subject.classes):
            expected = 100 * (right["student"] - right[other])[label]
            assert found[name, f"student − {other}"] == pytest.approx(expected)


def test_of_many_classes_the_most_confused_and_the_most_changed_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classes, "MAX_CLASSES", 2)
    labels = np.repeat(np.arange(5), 4)
    teacher, student = np.eye(5, dtype=np.float32)[labels], np.eye(5, dtype=np.float32)[labels]
    teacher[[0, 1]] = np.eye(5)[1]  # the teacher takes two of class 0 for class 1
    student[[16]] = np.eye(5)[2]  # the student one of class 4 for class 2
    teacher[[16]] = np.eye(5)[2]
    names = tuple("abcde")
    section = quality._classification("quality", "", {"teacher": teacher, "student": student}, labels, names)
    assert {one["row"] for one in records(section, "confusion0")} == {"a", "b"}
    assert section.content["note"] == " The 2 of 5 classes that are confused most."
    gains = records(section, "gains")
    assert (gains[0]["class"], gains[0]["value"]) == ("a", 50.0)
    assert section.content["changed"] == (
        " The 2 of 5 classes that changed most. Half of the labels have 4 test samples or fewer; one of 4 is 25 points."
    )


def test_the_classes_of_a_square_are_those_of_the_largest_confusions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class that is confused a little with all others is not among them, though its row sums to more."""
    shares = np.eye(9)
    shares[0, 1:] = shares[1:, 0] = 0.1
    shares[3, 7], shares[8, 4], shares[5, 5], shares[2] = 0.6, 0.5, 0.9, np.nan
    for count, expected in ((4, [3, 4, 7, 8]), (2, [3, 7]), (9, list(range(9))), (50, list(range(9)))):
        monkeypatch.setattr(classes, "MAX_CLASSES", count)
        assert classes.most_confused(shares) == expected
    monkeypatch.setattr(classes, "MAX_CLASSES", 5)
    assert classes.most_confused(np.eye(9)) == list(range(5)), "where nothing is confused"
    assert classes.most_confused(np.ones((1, 1))) == [0]


def test_a_network_that_diverged_is_shown_with_what_there_is(tmp_path: Path) -> None:
    """Its outputs are NaN, of which JSON and charts know nothing."""
    with np.errstate(invalid="ignore"):
        subject = made(tmp_path, *OWN, "student.lr=1e30", "student.optimizer=sgd", "student.baseline=false")
    assert np.isnan(subject.test_logits(subject.focus.result)).any()
    report = make_report(subject, tmp_path / "out")
    assert report.missing == (
        "Soft labels, one by one: the student's outputs are not numbers, as of a training that diverged",
    )
    section = quality.quality(subject)
    assert (
        section.content["without"] == "outputs that are not numbers, as of a training that diverged: student"
    )
    assert [which for which, *_ in section.content["errors"]] == ["teacher"]


# cost


EACH = SampleSeconds(loading=0.5, computing=2.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that takes two seconds for a sample, and half a second to read it."""
    monkeypatch.setattr(cost, "time_teacher", lambda *given: EACH)


def forget(subject: Subject) -> None:
    shutil.rmtree(subject.base / "passes", ignore_errors=True)


def note(subject: Subject, seconds: float, rows: int, taken_over: int = 0) -> None:
    remember_pass(subject.base, subject.cache.manifest.key, Pass(seconds, rows, taken_over, "abacus"))


@pytest.mark.usefixtures("clock")
def test_a_pass_that_was_noted_is_what_the_cache_cost(subject: Subject) -> None:
    note(subject, 100.0, 72)
    found = cost.teaching(subject)
    assert found.pass_seconds == 100
    assert found.how_known == "as it was noted when the cache was made"
    assert (found.epoch_seconds, found.epochs, found.students) == (36 * 2.0, 2, 2)
    assert found.live_seconds == 144
    assert found.pays_after == 1


@pytest.mark.usefixtures("clock")
def test_of_a_pass_that_went_on_with_another_s_work_the_rest_is_worked_out(subject: Subject) -> None:
    note(subject, 100.0, 18, taken_over=1)
    found = cost.teaching(subject)
    assert found.pass_seconds == 400
    assert found.how_known == "by the rows whose time was noted, as that call found others there already"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("rows", [None, 0])
def test_a_pass_that_nobody_noted_is_estimated(subject: Subject, rows: int | None) -> None:
    forget(subject)
    if rows is not None:
        note(subject, 1.0, rows)
    found = cost.teaching(subject)
    assert found.pass_seconds == 72 * 2.5
    assert "a few batches" in found.how_known
    assert found.pays_after == 2, "180 seconds against 144 a student"


@pytest.mark.usefixtures("clock")
def test_workers_share_the_reading_as_in_the_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(subject)
    monkeypatch.setattr(cost, "default_workers", lambda lazy: 5)
    assert cost.teaching(subject).pass_seconds == pytest.approx(72 * (0.1 + 2.0))


@pytest.mark.usefixtures("clock")
def test_what_was_saved_is_counted_over_each_student_s_own_epochs(tmp_path: Path) -> None:
    made(tmp_path, *OWN, "student.seeds=2")
    subject = made(tmp_path, *OWN, "student.epochs=5")
    note(subject, 100.0, 36)
    found = cost.teaching(subject)
    assert (found.epochs, found.students, found.epochs_learnt) == (5, 3, 2 + 2 + 5)
    section = cost.cost(subject)
    assert "over the 3 students of this page it saved 9.1 min" in section.content["answer"]  # 9 · 72 − 100 s
    lines = {(one["series"], one["x"]): one["y"] for one in records(section, "teaching")}
    assert lines["a live teacher", 3] == 3 * 5 * 72
    assert lines["with the cache", 3] == 100
    assert "for each student of 5 epochs" in section.content["answer"]
    assert "for each student of one epoch," in cost._answer(replace(found, epochs=1), "abacus")


def test_the_phases_are_those_of_the_results(subject: Subject) -> None:
    (teacher, passed, alone, student) = cost.cost(subject).content["phases"]
    assert [row[1] for row in (teacher, passed, alone, student)] == ["1", "1", "2", "2"]
    assert passed[0] == "teacher's pass, into the cache"
    taken = sum(result.seconds for result in subject.results if result.kind == "distilled")
    assert student[3] == cost.seconds(taken)


def test_without_the_teacher_beside_it_a_given_cache_says_so(subject: Subject, tmp_path: Path) -> None:
    given = made(tmp_path, *OWN, *VIEWS, f"cache.from={str(subject.cache.path)!r}")
    assert [result.kind for result in given.results] == ["labels", "distilled"]
    section = cost.cost(given)
    assert f"the teacher whose logits {subject.cache.path} holds is not here" in section.content["problem"]
    assert len(section.content["phases"]) == 2
    report = make_report(given, tmp_path / "out")
    assert report.missing == ()
    assert "What a live teacher would cost is not known" in report.page.read_text("utf-8")


@pytest.mark.usefixtures("clock")
def test_one_teacher_that_lies_there_twice_is_one(subject: Subject, tmp_path: Path) -> None:
    other = shutil.copytree(subject.base, tmp_path / "runs")
    both = of_runs([subject.base, other], subject.store, CPU)
    assert [result.kind for result in both.results].count("teacher") == 2
    assert cost.teaching(both).epoch_seconds == 72


# shown


def viewed(inputs: NDArray[Any], *operations: dict[str, Any], count: int = 1) -> ViewedData:
    from decant.pipeline.data.samples import ArrayData

    data = ArrayData("own", "train", inputs, np.zeros(len(inputs), np.int64), ("one",))
    return ViewedData(data, ViewsSettings(count=count, augment=operations))  # type: ignore[arg-type]


OTHER = load("digits").settings


def pixels(address: str) -> NDArray[np.uint8]:
    """(H, W, 3) of the image in an address."""
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_small_images_are_shown_to_the_pixel(channels: int) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (5, channels, 9, 31)).astype(np.uint8)
    data = viewed(inputs, {"op": "pad-crop", "padding": 2}, count=3)
    found = shown.shown_of(data, OTHER)
    assert found.size == (31, 9)
    whole = pixels(found.sample(4, 3)["image"])
    assert whole.shape == (9, 3 * 31, 3)
    for view in range(3):
        seen = data[4, view][0].numpy()
        expected = seen if channels == 3 else np.repeat(seen[:1], 3, axis=0)
        assert np.array_equal(whole[:, 31 * view : 31 * (view + 1)], expected.transpose(1, 2, 0)), view


@pytest.mark.parametrize(
    ("shape", "size"), [((200, 100), (48, 96)), ((64, 96), (96, 64)), ((2, 500), (96, 1))]
)
def test_large_images_are_shown_smaller_and_alike(shape: tuple[int, int], size: tuple[int, int]) -> None:
    height, width = shape
    inputs = np.zeros((1, 3, height, width), np.uint8)
    inputs[0, 0] = np.linspace(0, 255, width)
    found = shown.shown_of(viewed(inputs), OTHER)
    assert found.size == size
    whole = pixels(found.sample(0, 1)["image"]).astype(int)
    assert whole.shape == (size[1], size[0], 3)
    places = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    assert np.abs(whole[:, :, 0] - inputs[0, 0, 0, places]).mean() < 6
    assert whole[..., 2].mean() < 12


def test_numbers_are_shown_as_numbers() -> None:
    inputs = np.arange(200, dtype=np.float32).reshape(2, 100) / 8
    found = shown.shown_of(viewed(inputs), OTHER)
    assert not found.are_images
    text = found.sample(1, 1)["text"]
    numbers, _, more = text.partition(" … ")
    assert [float(number) for number in numbers.split()] == pytest.approx(inputs[1, :64].tolist(), rel=1e-3)
    assert more == "(100 numbers)"


def write_images(root: Path, *names: str) -> Path:
    for part in ("train", "test"):
        for place, name in enumerate(names):
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (80 * (place % 3), 40, 7 * place)).save(path, "PNG")
    return root


FILES = ("cat/b.png", "cat/a.png", "dog/1.png", "cat/more/c.png", "dog/=2.png")


def folder_of(root: Path, *words: str) -> Recipe:
    here = ("data.name=imagefolder", f"data.root={str(root)!r}", "data.pack=never")
    return load("digits", [*SHORT, *here, "teacher.network=linear", "student.network=linear", *words])


def test_the_files_of_an_image_folder_are_those_of_its_samples(tmp_path: Path) -> None:
    from decant.pipeline.phases.datasets import Parts

    settings = folder_of(write_images(tmp_path, *FILES)).settings
    parts = Parts.load(settings)
    for part, data in (("train", parts.train), ("test", parts.test)):
        found = shown.shown_of(data, settings)
        for index in range(5):
            path = Path(found.file(index))
            assert path.is_relative_to(tmp_path / part)
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(image).transpose(2, 0, 1), data[index][0].numpy()), index
            assert found.sample(index, 1)["file"] == str(path)
    transfer = folder_of(tmp_path, "data.transfer.share=0.4").settings
    found = shown.shown_of(Parts.load(transfer).train, transfer)
    assert found.file(0) == ""
    assert "file" not in found.sample(0, 1)


# inspector


def decoded(text: str, classes: int) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, classes)


def test_the_inspector_has_the_cached_logits_and_the_student_s_own_outputs(subject: Subject) -> None:
    section = inspector.inspector(subject)
    network = load_network(subject.focus.result).eval()
    assert section.data["views"] == 2
    assert section.content["labels"] == list(enumerate(subject.classes))
    assert sorted(sample["index"] for sample in section.data["samples"]) == list(range(36))
    for sample in section.data["samples"]:
        index = sample["index"]
        keys = [(index, view) for view in range(2)]
        inputs, _ = subject.parts.train.batch(keys)
        with torch.inference_mode():
            answer = network(inputs).numpy()
        teacher = np.stack([subject.cache.logits(index, view) for view in range(2)])
        assert np.array_equal(decoded(sample["teacherOutputs"], 3), teacher)
        np.testing.assert_allclose(decoded(sample["studentOutputs"], 3), answer, rtol=1e-5, atol=1e-6)
        shares = torch.from_numpy(teacher.astype(np.float64)).softmax(1).numpy()
        assert sample["label"] == subject.parts.train.data.labels[index]
        assert sample["answer"] == shares.mean(0).argmax()
        assert sample["viewAnswer"] == teacher[0].argmax()
        assert sample["student"] == answer[0].argmax()
        assert sample["entropy"] == pytest.approx(scipy.stats.entropy(shares, axis=1).mean(), abs=2e-5)
        assert sample["labelShare"] == pytest.approx(shares[:, sample["label"]].mean(), abs=2e-5)
        student = torch.from_numpy(answer.astype(np.float64)).softmax(1).numpy()
        distance = scipy.spatial.distance.jensenshannon(student[0], shares[0]) ** 2
        assert sample["differs"] == pytest.approx(distance, abs=2e-5)


def test_samples_are_shown_until_their_bytes_are_spent(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspector.inspector(subject).data["samples"]
    for limit in (1, 5_000):
        monkeypatch.setattr(inspector, "MAX_BYTES", limit)
        some = inspector.inspector(subject).data["samples"]
        assert some == whole[: len(some)]
        assert 1 <= len(some) < 36
        size = sum(len(value) for sample in some for value in sample.values() if isinstance(value, str))
        assert size <= limit or len(some) == 1


def test_the_student_is_asked_about_a_pool_in_batches(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {one["index"]: one for one in inspector.inspector(subject).data["samples"]}
    monkeypatch.setattr(inspector, "_BATCH", 7)
    monkeypatch.setattr(inspector, "MAX_POOL", 20)
    monkeypatch.setattr(inspector, "MAX_SAMPLES", 12)
    section = inspector.inspector(subject)
    assert "was asked about view 0 of 20 of them, at even distances" in section.content["rule"]
    differing = [one["index"] for one in section.data["samples"] if one["reason"] == "differ"]
    pool = inspector.spread(36, 20).tolist()
    assert len(differing) >= 2
    assert set(differing) <= set(pool)
    by_distance = sorted(pool, key=lambda index: -whole[index]["differs"])
    taken = {one["index"] for one in section.data["samples"] if one["reason"] != "differ"}
    assert differing == [index for index in by_distance if index not in taken][: len(differing)]


def test_of_many_outputs_fewer_views_are_shown_and_that_is_said(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "MAX_OUTPUTS", 5)
    section = inspector.inspector(subject)
    assert section.data["views"] == 1
    assert "with the first of 2 views of each" in section.content["rule"]
    assert decoded(section.data["samples"][0]["teacherOutputs"], 3).shape == (1, 3)


@pytest.mark.parametrize(
    ("values", "says"), [(10**9, "by the mean of 2 views"), (1, "by the first of 2 views")]
)
def test_by_how_many_views_the_teacher_was_judged_is_said(
    subject: Subject, values: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decant.pipeline.report.chosen.MAX_VALUES", values)
    assert says in inspector.inspector(subject).content["rule"]


def test_without_labels_and_where_views_mix_samples_none_is_doubted(tmp_path: Path) -> None:
    unlabelled = inspector.inspector(unlabelled_transfer(tmp_path / "unlabelled"))
    assert unlabelled.content["labels"] == []
    sure = ("teacher.network=linear", "teacher.epochs=40", "teacher.lr=0.05")
    subject = made(tmp_path, *OWN, *sure, "views.count=2", 'views.augment=[{op="mixup", alpha=1.0}]')
    assert len(judge(subject.cache).label_errors), "the rule alone would doubt them"
    section = inspector.inspector(subject)
    assert (section.content["errors_found"], section.content["csv"]) == (0, None)
    assert section.content["labels"] == list(enumerate(subject.classes))
    assert not any(sample["doubtful"] or sample["reason"] == "label" for sample in section.data["samples"])


ODD = ('say "x", y', "two\nlines", "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1", "\n=1", "plain", "é日")


def test_the_csv_file_has_each_row_and_no_formula() -> None:
    rows = [{"index": place, "label": name, "probability": 0.5} for place, name in enumerate(ODD)]
    address = inspector._csv_address(rows)
    assert address is not None
    assert not set(address) & set(' "<>\n')
    found = list(csv.DictReader(io.StringIO(unquote(address.partition(",")[2]), newline="")))
    assert [row["index"] for row in found] == [str(place) for place in range(len(ODD))]
    for row, name in zip(found, ODD, strict=True):
        assert row["label"] == (name if name in (ODD[0], ODD[1], "plain", "é日") else f"'{name}")
        assert row["label"][0] not in "=+-@\t\r\n"
    assert inspector._csv_address([]) is None


# The whole page


def regression(folder: Path) -> Subject:
    return made(folder, name="regression")


def of_texts(folder: Path) -> Subject:
    pytest.importorskip("transformers", reason="texts need an extra: pip install 'decant-kd[text]'")
    texts.write(folder, train=40, test=20)
    (folder / "tokenizer").mkdir()
    texts.train_tokenizer(folder / "tokenizer")
    small = "{name='bert', hidden=16, layers=1, heads=2, intermediate=32}"
    data = (
        f"data.root={str(folder)!r}",
        f"data.tokenizer={str(folder / 'tokenizer')!r}",
        "data.max_length=16",
    )
    still = ("teacher.warmup_epochs=0", "student.warmup_epochs=0")
    return made(folder, *data, *still, f"teacher.network={small}", f"student.network={small}", name="text")


def ensemble(folder: Path) -> Subject:
    paths = [str(made(folder, *OWN, f"teacher.seed={seed}").cache.path) for seed in (0, 1)]
    return made(folder, *OWN, f"cache.from={paths!r}")


def separate(folder: Path) -> Subject:
    two = (
        "knowledge.network=linear",
        "knowledge.epochs=2",
        "knowledge.warmup_epochs=0",
        "teacher.warmup_epochs=0",
    )
    return made(
        folder, *OWN, *two, "student.warmup_epochs=0", "views.count=1", "views.augment=[]", name="general"
    )


def mixup(folder: Path) -> Subject:
    return made(folder, *OWN, "views.count=2", 'views.augment=[{op="mixup"}]')


def transfer(folder: Path) -> Subject:
    return made(folder, *OWN, "data.transfer.share=0.5")


def unlabelled_transfer(folder: Path) -> Subject:
    return made(folder, *OWN, "data.transfer.share=0.5", "data.transfer.labels=false")


def image_folder(folder: Path) -> Subject:
    recipe = folder_of(write_images(folder / "images", *FILES))
    return made(folder, *recipe.options[1::2], name="digits")


def all_views(folder: Path) -> Subject:
    return made(folder, *OWN, "views.count=all", 'views.augment=[{op="pad-crop", padding=1}, {op="flip"}]')


@dataclass(frozen=True)
class Kind:
    """What a page of a kind of run says and does not say."""

    make: Callable[[Path], Subject]
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


NOT_ALIKE = "Which classes the teacher takes for alike"
KINDS = {
    "regression": Kind(
        regression,
        ("Outputs against the target, 89 test samples", "neither confidence nor entropy"),
        ("Likely label errors", "Confusion"),
        ("Soft labels, one by one: a regression has no soft labels of classes",),
    ),
    "texts": Kind(
        of_texts, ("from the cache", "Likely label errors", 'id="sample-text"'), ('id="sample-image"',)
    ),
    "ensemble": Kind(ensemble, ("Of 2 teachers the first is shown: mlp hidden=8 layers=1.",)),
    "separate": Kind(separate, ("Of 2 teachers the first is shown: mlp hidden=8 layers=1.",)),
    "mixup": Kind(
        mixup, ("Not looked for: the views mix samples",), (NOT_ALIKE, "likely label errors, the widest")
    ),
    "transfer": Kind(
        transfer,
        (NOT_ALIKE, "It learnt from other samples than these", "with the one view of each"),
        ("Where it learnt these",),
    ),
    "unlabelled transfer": Kind(
        unlabelled_transfer, ("Not looked for: the samples have no labels",), (NOT_ALIKE, "None found")
    ),
    "image folder": Kind(image_folder, (NOT_ALIKE, "Where it learnt these very labels")),
    "all views": Kind(all_views, ("with the first 16 of 18 views of each", "by the mean of 18 views")),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_run_has_a_page(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    subject = kind.make(tmp_path)
    report = make_report(subject, tmp_path / "out")
    assert report.missing == kind.missing
    text = report.page.read_text("utf-8")
    said = text[text.index("<main") : text.index('<script type="application/json"')]
    assert "not measured" not in said
    for words in kind.says:
        assert words in said, words
    for words in kind.never:
        assert words not in said, words
    assert len(set(subject.names)) == len(subject.rows)


@pytest.mark.usefixtures("clock")
def test_two_teachers_make_two_passes_and_both_would_be_asked_live(tmp_path: Path) -> None:
    subject = separate(tmp_path)
    assert [teacher.network.name for teacher in subject.teachers] == ["mlp", "linear"], "in their order"
    assert isinstance(subject.cache, Ensemble)
    for member, seconds in zip(subject.cache.caches, (30.0, 12.0), strict=True):
        remember_pass(subject.base, member.manifest.key, Pass(seconds, 36, 0, "abacus"))
    found = cost.teaching(subject)
    assert (found.pass_seconds, found.epoch_seconds) == (42, 36 * 2 * 2)
    phases = cost.cost(subject).content["phases"]
    assert phases[2] == ("teacher's pass, into the cache", "2", "21 s", "42 s")


def test_of_two_teachers_of_which_one_is_gone_the_cost_is_not_known(tmp_path: Path) -> None:
    subject = ensemble(tmp_path)
    assert cost.teaching(subject).pass_seconds > 0
    assert isinstance(subject.cache, Ensemble)
    shutil.rmtree(subject.teachers[1].folder)
    alone = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    with pytest.raises(NotMadeError, match=f"{subject.cache.caches[1].path} holds is not here"):
        cost.teaching(alone)


def test_a_run_of_an_older_version_has_a_page(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    for path in subject.base.glob("**/result.json"):
        content = json.loads(path.read_text("utf-8"))
        for name in (
            "latency_ms",
            "latency_on",
            "classes",
            "input_dtype",
            "teachers",
            "baseline",
            "objective",
        ):
            del content[name]
        path.write_text(json.dumps(content), "utf-8")
    for path in subject.base.glob("**/" + METRICS):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        noted(path.parent, [{name: line[name] for name in ("epoch", "loss", "seconds")} for line in lines])
    forget(subject)
    old = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    report = make_report(old, tmp_path / "out")
    assert report.missing == ()
    assert list(old.compared) == ["teacher", "student"], "nothing says which student was on labels alone"


def test_outputs_that_are_gone_or_damaged_are_worked_out_again(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    before = quality.quality(subject).content
    paths = sorted(subject.base.glob("**/test_logits.npy"))
    paths[0].unlink()
    paths[1].write_bytes(b"PK no array")
    np.save(paths[2], np.zeros((2, 3), np.float32))
    assert quality.quality(subject).content == before


def test_networks_that_were_measured_on_another_test_part_are_left_out(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    (path,) = subject.base.glob("*-labels-*/*/result.json")
    path.write_text(path.read_text("utf-8").replace('"test_sha256": "', '"test_sha256": "0'), "utf-8")
    again = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    assert [result.kind for result in again.results] == ["teacher", "distilled"]


def test_a_damaged_cache_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    path, row = subject.cache.path, subject.cache.logits([20])
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[content.index(row.tobytes())] ^= 1
    path.write_bytes(content)
    again = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    report = make_report(again, tmp_path / "out")
    assert [line.partition(":")[0] for line in report.missing] == [
        "What the cache holds",
        "Soft labels, one by one",
    ]
    assert all(f"{path}: view 0, block 0" in line for line in report.missing), report.missing


def test_names_of_files_need_not_be_text(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", *FILES)
    (root / "train/cat/a.png").rename(os.fsdecode(os.fsencode(root / "train/cat") + b"/\xe9.png"))
    subject = made(tmp_path, *folder_of(root).options[1::2])
    section = inspector.inspector(subject)
    assert section.content["files"]
    files = {sample["file"] for sample in section.data["samples"]}
    assert str(root / "train/cat/\ufffd.png") in files
    assert make_report(subject, tmp_path / "out").missing == ()


def with_objective(subject: Subject, content: dict[str, Any]) -> Subject:
    settings = subject.focus.recipe.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    settings["student"]["objective"] = content
    recipe = replace(subject.focus.recipe, settings=Settings.model_validate_json(json.dumps(settings)))
    return replace(subject, focus=replace(subject.focus, recipe=recipe))


@pytest.mark.parametrize(
    ("objective", "temperature"),
    [
        ({"name": "kd", "temperature": 3}, 3.0),
        ({"name": "kd", "temperature": {"from": 8.0, "to": 2.0}}, 2.0),
        ({"name": "mse"}, 1.0),
        ({"name": "own:loss", "temperature": 2.5}, 2.5),
        ({"name": "own:loss", "temperature": "hot"}, 1.0),
        ({"name": "own:loss", "temperature": 0}, 1.0),
    ],
)
def test_the_temperature_in_use_is_the_objective_s(
    subject: Subject, objective: dict[str, Any], temperature: float
) -> None:
    assert with_objective(subject, objective).temperature == temperature


def test_that_an_objective_standardizes_logits_is_said(subject: Subject) -> None:
    assert "z-scores" not in cached.cached(subject).content["note"]
    standardized = with_objective(subject, {"name": "kd", "standardize": True})
    assert "z-scores of the logits first" in cached._note(
        subject.cache, 72, cached._is_standardized(standardized)
    )


def test_exported_files_are_listed_and_what_is_no_summary_is_said(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN, "student.baseline=false")
    assert exported.exported(subject).content["tables"] == []
    summary = subject.focus.folder / "export/export.json"
    summary.parent.mkdir()
    network = Checked("network", "PyTorch", 12345, 0.0, 1.0, "top-1", 0.98765, 0.12345, 0.2, 18)
    whole = {"student": asdict(network), "formats": {"onnx": asdict(replace(network, name="onnx"))}}
    summary.write_text(json.dumps(whole))
    assert exported.exported(subject).content["tables"] == [
        (str(subject.focus.folder), [network.cells(), replace(network, name="onnx").cells()])
    ]
    for wrong in ("{", "[]", "{}", json.dumps({**whole, "formats": []})):
        summary.write_text(wrong)
        section = exported.exported(subject)
        assert section.content["tables"] == [], wrong
        assert str(summary) in section.content["problems"][0], wrong


class Thousand(Samples):
    classes = tuple(f"American egret, great white heron, {number:04}" for number in range(1000))


def thousand(root: str, split: str) -> Thousand:
    """A thousand classes, of which the test part has a few, and labels that are wrong as often as they are right."""
    random = np.random.default_rng(len(split))
    count = 1500 if split == "train" else 60
    labels = random.integers(0, 1000, count)
    pixels = random.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    return Thousand(zip(pixels, labels.tolist(), strict=True))


def test_a_page_of_a_thousand_classes_and_twelve_views_is_below_5_mb(tmp_path: Path) -> None:
    views = ("views.count=12", 'views.augment=[{op="pad-crop", padding=4}, {op="flip"}]')
    linear = ("teacher.network=linear", "teacher.epochs=1", "student.epochs=1", "student.baseline=false")
    subject = made(tmp_path, *OWN, f"data.name={__name__}:thousand", *views, *linear)
    report = make_report(subject, tmp_path / "out")
    assert report.missing == ()
    assert report.page.stat().st_size < 5e6
    assert "with the first 2 of 12 views of each" in report.page.read_text("utf-8")


def test_how_much_a_sample_counts_is_said_by_the_median_label() -> None:
    said = quality._grain(np.repeat([0, 1, 2], [40, 8, 3]))
    assert said == " Half of the labels have 8 test samples or fewer; one of 8 is 12.5 points."


@pytest.mark.parametrize("data", ["one_class", "one_sample"])
def test_data_as_small_as_can_be_have_a_page(data: str, tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN, f"data.name={__name__}:{data}")
    assert make_report(subject, tmp_path / "out").missing == ()


def one_class(root: str, split: str) -> list[tuple[NDArray[Any], int]]:
    return [(pixels, 0) for pixels, _ in images(root, split)]


def one_sample(root: str, split: str) -> Samples:
    return Samples(images(root, split)[1:2])


def second_known(root: str, split: str) -> list[tuple[NDArray[Any], list[float]]]:
    """Two targets, of which the test part knows the second alone."""
    inputs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    return [(row, [float("nan") if split == "test" else 1.0, float(row.sum())]) for row in inputs]


def test_outputs_of_a_regression_are_drawn_against_a_target_that_is_known(tmp_path: Path) -> None:
    subject = made(tmp_path, f"data.name={__name__}:second_known", name="regression")
    section = quality.quality(subject)
    assert section.content["target"] == "target 2 of 2"
    found = [one for one in records(section, "against") if one["series"] == "student"]
    targets = subject.parts.test.data.labels[:, 1]
    np.testing.assert_allclose([one["x"] for one in found], targets)
    np.testing.assert_allclose([one["y"] for one in found], subject.test_logits(subject.focus.result)[:, 1])
