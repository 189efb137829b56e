"""Soft labels one by one: what is shown of a sample is what the files hold of it."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.report.sections import inspector, sample_display
from decant.pipeline.report.sections.sample_choice import judge
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.terminal import one_line
from decant.pipeline.views import ViewedData
from tests.helpers.subjects import FILES, OWN, folder_of, made, unlabelled_transfer, write_images


def viewed(inputs: NDArray[Any], *operations: dict[str, Any], count: int = 1) -> ViewedData:
    from decant.pipeline.data.samples import ArrayData

    data = ArrayData("own", "train", inputs, np.zeros(len(inputs), np.int64), ("one",))
    return ViewedData(data, ViewsSettings(count=count, augment=operations))  # type: ignore[arg-type]


OTHER = load_recipe("digits").settings


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
    found = sample_display.shown_of(data, OTHER)
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
    found = sample_display.shown_of(viewed(inputs), OTHER)
    assert found.size == size
    whole = pixels(found.sample(0, 1)["image"]).astype(int)
    assert whole.shape == (size[1], size[0], 3)
    places = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    assert np.abs(whole[:, :, 0] - inputs[0, 0, 0, places]).mean() < 6
    assert whole[..., 2].mean() < 12


def test_numbers_are_shown_as_numbers() -> None:
    inputs = np.arange(200, dtype=np.float32).reshape(2, 100) / 8
    found = sample_display.shown_of(viewed(inputs), OTHER)
    assert not found.are_images
    text = found.sample(1, 1)["text"]
    numbers, _, more = text.partition(" … ")
    assert [float(number) for number in numbers.split()] == pytest.approx(inputs[1, :64].tolist(), rel=1e-3)
    assert more == "(100 numbers)"


def test_the_files_of_an_image_folder_are_those_of_its_samples(tmp_path: Path) -> None:
    from decant.pipeline.phases.datasets import Splits

    settings = folder_of(write_images(tmp_path, *FILES)).settings
    splits = Splits.load(settings)
    for part, data in (("train", splits.student_train), ("test", splits.test)):
        found = sample_display.shown_of(data, settings)
        for index in range(5):
            path = Path(found.file(index))
            assert path.is_relative_to(tmp_path / part)
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(image).transpose(2, 0, 1), data[index][0].numpy()), index
            assert found.sample(index, 1)["file"] == str(path)
    transfer = folder_of(tmp_path, "data.transfer.share=0.4").settings
    found = sample_display.shown_of(Splits.load(transfer).student_train, transfer)
    assert found.file(0) == ""
    assert "file" not in found.sample(0, 1)


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
        inputs, _ = subject.splits.student_train.batch(keys)
        with torch.inference_mode():
            answer = network(inputs).numpy()
        teacher = np.stack([subject.cache.logits(index, view) for view in range(2)])
        assert np.array_equal(decoded(sample["teacherOutputs"], 3), teacher)
        np.testing.assert_allclose(decoded(sample["studentOutputs"], 3), answer, rtol=1e-5, atol=1e-6)
        shares = torch.from_numpy(teacher.astype(np.float64)).softmax(1).numpy()
        assert sample["label"] == subject.splits.student_train.data.labels[index]
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
    assert "was run on view 0 of 20 of them, at even distances" in section.content["rule"]
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
    monkeypatch.setattr("decant.pipeline.report.sections.sample_choice.MAX_VALUES", values)
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
        shown = one_line(name)
        assert row["label"] == (shown if name in (ODD[0], ODD[1], "plain", "é日") else f"'{shown}")
        assert row["label"][0] not in "=+-@\t\r\n"
    assert inspector._csv_address([]) is None
