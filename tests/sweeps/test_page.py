"""The page of a sweep in a real browser, and what status says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("optuna", reason="optuna is not installed; run: pip install 'decant-kd[sweep]'")

from decant.pipeline.errors import DamagedError
from decant.pipeline.report.output import make_sweep_page
from decant.pipeline.report.sweep_sections.settings import settings
from decant.pipeline.report.sweep_sections.trials import trials
from decant.pipeline.report.sweep_subject import SweepSubject
from decant.pipeline.runs.notes import Pass, remember_pass
from decant.pipeline.runs.result import load_result
from decant.pipeline.status.overview import sweep_phases
from decant.pipeline.sweeps.conclusion import conclude
from decant.pipeline.sweeps.record import RECORD, load_record, running
from decant.pipeline.sweeps.stages import Stages
from decant.pipeline.sweeps.students import Students
from tests.helpers.browser import DESKTOP, PHONE, opened, started
from tests.helpers.small import CPU
from tests.sweeps.conftest import planned

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def subject(base: Path) -> SweepSubject:
    over = ("student.lr=0.003,0.02,1e30", "student.network.hidden=8,16")
    sweep = planned(base, over=over, sampler="grid", trials=6)
    conclude(sweep, Stages(sweep, Students(sweep.plan, CPU)))
    return SweepSubject.of(sweep.folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture
def page(browser: Browser, subject: SweepSubject, tmp_path: Path) -> Iterator[Page]:
    with opened(browser, make_sweep_page(subject, tmp_path), DESKTOP) as found:
        yield found


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#trial-table tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_the_table_says_what_the_runs_say(page: Page, subject: SweepSubject) -> None:
    values = column(page, 4)
    for trial in subject.students.trials:
        if trial.state == "failed":
            assert values[trial.number] == "–"
        else:
            result = load_result(subject.folder.parent / str(trial.folder))
            assert result is not None
            assert result.validation is not None
            assert values[trial.number] == f"{100 * result.validation['top1']:.2f}"
    assert set(column(page, 5)) == {"best", "done", "failed"}
    failed = page.locator("#trial-table tbody tr", has_text="failed").first.inner_text()
    assert "has diverged" in failed
    page.set_viewport_size({"width": 500, "height": 800})
    found = page.locator("#trial-table tbody tr:has-text('student-mlp-kd')").first.bounding_box()
    assert found is not None
    assert found["height"] < 40, "the name of a run takes one line"


def test_a_heading_sorts_by_it_both_ways_and_what_is_no_number_is_last(page: Page) -> None:
    heading = page.locator("#trial-table th", has_text="validation top-1")
    heading.locator("button").click()
    rising = [value for value in column(page, 4) if value != "–"]
    assert rising == sorted(rising, key=float)
    assert column(page, 4)[-1] == "–"
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    falling = column(page, 4)
    assert [value for value in falling if value != "–"] == rising[::-1]
    assert falling[-1] == "–"
    assert heading.get_attribute("aria-sort") == "descending"


def test_a_setting_or_a_state_keeps_its_rows(page: Page) -> None:
    page.fill("#trial-filter", "student.network.hidden=8")
    assert set(column(page, 3)) == {"8"}
    assert page.locator("#trial-count").inner_text() == "3 of 6"
    page.fill("#trial-filter", "student.network.hidden=8 failed")
    assert page.locator("#trial-count").inner_text() == "1 of 6"
    page.fill("#trial-filter", "")
    assert len(column(page, 1)) == 6


def test_every_chart_is_drawn_light_and_dark_wide_and_narrow(
    browser: Browser, subject: SweepSubject, tmp_path: Path
) -> None:
    path = make_sweep_page(subject, tmp_path)
    charts = ["settings-parallel", "settings-setting0", "settings-setting1", "learning-epochs"]
    for size, colours in ((DESKTOP, "light"), (PHONE, "dark")):
        with opened(browser, path, size, color_scheme=colours) as page:
            for name in (*charts, "frontier-latency", "frontier-bytes"):
                drawn = page.locator(f"[data-chart={name}] svg")
                assert drawn.locator("path").count() > 2, name
            assert page.locator("[data-chart=learning-epochs] .mark-line path").count() >= 4
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_spread_of_fresh_seeds_and_the_baseline_are_drawn(subject: SweepSubject) -> None:
    chart = settings(subject).charts["setting0"].to_dict()
    values = [one["data"]["values"] for one in chart["layer"]]
    assert {one["kind"] for one in values[0]} == {"students", "baseline"}
    (spread,) = values[1]
    fresh = [100 * (trial.value or 0) for trial in subject.fresh]
    assert (spread["low"], spread["high"]) == (min(fresh), max(fresh))


def test_what_sharing_saved_is_said_where_the_pass_is_known(subject: SweepSubject) -> None:
    keys = {result.cache for result in subject.results.values()}
    (key,) = keys
    base = subject.folder.parent
    shutil.rmtree(base / "passes", ignore_errors=True)
    assert subject.shared is None
    remember_pass(base, str(key), Pass(10.0, 1150, 0, "cpu"))
    assert subject.shared == "4 students, one teacher's pass: 10 s, instead of 2.0 min of a live teacher"
    assert trials(subject).content["shared"] == subject.shared


def test_status_says_how_far_a_sweep_is(subject: SweepSubject, tmp_path: Path) -> None:
    (done,) = sweep_phases(subject.folder.parent)
    assert (done.state, done.path) == ("done", subject.folder)
    assert done.detail.startswith("test part, measured once, 2 fresh seeds: distilled ")
    record = load_record(subject.folder)
    folder = tmp_path / subject.folder.name
    folder.mkdir()
    half = replace(record.stages[0], trials=record.stages[0].trials[:3])
    unfinished = replace(record, conclusion=None, stages=[half])
    (folder / RECORD).write_text(json.dumps(asdict(unfinished)))
    (phase,) = sweep_phases(tmp_path)
    assert (phase.state, phase.progress and (phase.progress.done, phase.progress.total)) == (
        "interrupted",
        (3, 6),
    )
    assert "best of 3 of 6 trials: " in phase.detail
    with running(folder):
        (phase,) = sweep_phases(tmp_path)
        assert phase.state == "running"
    elsewhere = replace(half, trials=[replace(half.trials[0], folder="../../elsewhere/seed-0")])
    for content in ("{}", json.dumps(asdict(replace(record, stages=[elsewhere])))):
        (folder / RECORD).write_text(content)
        with pytest.raises(DamagedError, match="it is not what a sweep writes"):
            load_record(folder)
    (phase,) = sweep_phases(tmp_path)
    assert phase.state == "damaged"
