"""What a report is of, and what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from decant.cache import Store
from decant.pipeline.cli.report import _of_missing
from decant.pipeline.errors import DataError, NotMadeError
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.report.output import Report, make_report
from decant.pipeline.report.subject import of_recipe, of_runs
from decant.pipeline.report.tensorboard import write_events
from decant.pipeline.runs.result import find_results
from tests.helpers.commands import decant, refused, succeed, tiny
from tests.helpers.small import CPU, build_cache, recipe, students

HOT = "student.objective.temperature=9.0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and students at two temperatures."""
    folder = tmp_path_factory.mktemp("report")
    build_cache(folder)
    students(folder)
    students(folder, HOT)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    subject = of_recipe(recipe(), folder / "runs", Store(folder / "caches"), CPU)
    return make_report(subject, folder / "out")


def test_a_report_is_a_page_a_table_and_a_picture(report: Report, folder: Path) -> None:
    assert [path.name for path in report.files] == ["report.html", "report.md", "curves.png"]
    assert all(path.parent == folder / "out" for path in report.files)
    assert report.missing == ()
    with Image.open(report.curves or "") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.getcolors(1 << 20) or []) > 20


def test_the_page_holds_all_that_it_needs_and_names_no_address_to_fetch(report: Report) -> None:
    page = report.page.read_text("utf-8")
    assert report.page.stat().st_size < 5e6
    assert "default-src 'none'" in page
    for outside in ('src="http', 'href="http', "@import", "url(http"):
        assert outside not in page, outside


@pytest.mark.parametrize(("words", "temperature"), [((), 4.0), ((HOT,), 9.0)])
def test_a_recipe_is_looked_into_at_its_own_student(
    folder: Path, words: tuple[str, ...], temperature: float
) -> None:
    subject = of_recipe(recipe(*words), folder / "runs", Store(folder / "caches"), CPU)
    assert len(subject.rows) == 4
    assert subject.focus.result.objective is not None
    assert subject.focus.result.objective["temperature"] == temperature == subject.temperature


def test_settings_that_were_not_run_are_looked_into_at_the_nearest(folder: Path) -> None:
    other = recipe(HOT, "student.objective.alpha=0.5")
    subject = of_recipe(other, folder / "runs", Store(folder / "caches"), CPU)
    assert subject.temperature == 9.0
    assert subject.cache.manifest.key == subject.focus.result.cache


def test_a_run_brings_its_teacher_and_its_labels_only_twin(folder: Path) -> None:
    hot = (
        result
        for result in find_results(folder / "runs")
        if (result.objective or {}).get("temperature") == 9.0
    )
    run = next(hot).folder
    subject = of_runs([run], Store(folder / "caches"), CPU)
    assert sorted(result.kind for result in subject.results) == ["distilled", "labels", "teacher"]
    assert subject.focus.folder == run
    assert {name: result.kind for name, result in subject.compared.items()} == {
        "teacher": "teacher",
        "labels only": "labels",
        "student": "distilled",
    }


def test_a_folder_of_runs_is_all_of_them(folder: Path) -> None:
    assert len(of_runs([folder / "runs"], Store(folder / "caches"), CPU).results) == 4


def test_runs_of_other_test_data_are_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder / "runs", tmp_path / "runs")
    for path in other.glob("**/result.json"):
        path.write_text(path.read_text().replace('"test_sha256": "', '"test_sha256": "0'))
    with pytest.raises(DataError, match="another test part"):
        of_runs([folder / "runs", other], Store(folder / "caches"), CPU)


def test_with_nothing_finished_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match="run: decant teacher"):
        of_recipe(recipe(), tmp_path, Store(tmp_path), CPU)


def test_what_is_gone_is_said_and_the_rest_is_shown(folder: Path, tmp_path: Path) -> None:
    subject = of_recipe(recipe(), folder / "runs", Store(tmp_path / "empty"), CPU)
    made = make_report(subject, tmp_path / "out")
    assert [line.partition(":")[0] for line in made.missing] == [
        "What the cache holds",
        "Soft labels, one by one",
    ]
    assert all("run: decant cache-logits" in line for line in made.missing)
    assert "Where they are right" in made.page.read_text("utf-8")


def test_a_teacher_alone_has_a_page_too(tmp_path: Path) -> None:
    build_cache(tmp_path)
    made = make_report(
        of_recipe(recipe(), tmp_path / "runs", Store(tmp_path / "caches"), CPU), tmp_path / "out"
    )
    assert len(made.rows) == 1
    assert any("learnt from labels alone" in line for line in made.missing)


def test_seeds_that_were_measured_unlike_often_share_a_curve(tmp_path: Path) -> None:
    build_cache(tmp_path)
    store = Store(tmp_path / "caches")
    for words in (("student.evaluate_every=1",), ("student.evaluate_every=2", "student.seeds=2")):
        list(train_students(Plan.of(recipe(*words), tmp_path / "runs", store), CPU))
    assert (
        make_report(of_recipe(recipe(), tmp_path / "runs", store, CPU), tmp_path / "out").curves is not None
    )


def test_event_files_hold_every_number_of_every_epoch(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = list(find_results(folder / "runs"))
    for _ in range(2):  # a second time gives the same again, not twice as much
        folders = write_events(found)
    assert len(folders) == 4
    student = next(result for result in found if result.kind == "distilled")
    events = accumulator.EventAccumulator(str(student.folder / "tensorboard"))
    events.Reload()
    noted = [json.loads(line) for line in (student.folder / "metrics.jsonl").read_text().splitlines()]
    for tag, values in {
        "train/soft": [line["soft"] for line in noted],
        "train/lr": [line["lr"] for line in noted],
        "test/top1": [line["test"]["top1"] for line in noted if "test" in line],
    }.items():
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6), tag
    assert [event.step for event in events.Scalars("train/soft")] == [line["epoch"] for line in noted]


def test_the_command_takes_a_recipe_or_runs_and_answers_programs(tmp_path: Path) -> None:
    for phase in ("teacher", "cache-logits", "student"):
        succeed(tiny(phase, cwd=tmp_path))
    said = succeed(tiny("report", cwd=tmp_path))
    assert "made runs/digits/report.html, runs/digits/report.md, runs/digits/curves.png" in said
    assert (tmp_path / "runs/digits/report.html").as_uri() in said
    run = next((tmp_path / "runs/digits").glob("student-*-kd-*"))
    found = json.loads(succeed(decant("report", run, "--json", cwd=tmp_path)))
    assert found["files"] == [str(run / name) for name in ("report.html", "report.md", "curves.png")]
    assert [row["learnt_from"] for row in found["networks"]] == [
        "teacher",
        "labels",
        "kd (alpha 0.9, temperature 4)",
    ]
    result = json.loads((run / "seed-0/result.json").read_text())
    assert found["networks"][2]["by_seed"] == {"0": result["metrics"]["top1"]}
    message = refused(decant("report", run, "--recipe", "digits", cwd=tmp_path), code=2)
    assert "either RUNs or --recipe" in message
    assert "no such run" in refused(decant("report", "gone", cwd=tmp_path))


def test_parts_that_are_missing_for_one_reason_are_said_together() -> None:
    missing = [
        f"{part}: caches/a.h5: not built yet\nviews: expected 1, found 2" for part in ("Cache", "Soft labels")
    ]
    assert list(_of_missing([*missing, "Cost: no pass"], "not on the page")) == [
        "not on the page: Cache, Soft labels: caches/a.h5: not built yet",
        "  views: expected 1, found 2",
        "not on the page: Cost: no pass",
    ]
