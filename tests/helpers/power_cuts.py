"""A disk that loses power: the process is killed at a call, and of what was not synced the disk has some, in any order.

A file has the bytes of its last sync, or those that it had when the power went, or pages of either. A change of a
folder (a new name, another one, one that goes) is there for certain when the folder was synced after it; of the others
some are there and some are not, as POSIX allows, whatever their order. Then the same command runs again.

`python -m tests.helpers.power_cuts DIR KINDS CUTS SEED [STEP]`, KINDS of `tests.helpers.cache_commands` with commas: so
many cuts at each call, or each STEP-th. Run in a process of its own, since it forks.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decant.cache.format import hdf5
from decant.cache.io import synced
from tests.helpers.cache_commands import KINDS, Command, run_quietly
from tests.helpers.killing import die_at

_PAGE = 4096
_LEFT_BEHIND = (".draft", ".fetching", ".synced", ".rows", ".joined")
"""What a lost change of a folder may leave for ever, until `decant cache gc` removes it."""

Change = list[Any]
"""["name", path, inode], ["lose", path] or ["rename", from, to, inode]: a change of a folder; ["sync", folder]."""


class Disk:
    """What a process that `watches` has synced, in a folder beside its work."""

    def __init__(self, side: Path) -> None:
        self.side = side
        side.mkdir()
        self._log = os.open(side / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watch(self) -> None:
        """Notes, in this process, each sync and each change of a folder; nothing is really synced."""
        real = {name: getattr(os, name) for name in ("open", "link", "unlink", "rename", "replace")}

        def fsync(fd: int) -> None:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                self._note("sync", os.readlink(f"/proc/self/fd/{fd}"))
            else:
                shutil.copyfile(f"/proc/self/fd/{fd}", self.side / f"{status.st_ino}.synced")

        def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
            new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            fd: int = real["open"](path, flags, *more, **named)
            if new:
                self._note("name", os.path.abspath(path), os.fstat(fd).st_ino)
            return fd

        def link(path: Any, name: Any) -> None:
            real["link"](path, name)
            self._note("name", os.path.abspath(name), os.lstat(name).st_ino)

        def unlink(path: Any, **named: Any) -> None:
            self._keep(path)
            real["unlink"](path, **named)
            self._note("lose", os.path.abspath(path))

        def rename(path: Any, name: Any) -> None:
            if os.path.lexists(name):
                self._keep(name)
            real["replace"](path, name)
            self._note("rename", os.path.abspath(path), os.path.abspath(name), os.lstat(name).st_ino)

        create = hdf5.create

        def created(path: Any, *more: Any) -> Any:
            made = create(path, *more)
            self._note("name", os.path.abspath(path), os.lstat(path).st_ino)
            return made

        os.fsync, os.open, os.link, os.unlink = fsync, opened, link, unlink  # type: ignore[assignment]
        os.rename = os.replace = rename  # type: ignore[assignment]
        hdf5.create = created

    def _note(self, *change: Any) -> None:
        os.write(self._log, json.dumps(change).encode() + b"\n")

    def _keep(self, path: Any) -> None:
        """What loses a name may have it again."""
        if os.path.isfile(path):
            shutil.copyfile(path, self.side / f"{os.lstat(path).st_ino}.gone")

    def changes(self) -> list[Change]:
        """In their order."""
        return [json.loads(line) for line in (self.side / "log").read_text().splitlines()]


def lose_power(work: Path, before: Path, disk: Disk, chance: random.Random) -> None:
    """Makes of `work` what a disk may have of it; `before` is what it had for certain, as it began."""
    now = {path.stat().st_ino: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    for kept in disk.side.glob("*.gone"):
        now.setdefault(int(kept.stem), kept.read_bytes())
    certain = {int(found.stem): found.read_bytes() for found in disk.side.glob("*.synced")}
    names: dict[str, int] = {}
    for number, path in enumerate(path for path in before.rglob("*") if path.is_file()):
        there = work / path.relative_to(before)
        inode = there.stat().st_ino if there.exists() else -1 - number
        names[str(there)], certain[inode] = inode, certain.get(inode, path.read_bytes())
    pending: list[Change] = []
    for change in disk.changes():
        if change[0] == "sync":
            for each in [
                each for each in pending if os.path.dirname(each[-1 - _ends_with_inode(each)]) == change[1]
            ]:
                _change(names, each)
                pending.remove(each)
        else:
            pending.append(change)
    share = chance.choice([0.0, 0.5, 0.5, 1.0])
    for change in [each for each in pending if chance.random() < share]:
        _change(names, change)
    shutil.rmtree(work)
    written: dict[int, str] = {}
    for path, inode in names.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if inode in written:
            os.link(written[inode], path)
        elif inode in now or inode in certain:
            after = now.get(inode, certain.get(inode, b""))
            Path(path).write_bytes(_some_of(certain.get(inode, bytes(len(after))), after, chance))
            written[inode] = path
    work.mkdir(exist_ok=True)


def _ends_with_inode(change: Change) -> bool:
    return isinstance(change[-1], int)


def _change(names: dict[str, int], change: Change) -> None:
    if change[0] != "name":
        names.pop(change[1], None)
    if change[0] != "lose":
        names[change[-2]] = change[-1]


def _some_of(certain: bytes, after: bytes, chance: random.Random) -> bytes:
    share, size = chance.choice([0.0, 0.5, 1.0]), chance.choice([len(certain), len(after)])
    old, new = certain.ljust(size, b"\0")[:size], after.ljust(size, b"\0")[:size]
    places = range(0, size, _PAGE)
    return b"".join((new if chance.random() < share else old)[place : place + _PAGE] for place in places)


def run(work: Callable[[], None]) -> bool:
    """Calls `work` in a forked process; whether that was killed. Raises AssertionError where it failed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -9), "the command failed by itself"
    return ended != 0


def everything_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder; but locks, which say who held them last, and what a lost change may leave."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    passing = (".lock", ".source", *_LEFT_BEHIND)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix not in passing}


def at_each_call(command: Command, root: Path, cuts: int, seed: int, step: int = 1) -> int:
    """Cuts the power so often at each `step`-th call, before and after it; returns how often. Raises AssertionError
    where what is published then is not whole, or the command that runs again does not make what it makes undisturbed.
    """
    chance, base, work = random.Random(seed), root / "base", root / "work"
    base.mkdir(parents=True)
    command.prepare(base)
    shutil.copytree(base, root / "never")
    run_quietly(command, root / "never")
    done, expected = 0, everything_in(root / "never")
    for halfway, first in itertools.product((False, True), range(cuts)):
        for call in itertools.count(1 + first % step, step):
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(root / "side", ignore_errors=True)
            shutil.copytree(base, work)
            disk = Disk(root / "side")

            def disturbed(call: int = call, halfway: bool = halfway, disk: Disk = disk) -> None:
                disk.watch()
                die_at(call, halfway)
                run_quietly(command, work)

            killed = run(disturbed)
            lose_power(work, base, disk, chance)
            done += 1
            found = everything_in(work)
            half = [name for name in found.keys() & expected.keys() if found[name] != expected[name]]
            assert not half, f"call {call}: published, and not whole: {half}"
            assert not run(lambda: run_quietly(command, work))
            assert everything_in(work) == expected, f"call {call}: something else than undisturbed"
            if not killed:
                break
    return done


if __name__ == "__main__":
    synced.SYNC_BYTES = 100_000
    folder, kinds, cuts, seed = sys.argv[1:5]
    step = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    for kind in kinds.split(","):
        root = Path(folder).absolute() / kind
        print(kind, at_each_call(KINDS[kind], root, int(cuts), int(seed), step), flush=True)
