"""The README is short, and shows what is tested elsewhere."""

from __future__ import annotations

import re
import tomllib
from collections import Counter

from tests.deploy.test_export import EXAMPLE
from tests.helpers.documents import PAGES, blocks
from tests.helpers.processes import ROOT

README = ROOT / "README.md"
NOT_RUN = {
    "README.md": 2,
    "commands.md": 1,
    "contributing.md": 1,
    "export.md": 1,
    "images.md": 1,
    "language-models.md": 4,
    "parts.md": 1,
    "remote.md": 2,
    "results.md": 7,
    "scaling.md": 1,
    "served-teachers.md": 1,
    "speed.md": 1,
    "texts.md": 2,
    "torchrun.md": 1,
    "tutorial.md": 1,
}
"""How many blocks of a page install, download, or take too long to be run by a test."""


def test_it_has_at_most_150_lines() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 150


def test_a_loop_of_another_project_takes_ten_lines() -> None:
    code = next(block.code for block in blocks(README) if block.language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_its_language_model_is_taught_by_lines_of_the_guide() -> None:
    """Which are run, with the transformers library; the README is run without."""

    def statements(code: str) -> set[str]:
        code = code.replace("decant.objectives.sparse_kd", "sparse_kd")
        return {line.split("  #")[0].strip() for line in code.splitlines() if line.strip()}

    [shown] = [block.code for block in blocks(README) if "language.tokenise" in block.code]
    guide = {
        line for block in blocks(ROOT / "docs/guides/language-models.md") for line in statements(block.code)
    }
    assert statements(shown) - guide == set()


def test_it_names_every_extra_that_a_user_may_want() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"dev", "docs"}
    assert {name for name in extras if f"`{name}`" not in README.read_text("utf-8")} == set()


def test_its_links_lead_to_files() -> None:
    links = re.findall(r"(?:\]\(|src=\")([^)#\"]+)", README.read_text("utf-8"))
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_lines_that_classify_an_image_are_those_that_are_tested() -> None:
    assert EXAMPLE in (ROOT / "docs/guides/export.md").read_text("utf-8")


def test_what_is_not_run_is_counted_and_says_why() -> None:
    found = [
        (block.page.name, block.reason_not_to_run)
        for page in PAGES
        for block in blocks(page)
        if block.reason_not_to_run and not block.reason_not_to_run.endswith("by a test")
    ]
    assert Counter(page for page, _ in found) == NOT_RUN
    words = r"install|download|sets up|hour|minutes|start-up"
    assert [place for place in found if not re.search(words, place[1])] == []
