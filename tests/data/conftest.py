"""A store for the packs that a test makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.pipeline.support.notices import forget_what_was_said


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the caches, with no packs yet."""
    monkeypatch.setenv("DECANT_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    """What is said once is said to each test."""
    forget_what_was_said()
