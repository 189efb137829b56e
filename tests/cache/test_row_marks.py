"""Ranks that write any rows: strided, padded, with roundings of their own, in one file or in several."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from decant.cache import IncompleteError, LogitCache, LogitCacheWriter, ValueRefusedError
from decant.cache.format import row_marks
from decant.cache.format.row_marks import read_marks
from decant.cache.io.partial import marks_of
from tests.helpers.caches import answers, build, holds_the_answers, leftovers, manifest, write
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished

WORLD = 3
OF = manifest(100)
RANK = """
import pickle, sys
from pathlib import Path
import numpy as np
from decant.cache import LogitCacheWriter
from tests.helpers.caches import manifest, write
rank, given = int(sys.argv[1]), sys.argv[2]
writer = pickle.loads(bytes.fromhex(given)) if not given.endswith(".h5") else LogitCacheWriter(given, manifest(100))
padded = np.resize(np.arange(100), 102)[rank::3]  # as DistributedSampler has it
for view in range(2):
    for batch in np.split(np.random.default_rng(rank).permutation(padded), [10, 20]):
        write(writer, view, batch)
"""


@pytest.mark.parametrize("file", ["of its own", "of the first rank"])
def test_ranks_write_the_shards_of_a_distributed_sampler(file: str, tmp_path: Path) -> None:
    """Every natural pattern ended in "37 of 38 blocks are not written"."""
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        given = str(writer.path) if file == "of its own" else pickle.dumps(writer).hex()
        for rank in [fork_python(RANK, rank, given) for rank in range(WORLD)]:
            finished(rank)
        path = writer.publish()
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []


def test_until_all_ranks_are_ready_nothing_is_published(tmp_path: Path) -> None:
    writers = [LogitCacheWriter(tmp_path / "cache.h5", OF) for _ in range(2)]
    for view in range(2):
        write(writers[0], view, np.arange(0, 100, 2))
    with pytest.raises(IncompleteError, match="8 of 8 blocks are not written"):
        writers[0].publish()
    for view in range(2):
        write(writers[1], view, np.arange(1, 100, 2))
    path = writers[1].publish()
    assert path.read_bytes() == build(tmp_path / "alone.h5", OF).read_bytes()
    assert leftovers(tmp_path) == []
    for writer in writers:
        writer.close()


def test_rows_of_a_block_that_is_not_whole_are_kept(tmp_path: Path) -> None:
    rows = np.array([3, 90, 5, 64])
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 1, rows)
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        assert np.flatnonzero(writer.is_written(1)).tolist() == sorted(rows.tolist())
        assert not writer.is_written(0).any()


def test_a_mark_without_its_row_counts_for_nothing(tmp_path: Path) -> None:
    """As after a power cut that kept the mark, and not the row."""
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 0, np.arange(10))
        writer._rows.stored.write("logits", 0, 4, np.zeros((1, 1000), "<f2"))
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        assert np.flatnonzero(writer.is_written(0)).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_row_that_agrees_with_one_of_its_marks_is_written(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 0, np.arange(10))
        (marks,) = marks_of(writer.partial)
        own = marks.read_bytes()
        marks.write_bytes(own + own[:12] + b"else")  # as of another that rounds otherwise
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        assert writer.is_written(0).sum() == 10


def test_a_torn_file_of_marks_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 0, np.arange(10))
        (marks,) = marks_of(writer.partial)
        marks.write_bytes(marks.read_bytes()[:-5])
        assert len(read_marks(writer.partial)) == 9
        marks.write_bytes(marks.read_bytes() + b"\xff" * 64)  # of samples and views that there are not
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        assert writer.is_written(0).sum() == 9


def test_two_ranks_that_round_one_row_otherwise_leave_that_of_the_first(tmp_path: Path) -> None:
    given = answers(OF)
    first, second = (LogitCacheWriter(tmp_path / "cache.h5", OF) for _ in range(2))
    for view in range(2):
        write(first, view, np.arange(1, 60))
        write(second, view, np.arange(60, 100))
    row = {name: column[[70]] for name, column in given.items()}
    first.write([70], row["logits"] * np.float16(1.005), labels=row["labels"], input_crc32=row["input_crc32"])
    for view in range(2):
        write(second, view, np.arange(1))
    cache = LogitCache.open(second.publish())
    assert np.array_equal(cache.logits(slice(None)), given["logits"])
    first.close()


def test_only_a_rounding_of_the_same_input_is_left_as_it_was(tmp_path: Path) -> None:
    given = {name: column[[7]] for name, column in answers(OF).items()}
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 0, np.arange(10))
        rounded = given["logits"] * np.float16(1.005)
        writer.write([7], rounded, labels=given["labels"], input_crc32=given["input_crc32"])
        for changes in (
            {"logits": given["logits"] * np.float16(1.5)},
            {"labels": given["labels"] + 1},
            {"input_crc32": given["input_crc32"] + 1},
            {"input_crc32": None},
        ):
            with pytest.raises(ValueRefusedError, match="sample 7, view 0: already stored with other"):
                writer.write([7], **{**given, "logits": rounded, **changes})
        writer.write([60], given["logits"])
        with pytest.raises(ValueRefusedError, match="sample 60, view 0: already stored with other logits"):
            writer.write([60], rounded)  # whose input nobody knows


def test_marks_on_a_full_disk_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_marks, "create_new", full)
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        for view in range(2):
            write(writer, view, np.arange(50))
            write(writer, view, np.arange(50, 100))
        assert holds_the_answers(LogitCache.open(writer.publish()))
