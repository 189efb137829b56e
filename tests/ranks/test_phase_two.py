"""Networks that several ranks train together are those of one process."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from decant.pipeline.ranks.job import join
from decant.pipeline.ranks.process_group import process_group
from decant.pipeline.runs.result import WEIGHTS
from decant.pipeline.training.epoch_log import read_epochs
from tests.helpers.processes import wait_until
from tests.helpers.small import VIEWS, build_cache
from tests.ranks import phase_two
from tests.ranks.forked import run_forked
from tests.ranks.phase_two import STUDENTS

RANKS = (1, 2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, and what 1, 2 and 3 ranks make of it."""
    folder = tmp_path_factory.mktemp("phase-two")
    build_cache(folder, *VIEWS)
    phase_two.carry_out(folder)
    for ranks in RANKS[1:]:
        assert "Warning" not in run_forked(ranks, phase_two.carry_out, folder, folder=folder)
    return folder


def found(folder: Path, ranks: int) -> dict[str, Any]:
    return dict(json.loads((folder / f"ranks-{ranks}.json").read_text()))


def furthest(one: Path, other: Path) -> float:
    """The largest difference between the weights in two folders."""
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


@pytest.mark.parametrize("ranks", RANKS[1:])
@pytest.mark.parametrize("name", [name for name in STUDENTS if name != "norm"])
def test_a_student_has_the_weights_that_one_process_gives_it(folder: Path, name: str, ranks: int) -> None:
    """With a last batch of fewer samples than ranks, for any objective, with dropout and averaged weights."""
    alone, together = found(folder, 1)[name], found(folder, ranks)[name]
    assert alone.keys() == together.keys()
    for kind, one in alone.items():
        other = Path(together[kind]["folder"])
        assert furthest(Path(one["folder"]), other) < 1e-5
        for line, theirs in zip(read_epochs(Path(one["folder"])), read_epochs(other), strict=True):
            assert theirs["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert Path(one["folder"]).parts[-2:] == other.parts[-2:], (
            "the number of ranks is no part of its name"
        )


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_batch_normalisation_takes_the_statistics_of_the_whole_batch(folder: Path, ranks: int) -> None:
    for one, other in zip(found(folder, 1)["normalised"], found(folder, ranks)["normalised"], strict=True):
        assert len(one) == len(other) == 12
        for expected, tensor in zip(one, other, strict=True):
            assert tensor == pytest.approx(expected, rel=1e-9, abs=1e-9)
    alone, together = found(folder, 1)["norm"]["distilled"], found(folder, ranks)["norm"]["distilled"]
    lines = read_epochs(Path(alone["folder"])), read_epochs(Path(together["folder"]))
    for line, theirs in zip(*lines, strict=True):  # in float32, where layers enlarge what rounding makes
        assert theirs["loss"] == pytest.approx(line["loss"], rel=1e-3)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_students_that_are_divided_among_ranks_are_those_of_one_process_bit_for_bit(
    folder: Path, ranks: int
) -> None:
    alone, divided = found(folder, 1)["seeds"], found(folder, ranks)["seeds"]
    assert sorted(Path(name).name for name, _ in divided) == ["seed-0", "seed-1"]
    assert not any(before for _, before in divided), "rank 0 says of the others' students that they were made"
    for (one, _), (other, _) in zip(sorted(alone), sorted(divided), strict=True):
        assert furthest(Path(one), Path(other)) == 0.0


def test_ranks_that_normalise_by_their_own_samples_make_another_student(folder: Path) -> None:
    both = found(folder, 2)
    apart, together = Path(both["apart"]["distilled"]["folder"]), Path(both["norm"]["distilled"]["folder"])
    assert apart.parent != together.parent
    assert furthest(apart, together) > 1e-2


@pytest.mark.parametrize("ranks", RANKS)
def test_rows_of_ranks_come_together_in_order(folder: Path, ranks: int) -> None:
    assert found(folder, ranks)["gathered"] == [[True, True, True]] * len(phase_two.SIZES)


@pytest.mark.parametrize("ranks", RANKS[1:])
def test_every_sample_of_the_test_part_counts_once(folder: Path, ranks: int) -> None:
    alone, together = found(folder, 1), found(folder, ranks)
    for kind in ("labels", "distilled"):
        for name in ("top1", "top5", "loss", "ece"):
            expected = pytest.approx(alone["kd"][kind][name], rel=1e-4)
            assert together["kd"][kind][name] == expected
            assert together["evaluated"][kind][name] == expected


def test_ranks_choose_epochs_by_the_same_figures(tmp_path: Path) -> None:
    """Or one of them would end for want of patience, and the others wait for it."""
    build_cache(tmp_path, *VIEWS)
    run_forked(2, phase_two.choose, tmp_path, folder=tmp_path)
    one, other = (json.loads((tmp_path / f"chosen-by-{rank}.json").read_text()) for rank in range(2))
    assert one == other


def wait_for_the_group(folder: Path) -> None:
    """Rank 1 never comes to the process group, for which rank 0 waits; it is sent SIGTERM meanwhile."""
    job = join()
    assert job is not None
    if job.rank == 1:
        wait_until((folder / "ended").exists)
        return

    def end(*given: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    with pytest.raises(SystemExit), process_group(job, torch.device("cpu")):
        pass
    (folder / "ended").write_text(str(time.monotonic() - started))


def test_a_rank_that_waits_for_the_process_group_hears_signals(tmp_path: Path) -> None:
    """The call that begins the group does not, for as long as ranks may take to come."""
    run_forked(2, wait_for_the_group, tmp_path, folder=tmp_path)
    assert float((tmp_path / "ended").read_text()) < 30
