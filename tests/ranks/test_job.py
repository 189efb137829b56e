"""Ranks that join, compare and end: in forked processes, and in a real job of torchrun."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed import HashStore

from decant.pipeline.ranks import job
from decant.pipeline.ranks.job import Job
from decant.pipeline.ranks.launch import Launch, launched
from tests.helpers.commands import decant_at_once, start
from tests.helpers.forked_ranks import launching, run_forked
from tests.helpers.processes import line, wait_until
from tests.helpers.servers import free_port
from tests.ranks.torchrun import run_ranks, said

JOB = """
import time, torch
from torch.nn.parallel import DistributedDataParallel
from decant.pipeline.ranks import job as jobs, leaving
from decant.pipeline.ranks.facts import require_equal_ranks, program_facts
from decant.pipeline.ranks.process_group import process_group

job = jobs.join()
assert job is jobs.join() and job.size == 3
print("shared", job.share("word", "by rank 0" if job.is_first else None, "a word"))
for _ in range(2):
    require_equal_ranks(job, "program", program_facts())
numbers = [job.count("unit") for _ in range(2)]
told = job.gather("numbers", str(numbers), "numbers")
if told:
    print("numbers", sorted(number for each in told for number in eval(each)))
for _ in range(2):
    with process_group(job, torch.device("cpu")):
        network = DistributedDataParallel(torch.nn.Linear(4, 2))
        for _ in range(5):
            network(torch.ones(3, 4)).sum().backward()
        total = torch.tensor([float(job.rank)])
        torch.distributed.all_reduce(total)
        del network
print("sum", total.item())
try:
    other = program_facts() | ({"torch": "1.0"} if job.rank == 1 else {})
    require_equal_ranks(job, "program", other)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    if job.is_first:
        assert job.is_first_to_end("failed")
leaving.leave(0)
"""


def test_ranks_share_count_compare_and_exchange_tensors(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(JOB)
    done = run_forked(3, lambda rank: [script], tmp_path)
    assert [rank.returncode for rank in done] == [0] * 3, done
    assert all("shared by rank 0\n" in rank.stdout and "sum 3.0\n" in rank.stdout for rank in done), done
    assert "numbers [1, 2, 3, 4, 5, 6]" in done[0].stdout
    pattern = (
        r"RankError: ranks have not the same program: rank 1 on \S+: torch is \"1.0\" and \S+ on rank 0\n"
    )
    assert re.search(pattern, done[0].stdout), done[0].stdout
    assert all("OtherRankFailedError" in rank.stdout for rank in done[1:])
    assert "terminate called" not in "".join(rank.stderr for rank in done)


AGAIN = """
import sys
from decant.pipeline.ranks import ending, job as jobs, leaving

job = jobs.join()
try:
    if sys.argv[1] == "fails" and not job.is_first:
        raise ValueError("once")
    job.share("word", None if sys.argv[1] == "fails" else "again", "a word")
    print("goes on")
except Exception as error:
    print(type(error).__name__, ending.is_first_to_end("failed", error))
leaving.leave(0)
"""


def test_ranks_that_a_launcher_starts_again_do_not_take_the_last_failure_for_one_of_theirs(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(AGAIN)
    with launching(2) as given:
        # Of the launchers of two machines only the one whose rank has failed counts a restart.
        for how, counts, said in (
            ("fails", "00", ["OtherRankFailedError False\n", "ValueError True\n"]),
            ("goes on", "01", ["goes on\n"] * 2),
            ("fails", "11", ["OtherRankFailedError False\n", "ValueError True\n"]),
        ):
            more = {"DECANT_RANKS_TIMEOUT": "20"}
            ranks = [
                ([script, how], {**given(rank), **more, "TORCHELASTIC_RESTART_COUNT": count})
                for rank, count in enumerate(counts)
            ]
            assert [rank.stdout for rank in decant_at_once(ranks, tmp_path)] == said


def test_of_two_ranks_that_fail_at_once_before_a_third_has_come_one_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "_JOINING_SECONDS", 0.02)
    store = HashStore()
    launches = [Launch(rank, 3, rank, 3, "localhost", 1, True, "0") for rank in (1, 2)]
    first, second = (job.Job(launch, store, "a start") for launch in launches)
    said = list[bool]()

    def has(_: str) -> bool:
        """The second fails while the first waits for others to join."""
        if not said:
            said.append(second.is_first_to_end("failed"))
        return False

    monkeypatch.setattr(first, "has", has)
    said.append(first.is_first_to_end("failed"))
    assert said == [False, True]
    assert store.check([job.over(first.launch, "failed")])


def test_one_rank_says_what_all_of_them_meet(tmp_path: Path) -> None:
    done = run_ranks(2, "-m", "decant", "cache-logits", "--recipe", "no-such-recipe", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = said(done.stderr)
    assert re.fullmatch(r"decant: rank \d of 2 on \S+: .*no-such-recipe.*", line), line
    assert done.stdout == ""
    assert line.removeprefix("decant: ") in done.stderr.split("traceback :")[1], "torchrun's page has it too"


def test_one_rank_says_what_is_wrong_with_the_command(tmp_path: Path) -> None:
    done = run_forked(2, lambda rank: ["cache-logits", "--part", "17/16"], tmp_path)
    spoken = [rank for rank in done if rank.stderr]
    assert [rank.returncode for rank in spoken] == [2]
    assert "expected I/N with 1 ≤ I ≤ N" in spoken[0].stderr
    done = run_forked(2, lambda rank: ["cache-logits", "--part", "1/2"], tmp_path)
    assert "--part: the ranks of a job share the whole pass among them" in "".join(
        rank.stderr for rank in done
    )


@pytest.mark.parametrize("words", ["init", "cache-logits --dry-run"])
def test_a_command_with_nothing_to_divide_is_run_by_rank_0_alone(words: str, tmp_path: Path) -> None:
    folders = [tmp_path / str(rank) for rank in range(2)]
    given = words.split()
    done = run_forked(2, lambda rank: [*given, folders[rank]] if words == "init" else given, tmp_path)
    line = f"warning: {words}: has nothing to divide among 2 ranks; rank 0 alone runs it"
    assert done[0].stderr.splitlines()[0] == line, done
    assert (done[1].returncode, done[1].stdout, done[1].stderr) == (0, "", "")
    assert not folders[1].exists()
    assert folders[0].exists() == (words == "init")


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


@pytest.mark.parametrize("done", [False, True])
def test_a_rank_beside_another_ends_with_it_unless_its_work_is_done(done: bool) -> None:
    """A signal to one that is about to leave was a traceback on stderr, after everything had gone well."""
    script = (
        "import os, time\n"
        "from decant.pipeline.ranks.local_ranks import ranks_beside\n"
        "with ranks_beside(2):\n"
        f"    {'pass' if done else 'print(flush=True); time.sleep(60)'}\n"
        "print(flush=True)\n"
        "time.sleep(0.3)\n"
    )
    rank = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DECANT_RANKS_BESIDE": "2"},
    )
    assert rank.stdin is not None
    assert rank.stdout is not None
    rank.stdout.readline()
    rank.stdin.close()
    assert rank.wait() == (0 if done else -signal.SIGTERM)
    rank.stdout.close()


def test_a_rank_looks_often_at_first_and_seldom_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes at once is not waited for, and many ranks that wait for long leave the store in peace."""
    pauses = list[float]()
    monkeypatch.setattr(job.time, "sleep", pauses.append)
    waiting = Job(Launch(0, 2, 0, 2, "localhost", 1, True, "0"), HashStore(), "session")
    for _ in itertools.islice(waiting.polls("a word", 1), 60):
        pass
    assert pauses[0] <= 0.001
    assert all(pause <= 0.001 + sum(pauses[:number]) / 4 for number, pause in enumerate(pauses)), pauses
    assert pauses[-1] == 0.5


def test_a_rank_that_waits_for_the_store_hears_signals(tmp_path: Path) -> None:
    """As one that a scheduler has started, and not torchrun, before rank 0 runs."""
    given = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    script = tmp_path / "script.py"
    script.write_text(
        "from decant.pipeline.cli import signals\nfrom decant.pipeline.ranks import job\n"
        "signals.end_on_signals()\nprint('waits', flush=True)\njob.join()\n"
    )
    waiting = start(script, cwd=tmp_path, **given)
    assert line(waiting) == "waits\n"
    time.sleep(0.3)
    waiting.send_signal(signal.SIGTERM)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    ended = start("student", cwd=tmp_path, **given)
    if sys.platform == "linux":
        wait_until(lambda: _hears(ended.pid, signal.SIGTERM), ended)
    time.sleep(0.5)
    ended.send_signal(signal.SIGTERM)
    out, err = ended.communicate(timeout=60)
    assert (ended.returncode, out, err.strip()) == (128 + signal.SIGTERM, "", "")


def _hears(process: int, number: int) -> bool:
    """Whether a process has a handler of a signal by now."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    (caught,) = (line.partition(":")[2] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
