"""Power may go at any call: what has its name is whole, and the same command again makes what it makes undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cache_commands import KINDS
from tests.helpers.processes import run_helper


@pytest.mark.parametrize(("kind", "step"), [("fetch", 8), ("import", 16)])
def test_a_power_cut_leaves_nothing_that_is_not_gone_on_with(kind: str, step: int, tmp_path: Path) -> None:
    assert int(run_helper("power_cuts", tmp_path / kind, kind, 1, 0, step)) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_at_every_call(kind: str, tmp_path: Path) -> None:
    assert int(run_helper("power_cuts", tmp_path / kind, kind, 2, 1)) >= 24
