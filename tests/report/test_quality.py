"""Where networks are right: each figure against another way of getting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, recall_score

from decant.cache.statistics.outputs import calibration_error
from decant.pipeline.phases import job
from decant.pipeline.report.output import make_report
from decant.pipeline.report.sections import confusion, quality
from decant.pipeline.report.subject import Subject
from decant.pipeline.training import learner
from tests.helpers.subjects import OWN, Samples, images, made, records


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
        confusion.matrix(logits, labels), confusion_matrix(labels, logits.argmax(1), labels=every)
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
    for (_, wrong, top1, balanced, f1, ece), result in zip(
        section.content["errors"], subject.compared.values(), strict=True
    ):
        assert top1 == f"{100 * result.metrics['top1']:.2f} %"
        assert ece == f"{100 * result.metrics['ece']:.2f} %"
        assert balanced == f"{100 * result.metrics['balanced_accuracy']:.2f} %"
        assert f1 == f"{100 * result.metrics['macro_f1']:.2f} %"
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
    labels = subject.splits.test.data.labels
    assert section.content["errors"][-1][1] == str(int((student != labels)[labels >= 0].sum()))


def test_without_labels_on_the_test_part_that_is_said(tmp_path: Path) -> None:
    section = quality.quality(made(tmp_path, *OWN, f"data.name={__name__}:unknown"))
    assert section.missing == "the test part has no labels"


def test_gains_by_class_are_differences_of_accuracy(subject: Subject) -> None:
    labels = subject.splits.test.data.labels
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
    monkeypatch.setattr(confusion, "MAX_CLASSES", 2)
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
        monkeypatch.setattr(confusion, "MAX_CLASSES", count)
        assert confusion.most_confused(shares) == expected
    monkeypatch.setattr(confusion, "MAX_CLASSES", 5)
    assert confusion.most_confused(np.eye(9)) == list(range(5)), "where nothing is confused"
    assert confusion.most_confused(np.ones((1, 1))) == [0]


def test_a_network_that_diverged_is_shown_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs are NaN, of which JSON and charts know nothing. Such a run is of a version that did not stop."""
    monkeypatch.setattr(learner, "require_finite", lambda *of_an_epoch: None)
    monkeypatch.setattr(job, "require_numbers", lambda *of_a_run: None)
    with np.errstate(invalid="ignore"):
        subject = made(tmp_path, *OWN, "student.lr=1e30", "student.optimizer=sgd", "student.baseline=false")
    assert np.isnan(subject.test_logits(subject.focus.result)).any()
    report = make_report(subject, tmp_path / "out")
    (missing,) = report.missing
    assert missing.startswith("Soft labels, one by one: ")
    assert missing.endswith("body.1.bias has NaN or infinity, which no finished network has")
    section = quality.quality(subject)
    assert (
        section.content["without"] == "outputs that are not numbers, as of a training that diverged: student"
    )
    assert [which for which, *_ in section.content["errors"]] == ["teacher"]


def test_outputs_that_are_gone_or_damaged_are_worked_out_again(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    before = quality.quality(subject).content
    paths = sorted(subject.base.glob("**/test_logits.npy"))
    paths[0].unlink()
    paths[1].write_bytes(b"PK no array")
    np.save(paths[2], np.zeros((2, 3), np.float32))
    assert quality.quality(subject).content == before


def test_how_much_a_sample_counts_is_said_by_the_median_label() -> None:
    said = quality._grain(np.repeat([0, 1, 2], [40, 8, 3]))
    assert said == " Half of the labels have 8 test samples or fewer; one of 8 is 12.5 points."


def second_known(root: str, split: str) -> list[tuple[NDArray[Any], list[float]]]:
    """Two targets, of which the test part knows the second alone."""
    inputs = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    return [(row, [float("nan") if split == "test" else 1.0, float(row.sum())]) for row in inputs]


def test_outputs_of_a_regression_are_drawn_against_a_target_that_is_known(tmp_path: Path) -> None:
    subject = made(tmp_path, f"data.name={__name__}:second_known", name="regression")
    section = quality.quality(subject)
    assert section.content["target"] == "target 2 of 2"
    found = [one for one in records(section, "against") if one["series"] == "student"]
    targets = subject.splits.test.data.labels[:, 1]
    np.testing.assert_allclose([one["x"] for one in found], targets)
    np.testing.assert_allclose([one["y"] for one in found], subject.test_logits(subject.focus.result)[:, 1])
