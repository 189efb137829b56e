"""Power may go at any call: what has its name is whole, and the same command again makes what it makes undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.cache_commands import KINDS
from tests.helpers.processes import run_helper


def test_a_power_cut_leaves_nothing_that_is_not_gone_on_with(tmp_path: Path) -> None:
    said = run_helper("power_cuts", tmp_path, "fetch,import", 1, 0, 12).split()
    assert said[::2] == ["fetch", "import"]
    assert min(map(int, said[1::2])) >= 6, said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_at_every_call(kind: str, tmp_path: Path) -> None:
    assert int(run_helper("power_cuts", tmp_path, kind, 2, 1).split()[1]) >= 16
