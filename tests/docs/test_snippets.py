"""Every command, every Python and every TOML that README.md and docs/ show does what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.documents import PAGES, blocks, reading
from tests.helpers.processes import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny teacher, cache and students of the recipe `digits`, which every page begins with."""
    folder = tmp_path_factory.mktemp("made")
    with reading(folder) as reader:
        for phase in ("teacher", "cache-logits", "student"):
            reader._command(f"decant {phase}", 0)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_of_a_page_runs(page: Path, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    if "<!-- begins in an empty folder -->" in page.read_text("utf-8"):
        folder.mkdir()
    else:
        shutil.copytree(made, folder)
    with reading(folder) as reader:
        for block in blocks(page):
            reader.run(block)
