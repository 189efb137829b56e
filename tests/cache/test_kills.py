"""Kill anything, any time: what is published is whole, and the same command again ends in the very same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import finished, python


def test_a_builder_killed_at_each_step_is_gone_on_with(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path\n"
    script += "from tests.helpers import killing; killing.at_every_step(Path(sys.argv[1]))"
    kills = int(finished(python(script, tmp_path)))
    assert kills >= 60, f"{kills} kills: the steps of the protocol were not met"


@pytest.mark.parametrize("seed", range(2))
def test_a_builder_killed_at_random_moments_is_gone_on_with(tmp_path: Path, seed: int) -> None:
    script = """
import sys
from pathlib import Path
from tests.helpers import killing
killing.at_random_moments(Path(sys.argv[1]), 50, int(sys.argv[2]))
"""
    assert int(finished(python(script, tmp_path, seed))) >= 50
