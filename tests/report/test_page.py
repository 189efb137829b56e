"""The page in a real browser: what a person clicks, sorts and reads is what the run's files hold.

Class names are hostile: markup, quotes, and what a spreadsheet takes for a formula.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from decant.cache import LogitCache, Store
from decant.cache.statistics.outputs import softmax
from decant.pipeline.report.output import make_report
from decant.pipeline.report.page import Section, render
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.runs.result import Result
from tests.helpers.browser import DESKTOP, PHONE, opened, started
from tests.helpers.small import CPU, build_cache, recipe, students

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CLASSES = ("<img src=x onerror=hacked=1>", "<script>hacked=1<", '=1+1, "quoted"')
WRONG = (7, 23, 51)
"""Training samples whose label is another class's."""
VIEWS = ("views.count=3", 'views.augment=[{op="pad-crop", padding=1}]')


@dataclass(frozen=True)
class Made:
    """A finished run, and its page."""

    page: Path
    cache: LogitCache
    student: Result
    names: tuple[str, ...]

    @property
    def test_labels(self) -> np.ndarray:
        return np.repeat(np.arange(3), 10)


def draw(folder: Path, per_class: int, wrong: tuple[int, ...] = ()) -> None:
    """Images of one colour a class, with noise; those in `wrong` have the colour of the next class."""
    random = np.random.default_rng(0)
    for label, name in enumerate(sorted(CLASSES)):
        (folder / name).mkdir(parents=True)
        for place in range(per_class):
            pixels = random.integers(0, 90, (8, 8, 3))
            shown = label + (label * per_class + place in wrong)
            pixels[..., shown % 3] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{place:03}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("page")
    draw(folder / "images/train", 20, WRONG)
    draw(folder / "images/test", 10)
    words = (
        *VIEWS,
        "data.name=imagefolder",
        f"data.root={folder / 'images'}",
        "teacher.epochs=40",
        "student.epochs=4",
    )
    cache = build_cache(folder, *words)
    student = students(folder, *words)[1]
    subject = of_recipe(recipe(*words), folder / "runs", Store(folder / "caches"), CPU)
    return Made(make_report(subject, folder / "out").page, cache, student, tuple(sorted(CLASSES)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as found:
        yield found


@pytest.fixture
def page(browser: Browser, made: Made) -> Iterator[Page]:
    with opened(browser, made.page, DESKTOP) as found:
        yield found


def column(page: Page, number: int) -> list[str]:
    """The texts of a column of the list of samples."""
    return page.locator(f"#samples tbody td:nth-child({number})").all_inner_texts()


def answers(page: Page) -> dict[str, tuple[float, float]]:
    """Class → shares of teacher and student, as the page shows them."""
    rows = page.locator("#answers tbody tr").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    return {name: (float(one.split()[0]) / 100, float(other.split()[0]) / 100) for name, one, other in cells}


def choose(page: Page, index: int) -> None:
    page.fill("#search", str(index))
    page.locator("#samples tbody tr").first.click()
    assert page.locator("#sample-title").inner_text().startswith(f"Sample {index},")


def test_the_table_of_networks_says_what_the_results_say(page: Page, made: Made) -> None:
    cells = page.locator("#networks tbody tr").nth(2).locator("td").all_inner_texts()
    result = json.loads((made.student.folder / "result.json").read_text())
    (path,) = made.student.folder.parent.parent.glob(
        "student-*/seed-0/footprint.json"
    )  # both are built alike
    footprint = json.loads(path.read_text())
    assert cells[1] == f"{100 * result['metrics']['top1']:.2f} % (n = 1)"
    assert cells[2] == f"{result['parameters']:,}"
    assert cells[3] == f"{(made.student.folder / 'weights.safetensors').stat().st_size:,}"
    assert cells[4] == f"{footprint['multiply_adds']:,}"
    assert cells[7] == f"{footprint['batches'][0]['peak_bytes']:,}"


def test_every_chart_is_drawn(page: Page) -> None:
    charts = page.locator("[data-chart]").all()
    assert len(charts) >= 12
    for chart in charts:
        assert chart.locator("svg .mark-group.role-mark, svg .role-mark").count(), chart.get_attribute(
            "data-chart"
        )


def test_a_chart_has_the_numbers_of_the_files(page: Page, made: Made) -> None:
    lines = [json.loads(line) for line in (made.student.folder / "metrics.jsonl").read_text().splitlines()]
    marks = page.locator('[data-chart="curves-soft"] .role-mark path[aria-label*="epoch: 2;"]')
    said = " ".join(mark.get_attribute("aria-label") or "" for mark in marks.all())
    assert f"mean: {lines[1]['soft']:.5g}" in said, said


def test_unticked_networks_leave_every_chart(page: Page) -> None:
    marks = page.locator('[data-chart="answer-bytes"] .mark-symbol path')
    assert marks.count() == 3
    page.locator("[data-network]").nth(1).focus()
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelectorAll('[data-chart=\"answer-bytes\"] .mark-symbol path').length == 2"
    )
    assert page.locator('[data-chart="curves-loss"] .mark-line path[aria-label]').count() == 2


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(page: Page, made: Made) -> None:
    for heading, place in (("index", 2), ("entropy", 6), ("labelShare", 7), ("differs", 8)):
        button = page.locator(f'[data-sort="{heading}"]')
        button.click()
        rising = [float(text) for text in column(page, place)]
        assert rising == sorted(rising), heading
        assert button.locator("xpath=..").get_attribute("aria-sort") == "ascending"
        button.click()
        falling = [float(text) for text in column(page, place)]
        assert falling == sorted(rising, reverse=True), heading


def test_search_finds_an_index_a_class_and_a_label(page: Page, made: Made) -> None:
    page.fill("#search", "23")
    assert column(page, 2) == ["23"]
    page.fill("#search", "<script>")
    named = zip(*(column(page, place) for place in (3, 4, 5)), strict=True)
    assert all(any("<script>" in name for name in row) for row in named)
    page.fill("#search", "")
    page.select_option("#label", label=made.names[2])
    assert set(column(page, 3)) == {made.names[2]}
    assert page.locator("#found").inner_text() == f"{len(column(page, 3))} of 60 samples"
    page.select_option("#label", "")
    page.fill("#search", "no such class")
    assert column(page, 2) == []
    assert page.locator("#sample").is_hidden()


def test_answers_are_the_softmax_of_the_cached_logits_at_the_slider_s_temperature(
    page: Page, made: Made
) -> None:
    choose(page, 12)
    logits = made.cache.logits([12])[0].astype(np.float64)
    for temperature in (4.0, 4.05, 1.0):
        if temperature == 4.05:
            page.locator("#temperature").focus()
            page.keyboard.press("ArrowRight")
        if temperature == 1.0:
            page.click('[data-temperature="1"]')
        assert page.locator("#temperature-value").inner_text() == f"T = {temperature:g}"
        shown, expected = answers(page), softmax(logits, temperature)
        for name, share in zip(made.names, expected.tolist(), strict=True):
            assert shown[name][0] == pytest.approx(share, abs=5.1e-5), (name, temperature)
        assert sum(student for _, student in shown.values()) == pytest.approx(1, abs=2e-4)


def test_each_view_has_its_own_pixels_and_answers(page: Page, made: Made) -> None:
    choose(page, 33)
    seen = set()
    for view in range(3):
        page.get_by_role("button", name=f"view {view}", exact=True).click()
        image = page.locator("#sample-image")
        assert image.get_attribute("alt") == f"sample 33, view {view}"
        seen.add(image.screenshot())
        page.click('[data-temperature="1"]')
        expected = softmax(made.cache.logits([33], view)[0].astype(np.float64))
        for name, share in zip(made.names, expected.tolist(), strict=True):
            assert answers(page)[name][0] == pytest.approx(share, abs=5.1e-5), (name, view)
    assert len(seen) == 3


def test_samples_can_be_gone_through_with_the_keyboard(page: Page) -> None:
    page.locator("#samples tbody tr").first.click()
    order = column(page, 2)
    for key, place in (
        ("ArrowDown", 1),
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("End", -1),
        ("Home", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        assert page.locator("#sample-title").inner_text().startswith(f"Sample {order[place]},"), key
    assert page.locator("#samples tbody tr[aria-selected=true]").count() == 1


def test_planted_label_errors_are_listed_and_saved_as_csv(page: Page, made: Made, tmp_path: Path) -> None:
    listed = page.locator("#errors tbody td:first-child").all_inner_texts()
    assert {*map(int, listed)} == {*WRONG}
    page.select_option("#kind", "label")
    assert {*map(int, column(page, 2))} == {*WRONG}
    with page.expect_download() as download:
        page.click("#errors-csv")
    download.value.save_as(tmp_path / "errors.csv")
    with open(tmp_path / "errors.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == listed
    assert all(row["file"].endswith(f"{int(row['index']) % 20:03}.png") for row in rows)
    assert not any(value.startswith("=") for row in rows for value in row.values())


def test_class_names_are_text_and_never_markup(page: Page) -> None:
    assert page.evaluate("typeof hacked") == "undefined"
    for element in ("img[src='x']", "td script", "option script"):
        assert page.locator(element).count() == 0
    assert page.locator("#label option", has_text="<img src=x onerror=hacked=1>").count() == 1


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_has_the_system_s_colours(
    browser: Browser, made: Made, tmp_path: Path, size: dict[str, int], scheme: str
) -> None:
    with opened(browser, made.page, size, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == size["width"]
        corner = picture.convert("L").getpixel((2, 2))
    assert corner > 200 if scheme == "light" else corner < 60


def test_a_theme_can_be_chosen_against_the_system_s(page: Page) -> None:
    page.select_option("#theme", "dark")
    page.wait_for_selector("html[data-drawn=dark]")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(20, 24, 29)"
    assert page.locator("[data-chart] svg").count() == page.locator("[data-chart]").count()


def test_a_section_without_anything_says_why_and_the_rest_works(browser: Browser, tmp_path: Path) -> None:
    content = render(
        "</title></script><b>title", [Section("cached", "Cache", missing="<b>gone</b>")], ["</script>"]
    )
    (tmp_path / "page.html").write_bytes(content)
    with opened(browser, tmp_path / "page.html", PHONE) as page:
        assert page.locator(".missing").inner_text() == "Not shown: <b>gone</b>"
        assert page.locator("h1").inner_text() == "</title></script><b>title"
        assert page.locator("b").count() == 0
