"""Phase one in several ranks: one file, whichever ranks compute what; ranks that differ, are killed or lost."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from decant.cache import LogitCache, find_unfinished
from tests.helpers.commands import decant, fork_module, only, succeed
from tests.helpers.forked_ranks import one_that_speaks, run_forked
from tests.helpers.processes import wait_until
from tests.ranks.torchrun import said, start_ranks

VIEWS = 40
ROWS = VIEWS * 1437


def settings(*more: str) -> list[str]:
    """The digits recipe with one epoch of a small teacher, and views enough that several ranks have work."""
    chosen = (
        "teacher.network.width=4",
        "teacher.epochs=1",
        f"views.count={VIEWS}",
        'views.augment=[{op="pad-crop", padding=1}]',
        "cache.batch_size=100",
        *more,
    )
    return [word for setting in chosen for word in ("--set", setting)]


def words(store: str, *more: str) -> list[str]:
    return ["cache-logits", *settings(), "--store", store, *more]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and with the cache of one process in `whole`."""
    folder = tmp_path_factory.mktemp("ranks")
    succeed(decant("teacher", *settings(), cwd=folder))
    succeed(decant(*words("whole"), cwd=folder))
    return folder


def holds_the_cache_of_one_process(folder: Path, store: str) -> Path:
    """The published file of a store, which must be that of one process, and have nothing beside it."""
    path = only(folder / store, "*.h5")
    assert path.read_bytes() == only(folder / "whole", "*.h5").read_bytes()
    assert [entry.name for entry in (folder / store).iterdir()] == [path.name]
    return path


def json_of(out: str) -> dict[str, object]:
    (made,) = json.loads(out[out.index("[\n") :])
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_make_the_very_file_of_one_process(taught: Path, ranks: int) -> None:
    store = f"by-{ranks}"
    done = run_forked(ranks, lambda rank: words(store, "--json"), taught)
    assert [rank.returncode for rank in done] == [0] * ranks, done
    assert json_of(done[0].stdout)["rows"] == ROWS, "together, each row computed once"
    assert "".join(rank.stdout for rank in done[1:]) == "", "one rank of them prints"
    assert "".join(rank.stderr for rank in done[1:]) == ""
    holds_the_cache_of_one_process(taught, store)
    again = run_forked(ranks, lambda rank: words(store), taught)
    assert "nothing to do, no teacher was loaded" in again[0].stdout


def test_torchrun_ends_a_job_whose_rank_is_killed_and_another_goes_on(taught: Path) -> None:
    """With another number of ranks."""
    store = taught / "killed"
    job = start_ranks(2, "-m", "decant", *words("killed"), cwd=taught)
    wait_until(lambda: _rows(store) > 0, job)
    os.kill(json.loads(sorted(store.glob("*.joined"))[-1].read_text())["process"], signal.SIGKILL)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 1
    (line,) = said(err)
    assert re.match(r"decant: ended by SIGTERM; everything made so far is kept. Go on with: ", line), line
    assert "SIGKILL" in err, "torchrun says which rank was killed"
    assert list(store.glob("*.h5")) == []
    (begun,) = store.glob("*.partial")
    inode = begun.stat().st_ino
    done = run_forked(3, lambda rank: words("killed", "--json"), taught)
    assert [rank.returncode for rank in done] == [0] * 3, done
    assert json_of(done[0].stdout)["rows"] in range(1, ROWS)
    path = holds_the_cache_of_one_process(taught, "killed")
    assert path.stat().st_ino == inode, "one file from the first rank's start to the end"


def test_ctrl_c_ends_all_ranks_in_one_line(taught: Path) -> None:
    """torchrun sends on the signal that it gets."""

    def interrupt(children: list[int]) -> None:
        wait_until(lambda: _rows(taught / "interrupted") > 0)
        for child in children:
            os.kill(child, signal.SIGINT)

    done = run_forked(2, lambda rank: words("interrupted", "--set", "cache.batch_size=2"), taught, interrupt)
    line = one_that_speaks(done)
    assert line.startswith("decant: interrupted; everything made so far is kept. Go on with: "), line


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_ranks_killed_at_random_moments_are_gone_on_with(tmp_path: Path, kills: int) -> None:
    said = fork_module("tests.helpers.killing_ranks", tmp_path, kills, 7)
    assert f"{kills} kills, " in said
    assert "all byte-identical" in said


def test_a_part_and_one_process_go_on_where_ranks_were(taught: Path) -> None:
    """The parts of one pass, ranks and a process alone write one file, one after the other."""
    parts = ("1/3", "2/3", "3/3")
    succeed(decant(*words("mixed", "--part", parts[2]), cwd=taught))
    inode = only(taught / "mixed", "*.partial").stat().st_ino
    made = [json_of(run_forked(2, lambda rank: words("mixed", "--json"), taught)[0].stdout)]
    assert 0 < made[0]["rows"] < ROWS  # type: ignore[operator]
    assert holds_the_cache_of_one_process(taught, "mixed").stat().st_ino == inode


def test_more_ranks_than_batches(taught: Path) -> None:
    one = settings("views.count=1", "cache.batch_size=1000")
    done = run_forked(4, lambda rank: ["cache-logits", *one, "--store", "few"], taught)
    assert [rank.returncode for rank in done] == [0] * 4, done
    said = "".join(rank.stderr for rank in done)
    assert said == "warning: 4 ranks share 2 batches: 2 have nothing to compute\n"
    assert LogitCache.open(only(taught / "few", "*.h5")).verify() == []


@pytest.mark.parametrize(
    ("different", "named"),
    [
        (
            ["--set", "cache.batch_size=200"],
            "the same recipe: rank 1 on .*: cache.batch_size is 200 and 100 on rank 0",
        ),
        (
            ["--runs", "elsewhere"],
            "rank 1 of 3 on .*: .*the teacher has not been trained with these settings",
        ),
    ],
)
def test_a_rank_with_another_recipe_is_named_before_the_teacher_runs(
    taught: Path, different: list[str], named: str
) -> None:
    done = run_forked(3, lambda rank: [*words("different"), *(different if rank == 1 else [])], taught)
    assert re.search(named, one_that_speaks(done)), done
    assert not (taught / "different").exists()


def test_a_folder_that_ranks_do_not_share_is_found_before_the_teacher_runs(
    taught: Path,
) -> None:
    done = run_forked(2, lambda rank: words(f"own-{rank}"), taught, DECANT_RANKS_TIMEOUT="5")
    line = one_that_speaks(done)
    assert re.match(
        r"decant: rank 1 of 2 on \S+: own-1/.*\.partial: not seen on \S+, where rank 1 runs", line
    ), line
    assert "give one that all machines share, with --store" in line
    assert _rows(taught / "own-0") == 0


def test_ranks_that_do_not_come_are_named(taught: Path) -> None:
    """Of three ranks one never starts."""
    done = run_forked(
        3, lambda rank: words("late") if rank < 2 else ["--version"], taught, DECANT_RANKS_TIMEOUT="2"
    )
    spoken = [rank.stderr for rank in done if rank.stderr]
    assert len(spoken) == 1, done
    assert re.search(r"(ranks 2 of 3|rank 0) ha(s|ve) not come within 2 s", spoken[0]), spoken


def _rows(store: Path) -> int:
    """Rows that are written."""
    names = (
        {path.name.split(".h5.")[0] + ".h5" for path in store.glob("*.partial")} if store.exists() else set()
    )
    begun = [find_unfinished(store / name) for name in names]
    return sum(found.rows for found in begun if found is not None)


SCRIPT = """
import sys, torch, decant
from torch import distributed
from torch.utils.data import TensorDataset
views = decant.Views(TensorDataset(torch.arange(6000.0).reshape(-1, 3) / 6000, torch.arange(2000) % 3), None)
torch.manual_seed(0)
teacher = torch.nn.Linear(3, 1000)
calls = []
teacher.register_forward_hook(lambda *_: calls.append(1))
def build(name):
    calls.clear()
    cache = decant.cache_logits(teacher, views, name, batch_size=32)
    assert cache.verify() == [] and cache.num_samples == 2000
    return len(calls)
print(build("no-group.h5"))
if "RANK" in __import__("os").environ:
    distributed.init_process_group("gloo")
    print(build("gloo.h5"))
    if distributed.get_rank() == 0:
        build("first.h5")
    distributed.barrier()
    print(build("first.h5"))
    distributed.destroy_process_group()
sys.stdout.flush()
__import__("os")._exit(0)
"""


def test_ranks_of_a_script_share_the_pass(tmp_path: Path) -> None:
    """With a process group of their own and without; and a rank that comes alone does all."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run_forked(2, lambda rank: [script], tmp_path)
    assert [rank.returncode for rank in done] == [0, 0], done
    (tmp_path / "alone").mkdir()
    alone = decant(script, cwd=tmp_path / "alone")
    assert alone.returncode == 0, alone
    batches = int(alone.stdout)
    counted = [[int(word) for word in rank.stdout.split()] for rank in done]
    for one, other in zip(*counted, strict=True):
        assert one + other <= batches + 8, "beside the pass each looks at two small batches twice"
    assert counted[0][2] == counted[1][2] == 1, "what is found is not made: a few rows are tried"
    content = (tmp_path / "alone" / "no-group.h5").read_bytes()
    for name in ("no-group.h5", "gloo.h5", "first.h5"):
        assert (tmp_path / name).read_bytes() == content, name
