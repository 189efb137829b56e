"""Kill anything, any time: what is published is whole, and the same command again ends in the very same bytes.

One contract for every kind of file that is filled block by block.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import finished, python, run_helper


@pytest.mark.parametrize(("kind", "least"), [("cache", 60), ("ragged", 40), ("pack", 30)])
def test_a_builder_killed_at_each_step_is_gone_on_with(kind: str, least: int, tmp_path: Path) -> None:
    script = """
import sys
import subprocess
import sys
from pathlib import Path
from tests.helpers import killing
from tests.helpers.block_files import KINDS
killing.at_every_step(KINDS[sys.argv[2]](), Path(sys.argv[1]))
"""
    kills = int(finished(python(script, tmp_path, kind)))
    assert kills >= least, f"{kills} kills: the steps of the protocol were not met"


def test_a_builder_that_syncs_after_each_block_is_gone_on_with_too(tmp_path: Path) -> None:
    """As one of a large cache does after each 64 MiB: killed before, in and after the sync and its record."""
    script = """
import sys
from pathlib import Path
from decant.cache.io import synced
from tests.helpers import killing
from tests.helpers.block_files import KINDS
synced.SYNC_BYTES = 1
killing.at_every_step(KINDS["cache"](), Path(sys.argv[1]))
"""
    kills = int(finished(python(script, tmp_path)))
    assert kills >= 76, f"{kills} kills: two steps more for each of four blocks"


@pytest.mark.parametrize(
    ("kind", "size", "seed", "kills"),
    [
        ("cache", 1200, 0, 50),
        ("cache", 1200, 1, 50),
        ("ragged", 150, 0, 10),
        ("pack", 1200, 0, 50),
        ("pack", 1200, 1, 50),
    ],
)
def test_a_builder_killed_at_random_moments_is_gone_on_with(
    kind: str, size: int, seed: int, kills: int, tmp_path: Path
) -> None:
    script = """
import sys
import subprocess
import sys
from pathlib import Path
from tests.helpers import killing
from tests.helpers.block_files import KINDS
killing.at_random_moments(KINDS[sys.argv[2]](int(sys.argv[4])), Path(sys.argv[1]), int(sys.argv[5]), int(sys.argv[3]))
"""
    assert int(finished(python(script, tmp_path, kind, seed, size, kills))) >= kills


def test_kills_by_hand_are_counted(tmp_path: Path) -> None:
    """The command of docs/results.md, with fewer kills."""
    assert int(run_helper("killing", "random", tmp_path / "by-hand", 3, 7)) >= 3
