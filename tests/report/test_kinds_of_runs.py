"""Every kind of run has a page, and so have runs that are old, damaged, very large or very small."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.pipeline.config.recipe import overridden
from decant.pipeline.deploy.check import Checked
from decant.pipeline.report.output import make_report
from decant.pipeline.report.sections import exported, inspector
from decant.pipeline.report.subject import Subject, of_recipe, of_runs
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers.small import CPU
from tests.helpers.subjects import (
    FILES,
    OWN,
    Samples,
    all_views,
    ensemble,
    folder_of,
    forget,
    image_folder,
    images,
    made,
    mixup,
    noted,
    of_texts,
    regression,
    separate,
    transfer,
    unlabelled_transfer,
    write_images,
)


@dataclass(frozen=True)
class Kind:
    """What a page of a kind of run says and does not say."""

    make: Callable[[Path], Subject]
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


NOT_ALIKE = "Which classes the teacher confuses"


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
        mixup, ("Not searched for: the views mix samples",), (NOT_ALIKE, "likely label errors, the widest")
    ),
    "transfer": Kind(
        transfer,
        (NOT_ALIKE, "It was trained on other samples", "with the one view of each"),
        ("Where it learnt these",),
    ),
    "unlabelled transfer": Kind(
        unlabelled_transfer, ("Not searched for: the samples have no labels",), (NOT_ALIKE, "None found")
    ),
    "image folder": Kind(image_folder, (NOT_ALIKE, "If it was trained on these labels")),
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


def test_networks_that_were_measured_on_another_test_part_are_left_out(tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN)
    (path,) = subject.base.glob("*-labels-*/*/result.json")
    path.write_text(path.read_text("utf-8").replace('"test_sha256": "', '"test_sha256": "0'), "utf-8")
    again = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    assert [result.kind for result in again.results] == ["teacher", "distilled"]


def test_seeds_that_are_not_finished_are_said(tmp_path: Path) -> None:
    """By the recipe's report, by that of a folder of runs, and not by that of a seed that is named."""
    subject = made(tmp_path, *OWN, "student.seeds=2")
    recipe, base, store = subject.focus.recipe, subject.base, subject.store
    assert subject.unfinished == of_runs([base], store, CPU).unfinished == ()
    (students,), (labels,) = base.glob("student-*-kd-*"), base.glob("student-*-labels-*")
    (students / "seed-1/result.json").unlink()
    shutil.rmtree(labels / "seed-1")
    lines = (f"{students}: 1 of 2 seeds are finished", f"{labels}: 1 of 2 seeds are finished")
    forget(subject)
    again = of_recipe(recipe, base, store, CPU)
    assert set(again.unfinished) == set(of_runs([base], store, CPU).unfinished) == set(lines)
    assert of_runs([students / "seed-0"], store, CPU).unfinished == ()
    report = make_report(again, tmp_path / "out")
    assert report.as_json()["unfinished"] == list(again.unfinished)
    assert report.page is not None
    for text in (report.table.read_text("utf-8"), report.page.read_text("utf-8")):
        assert "1 of 2 seeds are finished." in text
    for seeds, finished in ((3, 1), (1, 1)):  # more or fewer than when they were trained
        given = overridden(recipe, [f"student.seeds={seeds}"])
        lines = tuple(f"{one}: {finished} of {seeds} seeds are finished" for one in (students, labels))
        assert of_recipe(given, base, store, CPU).unfinished == (lines if finished < seeds else ())
    (students / "seed-0/result.json").unlink()
    assert f"{students}: 0 of 2 seeds are finished" in of_recipe(recipe, base, store, CPU).unfinished


def test_a_network_is_reported_once_and_with_its_teacher_however_its_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = made(tmp_path, *OWN, "student.seeds=2")
    (students,), store = subject.base.glob("student-*-kd-*"), subject.store
    (students / "seed-2").mkdir()
    shutil.copy(students / "seed-0" / RECIPE, students / "seed-2" / RECIPE)
    monkeypatch.chdir(students)
    whole, seeds = Path("."), [Path("seed-0"), students / "seed-1"]
    for given in ([whole], [whole, students], [seeds[0], students], seeds, [*seeds, *seeds]):
        found = of_runs(given, store, CPU)
        assert [len(row.by_seed) for row in found.rows] == [1, 2, 2], given
        assert make_report(found, tmp_path / "out").missing == ()
        lines = (f"{students}: 2 of 3 seeds are finished",)
        assert found.unfinished == (() if given[0] == seeds[0] and students not in given else lines), given


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


@pytest.mark.parametrize("data", ["one_class", "one_sample"])
def test_data_as_small_as_can_be_have_a_page(data: str, tmp_path: Path) -> None:
    subject = made(tmp_path, *OWN, f"data.name={__name__}:{data}")
    assert make_report(subject, tmp_path / "out").missing == ()


def one_class(root: str, split: str) -> list[tuple[NDArray[Any], int]]:
    """To measure on; with one to train on there would be nothing to learn."""
    return [(pixels, label % 2 if split == "train" else 0) for pixels, label in images(root, split)]


def one_sample(root: str, split: str) -> Samples:
    """To measure on, and one of each of two classes to train on."""
    return Samples(images(root, split)[: 2 if split == "train" else 1])
