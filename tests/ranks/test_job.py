"""Ranks that join, compare and end, in real jobs of torchrun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from decant.pipeline.ranks.launch import launched
from tests.ranks.torchrun import run_ranks, said

JOB = """
import sys, os, time
from decant.pipeline.ranks import job as jobs
from decant.pipeline.ranks.facts import require_equal_ranks, program_facts

job = jobs.join()
assert job is jobs.join() and job.size == 3
print(f"rank {job.rank}: {job.share('word', 'shared' if job.is_first else None, 'a word')}\\n", end="", flush=True)
require_equal_ranks(job, "program", program_facts())
numbers = [job.count("unit") for _ in range(2)]
told = job.gather("numbers", str(numbers), "numbers")
if told:
    print("numbers", sorted(number for each in told for number in eval(each)), flush=True)
try:
    require_equal_ranks(job, "recipe", {"cache": {"batch_size": 100 + (job.rank == 2), "dtype": "f"}, "seed": 0})
except Exception as error:
    print(f"rank {job.rank}: {type(error).__name__}: {error}\\n", end="", flush=True)
    if job.is_first:
        assert job.fail()
    time.sleep(0.5)
"""

GROUP = """
import torch
from torch.nn.parallel import DistributedDataParallel
from decant.pipeline.ranks import job as jobs, ending
from decant.pipeline.ranks.process_group import process_group, local_device

job, device = jobs.join(), torch.device("cpu")
for _ in range(2):
    with process_group(job, device):
        network = DistributedDataParallel(torch.nn.Linear(4, 2))
        for _ in range(5):
            network(torch.ones(3, 4)).sum().backward()
        total = torch.tensor([float(job.rank)])
        torch.distributed.all_reduce(total)
        del network
print(f"rank {job.rank}: {total.item()}\\n", end="")
ending.leave(0)
"""


def test_ranks_share_count_and_compare(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(JOB)
    done = run_ranks(3, script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"rank (\d): shared", done.stdout)) == ["0", "1", "2"]
    assert "numbers [1, 2, 3, 4, 5, 6]" in done.stdout
    differing = re.search(r"rank 0: RankError: ranks have not the same recipe: (.*)", done.stdout)
    assert differing, done.stdout
    assert re.fullmatch(r"rank 2 on \S+: cache.batch_size is 101 and 100 on rank 0", differing[1])
    assert done.stdout.count("OtherRankFailedError") == 2


def test_a_process_group_is_started_and_ended_twice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(GROUP)
    done = run_ranks(2, script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"rank (\d): 1.0", done.stdout)) == ["0", "1"]
    assert "terminate called" not in done.stderr


def test_one_rank_says_what_all_of_them_meet(tmp_path: Path) -> None:
    done = run_ranks(2, "-m", "decant", "cache-logits", "--recipe", "no-such-recipe", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = said(done.stderr)
    assert re.fullmatch(r"decant: rank \d of 2 on \S+: .*no-such-recipe.*", line), line
    assert done.stdout == ""
    assert line.removeprefix("decant: ") in done.stderr.split("traceback :")[1], "torchrun's page has it too"
    usage = run_ranks(2, "-m", "decant", "cache-logits", "--part", "17/16", cwd=tmp_path)
    assert usage.returncode == 1
    assert usage.stderr.count("expected I/N with 1 ≤ I ≤ N") == 2, "once by a rank, once in torchrun's page"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
    ],
)
def test_a_process_by_itself_is_no_rank(environment: dict[str, str]) -> None:
    assert launched(environment) is None
