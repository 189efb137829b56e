"""Ranks and parts read what they compute, or share one reading: no sample is decoded or tokenised twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.teacher import make_teacher
from tests.helpers.commands import only
from tests.helpers.small import CPU
from tests.ranks import reading
from tests.ranks.forked import run_forked
from tests.ranks.reading import COUNT

PROBES = {"images": 1 + 8, "texts": 8, "own": 1 + 1 + 8 + 8}
"""Samples beside its share that each rank reads, so that one with other data is found."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reading.write(tmp_path_factory.mktemp("reading"))


def test_ranks_read_each_sample_once_between_them(folder: Path) -> None:
    """Image folders, texts and one's own datasets, which are what one process reads."""
    run_forked(1, reading.read, folder, "alone", folder=folder)
    run_forked(3, reading.read, folder, "together", folder=folder)
    alone = json.loads((folder / "read-alone-0.json").read_text())
    together = [json.loads((folder / f"read-together-{rank}.json").read_text()) for rank in range(3)]
    for kind, probes in PROBES.items():
        assert all(rank[kind][1:] == alone[kind][1:] for rank in together), "not what one process reads"
        read = [rank[kind][0] for rank in together]
        assert sum(read) <= COUNT + 3 * probes, f"{kind}: {read}"
    assert [path.name for path in (folder / "together" / "packs").glob("items*")] == [], "removed at the end"


def test_ranks_begin_before_all_images_are_decoded(folder: Path) -> None:
    """As one process does; they fill one pack together, which is that of one."""
    for ranks, store in ((1, "one begins"), (2, "two begin")):
        run_forked(ranks, reading.begin, folder, store, folder=folder)
    assert len({path.read_text() for path in folder.glob("begun-*")}) == 1
    assert len(list(folder.glob("begun-*"))) == 3
    packs = [only(folder / store, "packs/*.pack").read_bytes() for store in ("one begins", "two begin")]
    assert packs[0] == packs[1]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("labels", r"sample \d+: its label was \d, and now is \d: every rank"),
        ("inputs", "is another input each time it is read.*: every rank"),
    ],
)
def test_ranks_that_have_other_samples_of_ones_own_are_found(folder: Path, other: str, says: str) -> None:
    """Though each reads but a share of them, so that what they have read agrees."""
    run_forked(2, reading.read_other, folder, other, folder=folder)
    said = [(folder / f"{other}-{rank}").read_text() for rank in range(2)]
    found = any(re.search(says, each) for each in said)
    assert found or said[0] != said[1], "digests that differ are found by those who compare them"


def test_a_part_decodes_the_images_that_it_computes(folder: Path) -> None:
    """So do ranks; a block of a pack, five images, that two share is decoded by one."""
    planned = reading.plan(folder, "whole")
    make_teacher(planned, CPU)
    cache_logits(planned, CPU, print)
    expected = only(folder / "whole", "*.h5").read_bytes()
    for part in (2, 0, 1):
        run_forked(1, reading.cache, folder, "parts", (part, 3), folder=folder)
    run_forked(3, reading.cache, folder, "ranks", None, folder=folder)
    for store in ("parts", "ranks"):
        decoded = [int((folder / f"decoded-{store}-{number}").read_text()) for number in range(3)]
        assert sum(decoded) <= COUNT + 3 * (1 + 5), "each decodes the first image, and one block to look at"
        assert only(folder / store, "*.h5").read_bytes() == expected
        if store == "parts":
            assert max(decoded) <= COUNT / 3 + 2 * 5 + 1 + 5
        run_forked(1, reading.whole, folder, store, folder=folder)
        assert (folder / f"whole-{store}").read_text() == "1", "what was decoded is the pack"
