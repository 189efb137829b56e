"""Both phases on several hosts, of which one is cut off in the middle: what ends, what is said, and what is made then.

    sudo .venv/bin/python -m tests.systems.hosts [FOLDER]

It needs root, Linux and `ip`. It makes two network namespaces with a switch between them in a third. Each is a host
with a name, an address and a network card of its own, on this machine's files; the network of the machine is not
touched, and nothing is left of them. On these it runs `torchrun` with a c10d rendezvous on their addresses. FOLDER
keeps what is made; by default it is a temporary one. Where namespaces cannot be made it says why, and exits with 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from decant.cache import LogitCache, find_unfinished
from tests.helpers.commands import only
from tests.helpers.hosts import Hosts, Started, hosts, why_not
from tests.helpers.processes import ROOT

PORT = 29_500
PATIENCE = 15.0
"""Seconds that ranks wait for one that gives no sign (DECANT_RANKS_TIMEOUT)."""
ROUNDING = 1e-4
"""How far the weights of two ranks may be from those of one process."""
SLOWLY = 0.05
"""Seconds a batch where there is to be a middle: 16 views of 23 batches on two hosts take 9 seconds."""
_MIDDLE = 3.0
_AFTER_CUT = 60.0
"""Seconds within which both launchers must have ended after a host was cut off."""
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"  # of a run's folder
_MODULE = '''"""A network that takes its time over each batch, so that there is a middle to be cut off in."""

import os
import time

from torch import nn


class Slow(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        time.sleep(float(os.environ.get("SECONDS_A_BATCH", "0")))
        return self.inner(images)


def network(num_classes, input_shape):
    channels, height, width = input_shape
    return Slow(nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes)))
'''
_NO_LOCKS = '''"""What Python imports first: no file can be locked."""

import errno
import fcntl


def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")


fcntl.flock = flock
'''
_RECIPE = """
[data]
name = "digits"

[views]
count = 16
augment = [{ op = "pad-crop", padding = 1 }]

[teacher]
network = "slow:network"
epochs = 2

[cache]
batch_size = 64

[student]
network = "slow:network"
epochs = 12
seeds = 1
baseline = false
"""


def main() -> None:
    """Runs everything and says what was found; exit code 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.systems.hosts", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, nargs="?", help="keep what is made here")
    given = parser.parse_args().folder
    reason = why_not()
    if reason is not None:
        print(f"left out: hosts cannot be made here: {reason}")
        return
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM")
    )  # so that nothing is left of the hosts
    with tempfile.TemporaryDirectory(prefix="decant-hosts-") as temporary, hosts(2) as network:
        folder = given or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(network, folder)
        for check in (phase_one_by_parts, parts_without_locks, phase_one, phase_two):
            started = time.monotonic()
            found = check(job)
            print(f"{check.__name__}: {found} ({time.monotonic() - started:,.0f} s)", flush=True)


class Job:
    """The recipe in a folder that all hosts see, and commands on them."""

    def __init__(self, network: Hosts, folder: Path) -> None:
        self.hosts, self.folder = network, folder
        (folder / "slow.py").write_text(_MODULE)
        (folder / "recipe.toml").write_text(_RECIPE)
        self.alone("teacher")
        self.alone("cache-logits", "--store", "whole")
        self.whole = self.cache("whole").read_bytes()

    def alone(self, *words: str) -> str:
        """What a command says on host 0, in one process."""
        return _succeeded(
            self.start(0, ["-m", "decant", *words, "--recipe", "recipe.toml"], seconds_a_batch=0.0)
        )

    def everywhere(self, *words: str, seconds_a_batch: float) -> list[Started]:
        """A command under torchrun, a rank on each host."""
        network = self.hosts
        return [
            self.start(
                host,
                [
                    *("-m", "torch.distributed.run", f"--nnodes={network.count}", "--nproc-per-node=1"),
                    *("--rdzv-backend=c10d", f"--rdzv-endpoint={network.address(0)}:{PORT}"),
                    *("--rdzv-id=decant", f"--local-addr={network.address(host)}"),
                    *("-m", "decant", *words, "--recipe", "recipe.toml"),
                ],
                seconds_a_batch,
            )
            for host in range(network.count)
        ]

    def start(self, host: int, words: Sequence[str], seconds_a_batch: float, *found_first: Path) -> Started:
        """Python on a host, which finds modules in some folders first."""
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, (*found_first, ROOT))),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "DECANT_RANKS_TIMEOUT": str(PATIENCE),
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "SECONDS_A_BATCH": str(seconds_a_batch),
        }
        return self.hosts.start(host, [sys.executable, *words], self.folder, environment)

    def cache(self, store: str) -> Path:
        """Where the cache of the recipe lies in a store, whether it is there or not: as it is called in `whole`."""
        (path,) = (self.folder / "whole").glob("*.h5")
        return self.folder / store / path.name

    def wait_for_the_middle(self, pattern: str, running: Sequence[Started]) -> None:
        """Returns some seconds after a file is there."""
        _wait(lambda: any(self.folder.glob(pattern)), running)
        until = time.monotonic() + _MIDDLE
        _wait(lambda: time.monotonic() > until, running)


def phase_one_by_parts(job: Job) -> str:
    """A part on each host, without a rendezvous: the cable does not matter, and a part that is killed goes on."""
    command = ("-m", "decant", "cache-logits", "--recipe", "recipe.toml", "--store", "parts")
    running = [job.start(host, [*command, "--part", f"{host + 1}/2"], SLOWLY) for host in (0, 1)]
    job.wait_for_the_middle("parts/*.partial", running)
    job.hosts.cut_off(1)
    job.hosts.switch_off(0, signal.SIGKILL)
    running[0].end(60)
    _require(running[1].end(300) == 0, f"the part on the host that was cut off: {running[1].said()}")
    _require(not job.cache("parts").exists(), "published without the part that was killed")
    job.hosts.connect(1)
    _succeeded(job.start(0, [*command, "--part", "1/2"], 0.0))
    _require(
        job.cache("parts").read_bytes() == job.whole,
        "the cache of parts has other bytes than that of one pass",
    )
    return "a part was killed and a host cut off; the same bytes as one process"


def parts_without_locks(job: Job) -> str:
    """A part on each host at once, in a folder without locks, as some network file systems have none."""
    (job.folder / "no-locks").mkdir(exist_ok=True)
    (job.folder / "no-locks" / "sitecustomize.py").write_text(_NO_LOCKS)
    command = ("-m", "decant", "cache-logits", "--recipe", "recipe.toml", "--store", "unlocked")
    running = [
        job.start(host, [*command, "--part", f"{host + 1}/2"], 0.0, job.folder / "no-locks")
        for host in (0, 1)
    ]
    for process in running:
        _succeeded(process)
    if not job.cache("unlocked").exists():  # each may have been sure that the other still writes
        _succeeded(job.start(1, [*command, "--part", "1/2"], 0.0, job.folder / "no-locks"))
    _require(
        job.cache("unlocked").read_bytes() == job.whole,
        "the cache of parts has other bytes than that of one pass",
    )
    return "two hosts at once without locks; the same bytes as one process"


def phase_one(job: Job) -> str:
    """A rank on each host, of which one is cut off; then the same command again."""
    command = ("cache-logits", "--store", "ranks")
    running = job.everywhere(*command, seconds_a_batch=SLOWLY)
    job.wait_for_the_middle("ranks/*.partial", running)
    cut = _cut_off(job, running)
    _require(not job.cache("ranks").exists(), "published while a host was cut off")
    kept = find_unfinished(job.cache("ranks"))
    for process in job.everywhere(*command, seconds_a_batch=0.0):
        _succeeded(process)
    _require(
        job.cache("ranks").read_bytes() == job.whole,
        "the cache of the ranks has other bytes than that of one pass",
    )
    _require(LogitCache.open(job.cache("ranks")).verify() == [], "the cache of the ranks is not sound")
    share = kept.rows / kept.total if kept else 0.0
    return f"{cut}; {share:.0%} of the rows were kept; then the same bytes as one process"


def phase_two(job: Job) -> str:
    """A student whose batches two hosts divide, of which one is cut off; then the same command again."""
    for runs in ("one", "two"):
        shutil.copytree(job.folder / "runs", job.folder / runs, dirs_exist_ok=True)
    job.alone("student", "--store", "whole", "--runs", "one")
    command = ("student", "--store", "whole", "--runs", "two")
    running = job.everywhere(*command, seconds_a_batch=SLOWLY)
    job.wait_for_the_middle(f"two/**/{CHECKPOINT}", running)
    cut = _cut_off(job, running)
    _require(not any(job.folder.glob("two/**/student-*/**/result.json")), "finished while a host was cut off")
    for process in job.everywhere(*command, seconds_a_batch=0.0):
        _succeeded(process)
    alone, together = (
        load_file(only(job.folder / runs, f"**/student-*/**/{WEIGHTS}")) for runs in ("one", "two")
    )
    apart = max(float(np.abs(alone[name] - together[name]).max()) for name in alone)
    _require(apart < ROUNDING, f"the weights are {apart} from those of one process")
    return f"{cut}; then weights within {apart:.1g} of those of one process"


def _cut_off(job: Job, running: Sequence[Started]) -> str:
    """Cuts host 1 off until both launchers have ended, and connects it again; what they did, in words."""
    job.hosts.cut_off(1)
    started, found = time.monotonic(), []
    for each in running:
        code = each.end(max(1.0, _AFTER_CUT - (time.monotonic() - started)))
        lines = [line for line in each.said().splitlines() if "decant: " in line]
        words = "had to be ended" if code is None else f"ended with {code}"
        found.append(f"host {each.host} {words} after {time.monotonic() - started:,.0f} s")
        _require(code != 0, f"ended well without the other: {each.said()}")
        _require("unexpected error" not in each.said(), each.said())
        (job.folder / f"said-{each.host}.txt").write_text(each.said())
        for line in dict.fromkeys(lines):
            print(f"  host {each.host} said: {line}", flush=True)
    job.hosts.connect(1)
    return ", ".join(found)


def _wait(condition: Callable[[], bool], running: Sequence[Started]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        for process in running:
            if process.has_ended():
                _require(False, f"ended before its time: {process.said()}")
        _require(time.monotonic() < deadline, "nothing came of it within 300 s")
        time.sleep(0.05)


def _succeeded(process: Started) -> str:
    code = process.end(300)
    _require(code == 0, f"exit {code}: {process.said()}")
    return process.said()


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        sys.exit(f"tests.systems.hosts: {otherwise}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
