"""Parts that machines without a common folder have made: merged byte for byte, or refused by name, and never lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decant.cache import (
    CacheError,
    CacheWarning,
    FormatError,
    IncompleteError,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    Store,
    merge_parts,
)
from decant.cache.encodings import Sparse
from tests.helpers.caches import build, identity_with, manifest, write, write_missing
from tests.helpers.commands import fork_python

OF = manifest(100)  # four blocks of each of two views, the last of four rows


def part(folder: Path, rows: object, of: Manifest = OF, views: tuple[int, ...] = (0, 1)) -> Path:
    """The unfinished file of a machine that wrote these rows, in a folder of its own."""
    with LogitCacheWriter(folder / "cache.h5", of) as writer:
        for view in views:
            write(writer, view, np.asarray(rows))
        return writer.partial


def whole(folder: Path, of: Manifest = OF) -> bytes:
    return build(folder / "whole" / "cache.h5", of).read_bytes()


def damage(path: Path, row: int, view: int = 0, of: Manifest = OF) -> None:
    with LogitCacheWriter(path.with_name("cache.h5"), of) as writer:
        offset = writer.blocks.offset("logits", view, row)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\x77\x11")


@pytest.mark.parametrize(
    "of",
    [OF, manifest(100, 30, 1, None, encoding=Sparse(4, (1.0, 2.0))), manifest(100, 6, 1, num_targets=3)],
    ids=["dense", "sparse", "regression"],
)
def test_the_file_of_parts_is_the_file_of_one_pass(tmp_path: Path, of: Manifest) -> None:
    """Rows strided as no block is, so that every row counts by a mark of its own."""
    views = tuple(range(of.num_views))
    files = [part(tmp_path / str(rank), np.arange(100)[rank::3], of, views) for rank in (2, 0, 1)]
    made = merge_parts(Store(tmp_path / "store"), files)
    assert made.read_bytes() == whole(tmp_path, of)
    assert [found.name for found in made.parent.iterdir() if found.suffix not in (".h5", ".lock")] == []
    assert all(path.exists() for path in files), "what is merged is only read"
    assert merge_parts(Store(tmp_path / "store"), files) == made


@settings(max_examples=20)
@given(owners=st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=100, max_size=100))
def test_rows_that_several_have_are_fine_where_they_are_the_same(
    tmp_path: Path, owners: list[set[int]]
) -> None:
    files = []
    for rank in range(3):
        rows = [row for row in range(100) if rank in owners[row]]
        files += [part(tmp_path / str(rank), rows)] if rows else []
    made = merge_parts(Store(tmp_path / "store"), files)
    expected = tmp_path / "expected.h5"
    if not expected.exists():
        build(expected, OF)
    assert made.read_bytes() == expected.read_bytes()
    for folder in tmp_path.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)


def test_missing_rows_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    files = [part(tmp_path / "a", np.arange(60)), part(tmp_path / "b", np.arange(70, 100), views=(0,))]
    with pytest.raises(
        IncompleteError,
        match=r"2 files have 150 of 200 rows: missing are rows 60 to 69 of view 0; rows 60 to 99 of view 1; ask me",
    ):
        merge_parts(Store(tmp_path / "store"), files, lambda _, missing: "ask me")
    assert [found for found in (tmp_path / "store").iterdir() if found.suffix != ".lock"] == []
    files += [part(tmp_path / "c", np.arange(60, 100))]
    assert merge_parts(Store(tmp_path / "store"), files).read_bytes() == whole(tmp_path)


def test_many_missing_ranges_are_told_shortly(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"rows? 1 of view 0; .*; and 96 more$"):
        merge_parts(Store(tmp_path / "store"), [part(tmp_path / "a", np.arange(0, 100, 2))])


@pytest.mark.parametrize("rows", [np.arange(32, 64), np.array([40])], ids=["a whole block", "a marked row"])
def test_another_answer_to_the_same_sample_is_refused_by_name(tmp_path: Path, rows: np.ndarray) -> None:
    files = [part(tmp_path / "a", np.arange(100))]
    with LogitCacheWriter(tmp_path / "b" / "cache.h5", OF) as writer:
        logits = np.zeros((len(rows), 1000))
        writer.write(rows, logits, labels=rows % 10, input_crc32=rows + 7, view=1)
        files.append(writer.partial)
    with pytest.raises(
        MismatchError,
        match=rf"b/cache.*\.partial: sample {rows[0]}, view 1 has other logits than in .*a/cache",
    ):
        merge_parts(Store(tmp_path / "store"), files)
    assert list((tmp_path / "store").glob("*.partial")) == []


def test_parts_of_other_questions_are_refused_with_each_field(tmp_path: Path) -> None:
    other = identity_with(OF, "teacher", {"sha256": "cd" * 32})
    files = [part(tmp_path / "a", np.arange(50)), part(tmp_path / "b", np.arange(50, 100), other)]
    with pytest.raises(MismatchError, match=r"(?s)b/cache.*is of another cache than .*teacher\.sha256"):
        merge_parts(Store(tmp_path / "store"), files)


def test_other_versions_are_said(tmp_path: Path) -> None:
    files = [
        part(tmp_path / name, rows, Manifest(OF.identity, {"versions": {"torch": name}}))
        for name, rows in (("a", np.arange(50)), ("b", np.arange(50, 100)))
    ]
    with pytest.warns(CacheWarning, match=r"b/cache.*was made with other versions or settings"):
        merge_parts(Store(tmp_path / "store"), files)


def test_damage_is_named_where_nobody_else_has_the_rows(tmp_path: Path) -> None:
    files = [part(tmp_path / "a", np.arange(64)), part(tmp_path / "b", np.arange(64, 100))]
    damage(files[0], 40)
    with pytest.raises(
        IncompleteError,
        match=r"missing are rows 32 to 63 of view 0; .*a/cache.*: view 0, block 1 \(rows 32 to 63\) is not as it was",
    ):
        merge_parts(Store(tmp_path / "store"), files)


def test_damage_is_said_where_another_file_has_the_rows(tmp_path: Path) -> None:
    files = [part(tmp_path / "a", np.arange(64)), part(tmp_path / "b", np.arange(32, 100))]
    damage(files[0], 40)
    with pytest.warns(
        CacheWarning, match=r"block 1 .* is not as it was written; the rows are in another file"
    ):
        made = merge_parts(Store(tmp_path / "store"), files)
    assert made.read_bytes() == whole(tmp_path)


def test_a_file_that_is_still_written_is_not_merged(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write_missing(writer)
        with pytest.raises(CacheError, match="a process still writes it; merge when it has ended"):
            merge_parts(Store(tmp_path / "store"), [writer.partial])


def test_what_is_no_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        merge_parts(Store(tmp_path / "store"), [tmp_path / "text"])
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        merge_parts(Store(tmp_path / "store"), [tmp_path / "none"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="a pipe, where a file is expected"):
        merge_parts(Store(tmp_path / "store"), [tmp_path / "pipe"])
    with pytest.raises(ValueError, match="at least one"):
        merge_parts(Store(tmp_path / "store"), [])


def test_what_is_begun_in_the_store_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    with LogitCacheWriter(store.path(OF), OF) as writer:
        for view in (0, 1):
            write(writer, view, np.arange(40))
    elsewhere = part(tmp_path / "a", np.arange(40, 100))
    assert merge_parts(store, [elsewhere]).read_bytes() == whole(tmp_path)


def test_what_is_begun_in_the_store_must_agree_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with LogitCacheWriter(store.path(OF), OF) as writer:
        writer.write([7], np.ones((1, 1000)), labels=[7], input_crc32=[7])
        begun = writer.partial
    with pytest.raises(MismatchError, match="sample 7, view 0 has other logits"):
        merge_parts(store, [part(tmp_path / "a", np.arange(100))])
    assert begun.exists()


def test_a_merge_that_is_killed_at_any_write_goes_on(tmp_path: Path) -> None:
    files = [part(tmp_path / str(rank), np.arange(100)[rank::2]) for rank in range(2)]
    expected = whole(tmp_path)
    script = """
import os, signal, sys
from pathlib import Path
from decant.cache import Store, merge_parts
for calls in (3, 9, 12, 12):
    if os.fork() == 0:
        real, left = os.pwrite, calls
        def dying(fd, data, offset):
            global left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(fd, data, offset)
        os.pwrite = dying
        merge_parts(Store(sys.argv[1]), [Path(file) for file in sys.argv[2:]])
        os._exit(0)
    print(os.WTERMSIG(os.wait()[1]))
print(merge_parts(Store(sys.argv[1]), [Path(file) for file in sys.argv[2:]]))
"""
    out, err = fork_python(script, tmp_path / "store", *files).communicate()
    *killed, made = out.split()
    assert killed == [str(int(signal.SIGKILL))] * 4, err
    assert Path(made).read_bytes() == expected
