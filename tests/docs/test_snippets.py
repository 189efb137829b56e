"""Every command, every Python and every TOML that README.md and docs/ show does what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.documents import PAGES, blocks, libraries, reading
from tests.helpers.extras import needs
from tests.helpers.processes import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny teacher, cache and students of the recipe `digits`, which every page begins with."""
    folder = tmp_path_factory.mktemp("made")
    with reading(folder) as reader:
        for phase in ("teacher", "cache-logits", "student"):
            reader._command(f"decant {phase}", 0)
    return folder


def _page(page: Path) -> object:
    wanted = libraries(page)
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=needs(*wanted) if wanted else [])


@pytest.mark.parametrize("page", [_page(page) for page in PAGES])
def test_every_snippet_of_a_page_runs(page: Path, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    if "<!-- begins in an empty folder -->" in page.read_text("utf-8"):
        folder.mkdir()
    else:
        shutil.copytree(made, folder)
    with reading(folder) as reader:
        for block in blocks(page):
            reader.run(block)
