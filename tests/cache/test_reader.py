"""The reader: numpy's own answers, from a file that is whole, checked and as it was written, in any process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decant.cache import (
    CorruptError,
    FormatError,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
)
from decant.cache.format.hdf5 import check
from tests.helpers.caches import answers, build, holds_the_answers, manifest, write
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished, python


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("reader") / "cache.h5")


@pytest.fixture(scope="module")
def cache(path: Path) -> LogitCache:
    return LogitCache.open(path)


def copy_with(path: Path, folder: Path, place: int, bit: int = 1) -> Path:
    """A copy in which one bit is flipped."""
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    (folder / "flipped.h5").write_bytes(content)
    return folder / "flipped.h5"


same_as_numpy = [
    [],
    [0],
    [3, 1, 3],
    [-1, -50],
    (4, 5),
    7,
    -1,
    np.int16(8),
    np.array([1, 2], "u1"),
    np.array([1, 2], "u8"),
    np.array([[1, 2], [3, -4]]),
    np.arange(50)[::-3],
    np.arange(50) % 3 == 0,
    [False] * 50,
    slice(None),
    slice(40, 3, -5),
    slice(60, 90),
    range(5),
]


@pytest.mark.parametrize("indices", same_as_numpy, ids=repr)
@pytest.mark.parametrize("verify", ["lazy", "off"])
def test_rows_are_what_numpy_gives_of_the_same_array(path: Path, indices: Any, verify: Any) -> None:
    for view in range(2):
        table = answers(manifest(), view)["logits"]
        plain = list(indices) if isinstance(indices, (tuple, range)) else indices
        expected = table[:0] if isinstance(plain, list) and not plain else table[plain]
        found = LogitCache.open(path, verify=verify).logits(indices, view)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, expected)
        assert found.flags.writeable, "a copy, not the file"


@pytest.mark.parametrize(
    "indices",
    [50, -51, [0, 50], [-51], [2**62], np.array([2**64 - 1], "u8"), [0.5], ["a"], [True], [None], True],
)
@pytest.mark.parametrize("verify", ["lazy", "off"])
def test_an_index_that_numpy_refuses_is_an_index_error(path: Path, indices: Any, verify: Any) -> None:
    for view in (0, 1, np.int64(1)):
        with pytest.raises(IndexError):
            LogitCache.open(path, verify=verify).logits(indices, view)


@pytest.mark.parametrize("view", [2, -1, [0, 2], [0, -1], [0], [0, 1, 0], 0.0, [0.0, 1.0], None, "0"])
def test_a_view_that_is_not_there_is_an_index_error(cache: LogitCache, view: Any) -> None:
    with pytest.raises(IndexError, match="view"):
        cache.logits([3, 4], view)


@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(st.integers(-50, 49), st.integers(0, 1)), max_size=20))
def test_each_row_may_have_its_own_view(cache: LogitCache, pairs: list[tuple[int, int]]) -> None:
    table = np.stack([answers(manifest(), view)["logits"] for view in range(2)])
    rows, views = np.array(pairs, int).reshape(-1, 2).T
    np.testing.assert_array_equal(cache.logits(rows, views), table[views, rows])


def test_labels_and_checksums_cannot_be_written(cache: LogitCache) -> None:
    for table in (cache.labels, cache.input_crc32):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_it_says_what_it_is(cache: LogitCache) -> None:
    assert (cache.num_views, cache.num_samples, cache.num_classes, cache.num_outputs) == (2, 50, 1000, 1000)
    assert len(cache) == 50
    assert "2 views × 50 samples × 1,000 outputs, float16, key " in repr(cache)


def test_no_partial_file_is_opened(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        write(writer, 1, range(32))
        with pytest.raises(IncompleteError, match="a partial file"):
            LogitCache.open(writer.partial)
        for name in ("renamed.h5", "copied.h5"):
            shutil.copy(writer.partial, tmp_path / name)
            with pytest.raises(IncompleteError, match=r"1 of 4 blocks .* view 1, block 1 \(rows 32 to 49\)"):
                LogitCache.open(tmp_path / name, verify="off")
    with pytest.raises(FileNotFoundError, match="no such cache"):
        LogitCache.open(tmp_path / "cache.h5")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(FormatError, match="not a file"):
            LogitCache.open(tmp_path / name)


def places_of(path: Path, seed: int = 0, sample: int = 300) -> list[int]:
    """Every byte of the small tables, and a sample of the bytes of the logits and of the gaps."""
    with open(path, "rb") as file:
        tables = check(file, str(path)).tables
    small = [
        place
        for name in ("labels", "input_crc32", "blocks")
        for place in range(tables[name].offset, tables[name].end)
    ]
    random = np.random.default_rng(seed)
    return [
        *random.choice(small, 200, replace=False).tolist(),
        *random.integers(0, path.stat().st_size, sample).tolist(),
    ]


def test_any_flipped_byte_is_found_by_verify_and_by_reading(path: Path, tmp_path: Path) -> None:
    """In a header or a gap on opening; in a table by `verify`, by opening with it, and when its block is first read."""
    for number, place in enumerate(places_of(path)):
        flipped = copy_with(path, tmp_path, place, 1 << number % 8)
        try:
            cache = LogitCache.open(flipped)
        except (FormatError, IncompleteError):
            continue
        problems = cache.verify()
        assert problems, f"byte {place} was flipped and verify finds nothing"
        assert "rows" in problems[0]
        with pytest.raises(CorruptError):
            LogitCache.open(flipped, verify="open")
        reader = LogitCache.open(flipped)
        everything = np.tile(np.arange(50), 2), np.repeat([0, 1], 50)
        with pytest.raises(CorruptError, match="is not as it was written"):
            reader.logits(*everything)


def test_verify_names_view_block_and_rows_of_all_damage(path: Path, tmp_path: Path) -> None:
    with open(path, "rb") as file:
        tables = check(file, str(path)).tables
    content = bytearray(path.read_bytes())
    for view, row in ((0, 3), (1, 40)):
        content[tables["logits"].offset + (view * 50 + row) * 2000] ^= 1
    (tmp_path / "flipped.h5").write_bytes(content)
    cache = LogitCache.open(tmp_path / "flipped.h5")
    assert cache.verify() == [
        "view 0, block 0 (rows 0 to 31) is not as it was written",
        "view 1, block 1 (rows 32 to 49) is not as it was written",
    ]


def test_parts_of_a_check_are_together_the_whole(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    content = bytearray(path.read_bytes())
    layout = LogitCache.open(path)._blocks
    for view, row in ((0, 40), (1, 3)):
        content[layout.offset("logits", view, row)] ^= 1
    damaged.write_bytes(content)
    cache = LogitCache.open(damaged)
    for count in (1, 2, 3, 7):
        found = [problem for index in range(count) for problem in cache.verify((index, count))]
        assert found == LogitCache.open(damaged).verify()
        assert len(found) == 2
    with pytest.raises(CorruptError):
        cache.logits([40])
    for wrong in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="0 ≤ i < n"):
            cache.verify(wrong)


def test_what_a_part_of_a_check_has_seen_is_not_checked_again(path: Path) -> None:
    cache = LogitCache.open(path)
    assert cache.verify((0, 2)) == []
    assert not cache._soundness.checks.all_sound
    assert cache.verify((1, 2)) == []
    assert cache._soundness.checks.all_sound


@pytest.mark.parametrize("verify", ["lazy", "off"])
def test_damage_that_verify_has_found_is_not_read(path: Path, tmp_path: Path, verify: Any) -> None:
    with open(path, "rb") as file:
        place = check(file, str(path)).tables["logits"].offset
    cache = LogitCache.open(copy_with(path, tmp_path, place), verify=verify)
    assert cache.verify()
    with pytest.raises(CorruptError):
        cache.logits([0])
    assert len(cache.logits([40])) == 1


def test_only_blocks_that_are_read_are_checked(path: Path, tmp_path: Path) -> None:
    with open(path, "rb") as file:
        place = check(file, str(path)).tables["logits"].offset
    cache = LogitCache.open(copy_with(path, tmp_path, place))
    assert len(cache.logits([40, -1], 0)) == 2
    assert len(cache.logits(slice(None), 1)) == 50
    for rows in ([40, 0], [-50]):
        with pytest.raises(CorruptError, match=r"view 0, block 0 \(rows 0 to 31\)"):
            cache.logits(rows)
    unchecked = LogitCache.open(copy_with(path, tmp_path, place), verify="off")
    assert len(unchecked.logits([0])) == 1


def test_an_unknown_way_to_verify_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="expected open, lazy or off, found 'never'"):
        LogitCache.open(path, verify="never")  # type: ignore[arg-type]


def rows_of(cache: LogitCache, view: int) -> bytes:
    return cache.logits(np.arange(50), view).tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_started_in_any_way_read_the_same(cache: LogitCache, method: str) -> None:
    before = rows_of(cache, 0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(rows_of, [(cache, view) for view in (0, 1, 0, 1)])
    assert found == [before, rows_of(cache, 1)] * 2


def test_a_pickled_cache_opens_the_same_file_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "cache.h5")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(LogitCache.open("cache.h5", verify="off"))
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert holds_the_answers(again)
    assert again.verify_mode == "off"


def test_a_pickled_cache_refuses_another_that_took_its_place(tmp_path: Path) -> None:
    content = pickle.dumps(LogitCache.open(build(tmp_path / "cache.h5")))
    (tmp_path / "cache.h5").unlink()
    build(tmp_path / "cache.h5", manifest(num_views=1))
    with pytest.raises(MismatchError, match="another cache has taken its place"):
        pickle.loads(content)


def test_a_moved_or_removed_file_is_still_read(tmp_path: Path) -> None:
    cache = LogitCache.open(build(tmp_path / "cache.h5"))
    (tmp_path / "cache.h5").rename(tmp_path / "moved.h5")
    assert holds_the_answers(cache)
    (tmp_path / "moved.h5").unlink()
    assert holds_the_answers(cache)


@pytest.mark.parametrize("name", ["with space", "naïve 学习 🎓", "[*?]", "a'b\"c", "-x", "x" * 80])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    cache = LogitCache.open(str(build(folder / f"{name}.h5")))
    assert holds_the_answers(cache)
    assert holds_the_answers(pickle.loads(pickle.dumps(cache)))
    assert [found.name for found in folder.iterdir()] == [f"{name}.h5"]


def test_a_link_to_a_cache_is_a_cache(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(path)
    assert holds_the_answers(LogitCache.open(tmp_path / "link.h5"))


def test_a_read_only_disk_is_enough(tmp_path: Path) -> None:
    build(tmp_path / "disk" / "cache.h5")
    mounted = subprocess.run(
        ["mount", "--bind", "-o", "ro", tmp_path / "disk", tmp_path / "disk"], capture_output=True
    )
    script = """
import sys
from decant.cache import LogitCache
from tests.helpers.caches import holds_the_answers
print(holds_the_answers(LogitCache.open(sys.argv[1], verify="open")))
"""
    try:
        if mounted.returncode == 0:
            with pytest.raises(OSError, match="Read-only file system"):
                (tmp_path / "disk" / "new").touch()
        else:
            (tmp_path / "disk").chmod(0o555)
        assert finished(fork_python(script, tmp_path / "disk" / "cache.h5")) == "True\n"
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", tmp_path / "disk"], check=True)


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
def test_hdf5_file_locking_changes_nothing(path: Path, locking: str) -> None:
    script = """
import sys
from decant.cache import LogitCache
from tests.helpers.caches import holds_the_answers
print(holds_the_answers(LogitCache.open(sys.argv[1])))
"""
    assert finished(python(script, path, HDF5_USE_FILE_LOCKING=locking)) == "True\n"


def test_reading_holds_no_file_open(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    caches = [LogitCache.open(path) for _ in range(5)]
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after - before <= 2 * len(caches), (
        "at most the one that Python's mmap keeps, and one to look at its times"
    )


def test_reading_needs_no_torch(path: Path) -> None:
    script = "import sys; from decant.cache import LogitCache\n"
    script += "LogitCache.open(sys.argv[1]); print('torch' in sys.modules)"
    assert finished(python(script, path)) == "False\n"
