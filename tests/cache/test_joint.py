"""Writers that join one partial file: parts of a pass at any time, ranks of a job, whatever locks are worth."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from decant.cache import (
    CacheError,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    StorageError,
    partial_rows,
)
from decant.cache.io import joint, partial
from decant.cache.io.flock import EXCLUSIVE, FREE, SHARED, flock, try_flock
from tests.helpers.caches import build, holds_the_answers, leftovers, manifest, write, write_missing
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished, line
from tests.helpers.weak_locks import WEAK, weaken

OF = manifest(100)
PART = """
import sys, numpy as np
from decant.cache import IncompleteError, LogitCacheWriter
from tests.helpers.caches import manifest, write
part, parts = int(sys.argv[2]), int(sys.argv[3])
with LogitCacheWriter.join(sys.argv[1], manifest(100)) as writer:
    print(writer.partial, flush=True)
    if len(sys.argv) > 4:
        sys.stdin.readline()
    for number in range(8):  # two views of four blocks
        if number * parts // 8 == part:
            view, block = divmod(number, 4)
            rows = np.arange(32 * block, min(100, 32 * (block + 1)))
            write(writer, view, rows[~writer.is_written(view)[rows]])
    try:
        print(writer.publish(), flush=True)
    except IncompleteError as error:
        print(error, flush=True)
"""


@pytest.fixture(params=["locks", *WEAK])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system's locks are worth between two writers."""
    weaken(request.param, monkeypatch)
    return str(request.param)


@pytest.mark.parametrize("published", [False, True])
def test_a_joint_file_whose_name_somebody_has_removed_is_published_as_a_copy_unless_the_cache_is_there(
    published: bool, tmp_path: Path
) -> None:
    path = tmp_path / "c.h5"
    with LogitCacheWriter.join(path, OF) as writer:
        for view in range(2):
            write(writer, view, np.arange(100))
        write(writer, 0, np.arange(0))
        writer.partial.unlink()
        if published:
            build(path, OF)
        assert writer.publish() == path
        assert ".partial" not in "".join(os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors())
    assert holds_the_answers(LogitCache.open(path))


def open_descriptors() -> list[str]:
    with os.scandir("/proc/self/fd") as entries:
        found = [entry.name for entry in entries]
    return [name for name in found if os.path.lexists(f"/proc/self/fd/{name}")]


def test_what_a_part_has_written_is_on_the_disk_before_another_may_publish_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: a sync there knows nothing of what waits here."""
    calls = list[str]()

    def noted(module: object, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (calls.append(name), real(*given))[1])

    with (
        LogitCacheWriter.join(tmp_path / "c.h5", OF) as here,
        LogitCacheWriter.join(tmp_path / "c.h5", OF) as there,
    ):
        write_missing(here)
        noted(os, "fsync")
        noted(partial_rows.locks, "give_up")
        with pytest.raises(IncompleteError, match="the last one publishes"):
            here.publish()
        assert calls == ["fsync", "give_up"]
        monkeypatch.undo()
        here.close()
        assert holds_the_answers(LogitCache.open(there.publish()))
        assert ".partial" not in "".join(os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(joint, "_POLL_SECONDS", 0.01)


def write_block(writer: LogitCacheWriter, number: int) -> None:
    view, block = divmod(number, 4)
    write(writer, view, np.arange(32 * block, min(100, 32 * (block + 1))))


def test_parts_at_once_and_one_after_the_other_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    first = [fork_python(PART, path, part, 4, "waits") for part in (2, 0)]
    names = {line(process).strip() for process in first}
    late = fork_python(PART, path, 3, 4)
    names.add(line(late).strip())
    assert "blocks are not written" in finished(late)
    assert len(names) == 1, "every part writes the same file"
    assert len(joint.members(Path(*names))) == 2
    for process in first:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert "blocks are not written" in finished(process)
    assert str(path) in finished(fork_python(PART, path, 1, 4)).splitlines()
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


def test_several_that_find_it_whole_at_once_publish_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    for part in range(4):
        writer = LogitCacheWriter.join(path, OF)
        write_block(writer, 2 * part)
        write_block(writer, 2 * part + 1)
        writer.close()
    together = [fork_python(PART, path, 9, 4, "waits") for _ in range(4)]
    for process in together:
        line(process)
    for process in together:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [finished(process).strip() for process in together]
    assert said.count(str(path)) >= 1
    assert all(each == str(path) or "the last one publishes" in each for each in said), said
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


def test_what_a_slow_twin_still_writes_is_never_published_under_it(
    tmp_path: Path, locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same part twice, as a scheduler starts a job again whose machine it lost: the first is not dead."""
    path = tmp_path / "cache.h5"
    slow = LogitCacheWriter.join(path, OF)
    if locks == "locks that end at the machine":
        monkeypatch.setattr(partial, "machine", lambda: "another")
    quick = LogitCacheWriter.join(path, OF)
    assert slow.partial == quick.partial
    begun = os.fstat(slow._rows.fd).st_ino
    write_missing(quick)
    if locks == "locks":
        with pytest.raises(IncompleteError, match="the last one publishes"):
            quick.publish()
        quick.close()
        assert not path.exists()
        assert slow.publish() == path
        assert path.stat().st_ino == begun, "no copy where it is certain that nobody else writes"
    else:
        assert quick.publish() == path
        assert path.stat().st_ino != begun, "a file that another process may write was published"
        content = path.read_bytes()
        os.pwrite(slow._rows.fd, b"other", 40_000)
        assert path.read_bytes() == content
        slow.close()
    assert holds_the_answers(LogitCache.open(path, verify="open"))
    assert leftovers(tmp_path) == []


def test_blocks_of_others_are_not_written_again(tmp_path: Path) -> None:
    with (
        LogitCacheWriter.join(tmp_path / "cache.h5", OF) as one,
        LogitCacheWriter.join(tmp_path / "cache.h5", OF) as two,
    ):
        write_block(one, 5)
        assert not two.is_written(1).any()
        write_block(two, 5)
        assert two.is_written(1)[32:64].all()
        write_block(one, 0)
        assert two.in_file(np.arange(30, 34), 0).tolist() == [True, True, False, False]
        assert not two.is_written(0).any(), "it changes nothing"
        two.refresh()
        assert two.is_written(0).tolist() == [True] * 32 + [False] * 68


def test_a_killed_part_of_this_machine_leaves_nothing_uncertain(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    killed = fork_python(PART, path, 0, 4, "waits")
    begun = Path(line(killed).strip())
    assert len(joint.members(begun)) == 1
    inode = begun.stat().st_ino
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert [found.living for found in joint.members(begun)] == [False]
    with LogitCacheWriter.join(path, OF) as writer:
        assert writer.partial == begun
        write_missing(writer)
        writer.publish()
    assert path.stat().st_ino == inode
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("of", ["elsewhere", "here_00000001"], ids=["another", "a copy of this one"])
def test_after_the_crash_of_another_machine_a_copy_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    path = tmp_path / "cache.h5"
    monkeypatch.setattr(partial, "is_of_one_machine", lambda folder: False)
    monkeypatch.setattr(partial, "machine", lambda: of)
    crashed = LogitCacheWriter.join(path, OF)
    write_block(crashed, 0)
    os.close(crashed._rows.fd)  # without a word: its `.joined` file stays
    assert crashed._rows._member is not None
    os.close(crashed._rows._member._fd)
    monkeypatch.setattr(partial, "machine", lambda: "here_00000002")
    inode = crashed.partial.stat().st_ino
    with LogitCacheWriter.join(path, OF) as writer:
        assert writer.partial == crashed.partial
        assert writer.is_written(0)[:32].all()
        write_missing(writer)
        writer.publish()
    assert path.stat().st_ino != inode
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


def test_a_whole_pass_goes_on_in_the_file_of_parts(tmp_path: Path, locks: str) -> None:
    path = tmp_path / "cache.h5"
    with LogitCacheWriter.join(path, OF) as part:
        write_block(part, 3)
    with LogitCacheWriter(path, OF) as whole:
        assert whole.is_written(0).sum() == 4
        assert (whole.partial == part.partial) == (locks != "no locks")
        write_missing(whole)
        whole.publish()
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


def test_a_joint_file_of_another_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with LogitCacheWriter.join(path, OF) as first:
        with pytest.raises(MismatchError, match="was begun with another identity"):
            LogitCacheWriter.join(path, manifest(101))
        write_missing(first)
        first.publish()
    with pytest.raises(CacheError, match="already published"):
        LogitCacheWriter.join(path, OF)


def test_two_files_that_were_begun_at_once_become_one(
    tmp_path: Path, locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no lock has one writer wait for the other: neither removes a file that the other writes."""
    path = tmp_path / "cache.h5"
    with monkeypatch.context() as patched:
        patched.setattr(partial, "machine", lambda: "elsewhere")
        first = LogitCacheWriter.join(path, OF)
    with monkeypatch.context() as patched:
        patched.setattr(joint, "join_one", lambda _: None)
        second = LogitCacheWriter.join(path, OF)
    assert first.partial != second.partial
    write_block(first, 0)
    for block in range(4, 8):
        write_block(second, block)
    with pytest.raises(IncompleteError):
        second.publish()
    assert first.partial.exists()
    second.close()
    for block in range(1, 4):
        write_block(first, block)
    first.close()
    with LogitCacheWriter.join(path, OF) as last:
        last.publish()
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("how", ["removed", "published", "published as a copy"])
def test_what_was_removed_or_published_just_now_is_not_joined(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.h5"
    LogitCacheWriter.join(path, OF).close()

    def first(fd: int, kind: int) -> bool | None:
        for found in partial.begun(path) if not path.exists() else ():
            if how == "published":
                os.link(found, path)  # it has both of its names for a moment
            else:
                found.unlink()
        return try_flock(fd, kind)

    monkeypatch.setattr(joint, "try_flock", first)
    if how == "published as a copy":
        path.touch()
    before = open_descriptors()
    assert joint.join_one(path) is None
    assert open_descriptors() == before


def test_who_publishes_waits_a_moment_for_others_to_end_or_to_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.h5"
    unfinished = joint.new_joint_name(path)
    with unfinished.open("wb") as file, unfinished.open("rb") as writer:
        assert try_flock(writer.fileno(), SHARED)
        with pytest.raises(IncompleteError):
            joint.become_the_only_writer(file.fileno(), unfinished, path)
        assert try_flock(writer.fileno(), EXCLUSIVE), "who gives up leaves the lock to others"
        with monkeypatch.context() as patient:
            patient.setattr(joint, "_PATIENCE_SECONDS", 60.0)
            assert try_flock(writer.fileno(), SHARED)
            threading.Timer(0.05, flock, (writer.fileno(), FREE)).start()
            assert joint.become_the_only_writer(file.fileno(), unfinished, path)
        path.touch()
        for kind in (FREE, SHARED):  # it was published as a copy, by who could not see that writer
            flock(file.fileno(), FREE)
            flock(writer.fileno(), kind)
            with pytest.raises(FileExistsError):
                joint.become_the_only_writer(file.fileno(), unfinished, path)


def test_what_a_process_has_left_tells_whether_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its lock, and where there are none by its number, which another process may have by now."""
    unfinished = joint.new_joint_name(tmp_path / "cache.h5")
    left = unfinished.with_name(f"{unfinished.name}.{partial.machine()}_12345678{partial.JOINED}")

    def found(said: object) -> tuple[bool | None, int]:
        left.write_text(json.dumps(said))
        (member,) = joint.members(unfinished)
        return member.living, member.rows

    assert found({"process": os.getpid(), "rows": 3}) == (False, 3)
    weaken("no locks", monkeypatch)
    assert found({"process": os.getpid(), "rows": 3}) == (True, 3)
    assert found({"process": 1 + (1 << 22), "rows": 3}) == (False, 3), "no process has that number"
    for said in ({"process": 10**30}, {"rows": True}, [3], {"rows": 3, "more": 4096 * "x"}):
        assert found(said) == (True, 0)
    left.unlink()
    for given, rank in (({"RANK": "3"}, None), ({"RANK": "3", "WORLD_SIZE": "4"}, 3)):
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        member = joint.Member(unfinished)
        assert [one.rank for one in joint.members(unfinished)] == [rank]
        member.close()


def test_one_after_the_other_looks_whether_there_is_a_file_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that look at once would make a file each; who had to wait may find the cache published meanwhile."""
    path, other = tmp_path / "cache.h5", build(tmp_path / "other.h5", OF)
    folder = os.open(tmp_path, os.O_RDONLY)

    def published_before(_: Path) -> None:
        assert try_flock(folder, EXCLUSIVE) is False, "nobody else looks"
        other.rename(path)

    monkeypatch.setattr(joint, "join_one", published_before)
    with pytest.raises(CacheError, match="already published"):
        LogitCacheWriter.join(path, OF)
    os.close(folder)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_who_joins_others_reserves_nothing(
    locks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system has no call for it, the C library writes into each page, and may undo what others write."""
    weaken(locks, monkeypatch)
    reserved = list[Path]()
    monkeypatch.setattr(partial_rows, "reserve", lambda fd, size, path: reserved.append(path))
    with LogitCacheWriter.join(tmp_path / "cache.h5", OF):
        reserved.clear()
        LogitCacheWriter.join(tmp_path / "cache.h5", OF).close()
    assert reserved == []


def test_what_cannot_be_gone_on_with_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or whoever publishes would take this process for one that still writes."""

    def full(fd: int, size: int, path: Path) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(partial_rows, "reserve", full)
    with pytest.raises(StorageError, match="no room"):
        LogitCacheWriter.join(tmp_path / "cache.h5", OF)
    assert list(tmp_path.glob("*.joined")) == []


def test_a_block_that_another_has_written_is_taken_for_that_block_and_no_other(tmp_path: Path) -> None:
    with (
        LogitCacheWriter.join(tmp_path / "cache.h5", OF) as other,
        LogitCacheWriter.join(tmp_path / "cache.h5", OF) as writer,
    ):
        write_block(other, 4 + 2)
        write(writer, 1, np.arange(70, 74))
        assert np.flatnonzero(writer.is_written(1)).tolist() == list(range(64, 96))
        assert not writer.is_written(0).any()


def test_who_is_alone_reads_back_what_was_not_synced(tmp_path: Path) -> None:
    """A damaged block would else be found when all others are computed."""
    path = tmp_path / "cache.h5"
    with LogitCacheWriter.join(path, OF) as writer:
        write_block(writer, 0)
        os.pwrite(writer._rows.fd, b"\x12", writer.layout.tables["logits"].offset + 3)
    with LogitCacheWriter.join(path, OF) as writer:
        assert not writer.is_written(0).any()


def test_what_another_has_found_damaged_just_before_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has marked the block as unwritten; nobody could read a file that has such a block."""
    path, become = tmp_path / "cache.h5", joint.become_the_only_writer
    with LogitCacheWriter.join(path, OF) as writer:
        write_missing(writer)

        def marked_first(fd: int, *more: Path) -> bool:
            writer._rows.stored.write_entry(1, 2, 0)
            return become(fd, *more)

        monkeypatch.setattr(joint, "become_the_only_writer", marked_first)
        assert writer.publish() == path
    assert holds_the_answers(LogitCache.open(path, verify="open"))
