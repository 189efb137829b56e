"""Unfinished files: one builder a file, whatever locks are worth, and nothing of them stays once one is published."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import (
    CacheError,
    FormatError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    StorageError,
    beginning,
)
from decant.cache.io import partial
from decant.cache.io.locks import claim
from tests.helpers.caches import build, holds_the_answers, leftovers, manifest, write, write_missing
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished
from tests.helpers.weak_locks import WEAK, weaken


@pytest.fixture(params=["shared locks", *WEAK])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system's locks are worth between two writers."""
    weaken(request.param, monkeypatch)
    if request.param == "locks that end at the machine":
        machines = iter(f"host{number}" for number in range(1000))
        monkeypatch.setattr(partial, "machine", lambda: next(machines))
    return str(request.param)


def partials(path: Path) -> list[Path]:
    return partial.begun(path)


def test_a_partial_file_is_named_after_its_machine(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "a b.h5", manifest()) as writer:
        assert partials(tmp_path / "a b.h5") == [writer.partial]
        assert writer.partial.name.startswith(f"a b.h5.{partial.machine()}-")
        assert writer.partial.name.endswith(".partial")
        assert partials(tmp_path / "a.h5") == []


def test_a_name_of_another_cache_is_not_taken_for_ours(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "a.h5.b.h5", manifest()):
        assert partials(tmp_path / "a.h5") == []


def test_two_builders_never_share_a_file(tmp_path: Path, locks: str) -> None:
    """Both write, turn about; the first to publish wins, the other ends well, and nothing of either stays."""
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, manifest()) as first, LogitCacheWriter(path, manifest()) as second:
        assert os.fstat(first._rows.fd).st_ino != os.fstat(second._rows.fd).st_ino
        write_missing(first, 5)
        write_missing(second, 9)
        assert second.publish() == path
        inode = path.stat().st_ino
        assert first.publish() == path
        assert path.stat().st_ino == inode, "a published file was replaced"
    assert holds_the_answers(LogitCache.open(path, verify="open"))
    assert leftovers(tmp_path) == []


def test_a_builder_whose_name_was_taken_publishes_all_the_same(tmp_path: Path, locks: str) -> None:
    """The second cannot tell that the first lives, takes its blocks and its name, and is slower in the end."""
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, manifest()) as first:
        write(first, 0, range(50))
        with LogitCacheWriter(path, manifest()) as second:
            taken = locks != "shared locks"
            assert first.partial.exists() != taken
            assert second.is_written(0).all(), "the first's blocks are copied"
            write_missing(first)
            assert first.publish() == path
            content = path.read_bytes()
            write_missing(second)
            assert second.publish() == path
    assert path.read_bytes() == content
    assert holds_the_answers(LogitCache.open(path, verify="open"))
    assert leftovers(tmp_path) == []


def test_work_is_taken_over_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.h5"
    monkeypatch.setattr(partial, "machine", lambda: "gpu01")
    with LogitCacheWriter(path, manifest()) as writer:
        write(writer, 1, range(40))
        begun = writer.partial
    monkeypatch.setattr(partial, "machine", lambda: "gpu02")
    with LogitCacheWriter(path, manifest()) as writer:
        assert writer.is_written(1).sum() == 40, "one whole block, and eight rows of another"
        assert not begun.exists(), "no more space than for one file"
        assert write_missing(writer) == 60
        writer.publish()
    assert path.read_bytes() == build(tmp_path / "other.h5").read_bytes()


def test_a_damaged_block_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.h5"
    monkeypatch.setattr(partial, "machine", lambda: "gpu01")
    with LogitCacheWriter(path, manifest()) as writer:
        write(writer, 0, range(50))
        os.pwrite(writer._rows.fd, b"\x12", writer.layout.tables["logits"].offset + 3)
    monkeypatch.setattr(partial, "machine", lambda: "gpu02")
    with LogitCacheWriter(path, manifest()) as writer:
        assert writer.is_written(0).tolist() == [False] * 32 + [True] * 18


def test_values_that_no_writer_stores_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.h5"
    monkeypatch.setattr(partial, "machine", lambda: "gpu01")
    with LogitCacheWriter(path, manifest()) as writer:
        write(writer, 0, range(50))
        writer._rows.stored.write("logits", 0, 3, np.full((1, 1000), np.nan, "<f2"))
        writer._rows.stored.write_entry(0, 0, writer._rows.stored.expected_entry(0, 0))
    monkeypatch.setattr(partial, "machine", lambda: "gpu02")
    with LogitCacheWriter(path, manifest()) as writer:
        assert writer.is_written(0).tolist() == [False] * 32 + [True] * 18


def test_the_same_machine_goes_on_in_place(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        begun, inode = writer.partial, writer.partial.stat().st_ino
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert writer.partial == begun
        assert os.fstat(writer._rows.fd).st_ino == inode
        assert writer.is_written(0).all()


def named(number: int) -> str:
    """A machine as partial files have it: copies of one, each started by itself."""
    return f"trainer_0242ac110002_0000000{number}"


def test_copies_of_one_machine_never_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts of the same name and address, as containers of one image, whose locks do not reach each other."""
    weaken("locks that end at the machine", monkeypatch)
    monkeypatch.setattr(partial, "is_of_one_machine", lambda folder: False)
    path, machines = tmp_path / "cache.h5", iter(map(named, range(100)))
    monkeypatch.setattr(partial, "machine", lambda: next(machines))
    with LogitCacheWriter(path, manifest()) as first, LogitCacheWriter(path, manifest()) as second:
        assert os.fstat(first._rows.fd).st_ino != os.fstat(second._rows.fd).st_ino
        write_missing(second)
        content = second.publish().read_bytes()
        write_missing(first)
        assert path.read_bytes() == content


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("before", [named(1), "trainer_0242ac110002"])
def test_a_machine_that_was_started_anew_goes_on_in_place_where_no_other_has_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, shared: bool
) -> None:
    if shared:
        monkeypatch.setattr(partial, "is_of_one_machine", lambda folder: False)
    monkeypatch.setattr(partial, "machine", lambda: before)
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        begun = writer.partial
    monkeypatch.setattr(partial, "machine", lambda: named(2))
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert (writer.partial == begun) != shared
        assert writer.is_written(0).all()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the file")
def test_a_machine_has_what_its_copies_have_not() -> None:
    assert partial.machine().endswith(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])


def test_ranks_of_one_job_share_a_file(tmp_path: Path) -> None:
    """Three processes get the writer of the first, pickled, and write every third block of each view."""
    script = """
import pickle, sys
import numpy as np
from tests.helpers.caches import write
rank, writer = int(sys.argv[1]), pickle.loads(bytes.fromhex(sys.argv[2]))
for view in range(2):
    for block in range(rank, writer.blocks.per_view, 3):
        write(writer, view, np.arange(*writer.blocks.bounds(block)))
"""
    import pickle

    of = manifest(300)
    with LogitCacheWriter(tmp_path / "cache.h5", of) as writer:
        ranks = [fork_python(script, rank, pickle.dumps(writer).hex()) for rank in range(3)]
        for rank in ranks:
            finished(rank)
        path = writer.publish()
    assert path.read_bytes() == build(tmp_path / "alone.h5", of).read_bytes()


def test_a_file_that_a_rank_still_writes_is_left_to_it(tmp_path: Path) -> None:
    import pickle

    writer = LogitCacheWriter(tmp_path / "cache.h5", manifest())
    rank = pickle.loads(pickle.dumps(writer))
    writer.close()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as other:
        assert other.partial != rank.partial
        assert rank.partial.exists()
    rank.close()


@pytest.mark.parametrize("living", [False, True])
def test_a_partial_file_of_another_question_is_refused(tmp_path: Path, living: bool) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as first:
        if not living:
            first.close()
        with pytest.raises(
            MismatchError, match=r"begun with another identity(.|\n)*views.count: expected 3, found 2"
        ):
            LogitCacheWriter(tmp_path / "cache.h5", manifest(num_views=3))
        assert partials(tmp_path / "cache.h5") == [first.partial], "the refused one leaves nothing"


def test_a_damaged_partial_file_says_what_to_do(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        os.pwrite(writer._rows.fd, b"\x12", 100)
        assert len(partials(writer.path)) == 1
    with pytest.raises(FormatError, match=r"partial: .*delete it and run the command again"):
        LogitCacheWriter(tmp_path / "cache.h5", manifest())


def test_another_answer_at_the_published_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, manifest()) as writer:
        write_missing(writer)
        build(tmp_path / "other.h5", manifest(num_views=1)).rename(path)
        with pytest.raises(MismatchError, match="another identity"):
            writer.publish()
    assert len(partials(path)) == 1, "the work is kept"


def test_a_second_name_of_a_published_file_is_removed(tmp_path: Path) -> None:
    """As a kill between giving the published name and taking the partial one away leaves it."""
    path = build(tmp_path / "cache.h5")
    second = partial.new_name(path)
    os.link(path, second)
    LogitCacheWriter(tmp_path / "x.h5", manifest()).close()
    with pytest.raises(CacheError, match="already published"):
        LogitCacheWriter(path, manifest())
    assert not second.exists()
    assert path.stat().st_nlink == 1


def test_a_published_file_is_never_held_for_writing(tmp_path: Path) -> None:
    path = build(tmp_path / "cache.h5")
    os.link(path, partial.new_name(path))
    assert partial.hold(path) is None


@pytest.mark.parametrize("begin", ["LogitCacheWriter", "LogitCacheWriter.join"])
def test_a_file_that_was_about_to_be_published_can_be_gone_on_with(begin: str, open_folder: Path) -> None:
    first = LogitCacheWriter.join if begin.endswith("join") else LogitCacheWriter
    with first(open_folder / "cache.h5", manifest()) as writer:
        write_missing(writer)
        os.fchmod(writer._rows.fd, 0o444)
        inode = writer.partial.stat().st_ino
    script = """
import os, sys
from decant.cache import LogitCacheWriter
from tests.helpers.caches import manifest
if os.getuid() == 0:
    os.setuid(65534)
with BEGIN(sys.argv[1], manifest()) as writer:
    print(os.fstat(writer._rows.fd).st_ino)
    writer.publish()
""".replace("BEGIN", begin)
    if os.getuid() == 0:
        os.chown(open_folder, 65534, -1)
        os.chown(writer.partial, 65534, -1)
    assert int(finished(fork_python(script, open_folder / "cache.h5"))) == inode
    assert stat.S_IMODE((open_folder / "cache.h5").stat().st_mode) == 0o444


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user, so root")
@pytest.mark.parametrize(
    ("begin", "mode"),
    [*(("LogitCacheWriter", mode) for mode in (0o644, 0o666, 0o600)), ("LogitCacheWriter.join", 0o600)],
)
def test_another_person_goes_on_with_what_may_be_read(begin: str, mode: int, open_folder: Path) -> None:
    """In place where they may write into it, by copying where they may read it, from the start otherwise."""
    first = LogitCacheWriter.join if begin.endswith("join") else LogitCacheWriter
    with first(open_folder / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        os.fchmod(writer._rows.fd, mode)
    script = """
import os, sys
from decant.cache import LogitCacheWriter
from tests.helpers.caches import manifest, write_missing
os.setuid(65534)
with BEGIN(sys.argv[1], manifest()) as writer:
    print(write_missing(writer))
    writer.publish()
""".replace("BEGIN", begin)
    recomputed = int(finished(fork_python(script, open_folder / "cache.h5")))
    assert recomputed == (100 if mode == 0o600 else 50)
    assert holds_the_answers(LogitCache.open(open_folder / "cache.h5", verify="open"))
    assert leftovers(open_folder) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o444), (0o077, 0o400), (0o002, 0o444)])
def test_a_published_file_is_read_only_and_no_more_open_than_asked(
    tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        path = build(tmp_path / "cache.h5")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_was_removed_just_now_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `decant cache gc`: rows would go into a file that nobody finds again."""
    LogitCacheWriter(tmp_path / "cache.h5", manifest()).close()

    def removed_first(fd: int) -> bool:
        for found in partials(tmp_path / "cache.h5"):
            found.unlink()
        return claim(fd)

    monkeypatch.setattr(partial, "claim", removed_first)
    assert partial.hold(tmp_path / "cache.h5") is None


def test_what_was_published_just_now_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has both of its names for a moment."""
    LogitCacheWriter(tmp_path / "cache.h5", manifest()).close()

    def published_first(fd: int) -> bool:
        os.link(partials(tmp_path / "cache.h5")[0], tmp_path / "cache.h5")
        return claim(fd)

    monkeypatch.setattr(partial, "claim", published_first)
    assert partial.hold(tmp_path / "cache.h5") is None


def test_where_there_are_no_hard_links_what_another_has_published_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unfinished = tmp_path / "cache.h5", partial.new_name(tmp_path / "cache.h5")
    unfinished.write_bytes(b"mine")

    def another_is_first(*_: object) -> None:
        path.write_bytes(b"another's")
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", another_is_first)
    assert partial.publish(unfinished, path)
    assert path.read_bytes() == b"another's"


def test_where_there_are_no_hard_links_nothing_is_called_published_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unfinished = tmp_path / "cache.h5", partial.new_name(tmp_path / "cache.h5")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert not partial.publish(unfinished, path), "it has lost its name"
    unfinished.write_bytes(b"mine")
    path.mkdir()
    with pytest.raises(StorageError, match=r"a folder has that name, where a file is expected; remove it$"):
        partial.publish(unfinished, path)
    assert unfinished.exists()


@pytest.mark.parametrize("join", [False, True])
def test_who_begins_while_another_publishes_hears_of_that(
    tmp_path: Path, join: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun of a published cache is removed, also what nobody can tell to be a living builder's."""
    path, other = tmp_path / "cache.h5", build(tmp_path / "other.h5")

    def another_publishes(*_: object) -> None:
        other.rename(path)
        partial.remove_all(path)

    monkeypatch.setattr(beginning, "reserve", another_publishes)
    monkeypatch.setattr(beginning, "_require_room", lambda *_: None)
    begin = LogitCacheWriter.join if join else LogitCacheWriter
    with pytest.raises(
        CacheError, match=r"another process has published it just now; run the same command again"
    ):
        begin(path, manifest())
    assert leftovers(tmp_path) == []


def test_what_is_begun_is_synced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would else leave an unfinished file without a header, which nobody goes on with."""
    done, sync, replace = list[str](), os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("synced"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    LogitCacheWriter(tmp_path / "cache.h5", manifest()).close()
    assert done == ["synced", "named"]


def test_who_begins_tries_again_where_the_draft_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where unused files of the store are removed just then."""
    replace, gone = os.replace, list[str]()

    def removed_first(draft: str, name: str) -> None:
        if not gone:
            gone.append(draft)
            os.unlink(draft)
        replace(draft, name)

    monkeypatch.setattr(os, "replace", removed_first)
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert partials(tmp_path / "cache.h5") == [writer.partial]
    assert gone


def test_the_folder_is_synced_before_the_other_name_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may lose one of two changes of a folder, also the first."""
    done, sync, unlink = list[str](), os.fsync, os.unlink

    def syncs(fd: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def unlinks(path: Path, **more: Any) -> None:
        done.append("unlink" if str(path).endswith(".partial") else "")
        unlink(path, **more)

    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write_missing(writer)
        monkeypatch.setattr(os, "fsync", syncs)
        monkeypatch.setattr(os, "unlink", unlinks)
        writer.publish()
    assert [each for each in done if each] == ["file", "folder", "unlink"]
