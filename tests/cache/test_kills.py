"""Kill anything, any time: what is published is whole, and the same command again ends in the very same bytes.

One contract for every kind of file that is filled block by block.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import finished, python


@pytest.mark.parametrize(("kind", "least"), [("cache", 60), ("pack", 30)])
def test_a_builder_killed_at_each_step_is_gone_on_with(kind: str, least: int, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tests.helpers import killing
from tests.helpers.block_files import KINDS
killing.at_every_step(KINDS[sys.argv[2]](), Path(sys.argv[1]))
"""
    kills = int(finished(python(script, tmp_path, kind)))
    assert kills >= least, f"{kills} kills: the steps of the protocol were not met"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["cache", "pack"])
def test_a_builder_killed_at_random_moments_is_gone_on_with(kind: str, seed: int, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from tests.helpers import killing
from tests.helpers.block_files import KINDS
killing.at_random_moments(KINDS[sys.argv[2]](1200), Path(sys.argv[1]), 50, int(sys.argv[3]))
"""
    assert int(finished(python(script, tmp_path, kind, seed))) >= 50
