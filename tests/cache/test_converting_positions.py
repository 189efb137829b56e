"""Caches with positions made from others: converted, stacked, merged from parts; and who refuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.cache import (
    Ensemble,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    Positions,
    SoftLabelDataset,
    Sparse,
    Store,
    convert_cache,
    export_logits,
    merge_caches,
    merge_parts,
    take_over_views,
)
from tests.helpers.positions import (
    ENCODINGS,
    LENGTHS,
    V,
    build,
    holds_the_answers,
    manifest_of,
    positions_of,
    sample_logits,
    write,
)


def test_a_sparse_cache_is_made_of_a_dense_one(tmp_path: Path) -> None:
    positions = positions_of()
    dense = LogitCache.open(build(tmp_path / "dense.h5", positions, ENCODINGS[1]))
    for encoding in (Sparse(16), Sparse(0, draws=8, seed=3), ENCODINGS[2]):
        made = LogitCache.open(convert_cache(Store(tmp_path / "store"), dense, encoding))
        assert made.verify() == []
        assert made.manifest.identity["positions"] == positions.identity
        assert np.array_equal(made.tokens(slice(None))[0], dense.tokens(slice(None))[0])
        everything = np.arange(len(LENGTHS))
        of, within = positions.lengths.within(everything)
        for view in range(V):
            expected = encoding.encode(dense.logits(everything, view), of, view, within)
            found = made.encoded(everything, view)
            assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
            assert np.array_equal(
                made.next_log_prob(everything, view), dense.next_log_prob(everything, view), equal_nan=True
            )
    with pytest.raises(MismatchError, match="holds the 100 largest"):
        convert_cache(Store(tmp_path), LogitCache.open(build(tmp_path / "sparse.h5", positions)), Sparse(16))


def test_views_are_stacked_and_taken_over(tmp_path: Path) -> None:
    positions, store = positions_of(), Store(tmp_path)
    one = LogitCache.open(build(tmp_path / "one.h5", positions))
    stacked = LogitCache.open(merge_caches(store, [one, one], "stack-views"))
    assert stacked.num_views == 2 * V
    for name, rows in one.encoded(slice(None), 1).items():
        assert stacked.encoded(slice(None), V + 1)[name].tobytes() == rows.tobytes()
    more = one.manifest.with_views(V + 1)
    with LogitCacheWriter(tmp_path / "more.h5", more, positions=one.positions) as writer:
        assert take_over_views(writer, store) == V
        assert [bool(writer.is_written(view).all()) for view in range(V + 1)] == [True, True, False]
    others = LogitCache.open(build(tmp_path / "others.h5", positions_of(max_length=9)))
    with pytest.raises(MismatchError, match=r"positions\.max_length: expected nothing, found 9"):
        merge_caches(store, [one, others], "stack-views")


def test_parts_of_several_machines_are_merged(tmp_path: Path) -> None:
    positions, of, files = positions_of(extra=1), manifest_of(positions_of(extra=1)), []
    for machine in range(3):
        with LogitCacheWriter(tmp_path / str(machine) / "toy.h5", of, positions=positions) as writer:
            for view in range(V):
                write(
                    writer, positions, np.union1d(np.arange(machine, 16, 3), 6), view
                )  # one is in all of them
            files.append(writer.partial)
    with pytest.raises(IncompleteError, match="missing are row 2 of view 0"):
        merge_parts(Store(tmp_path / "store"), files[:2])
    made = LogitCache.open(merge_parts(Store(tmp_path / "store"), files))
    assert holds_the_answers(made, positions, ENCODINGS[0])
    whole = build(tmp_path / "whole.h5", positions)
    assert made.path.read_bytes() == whole.read_bytes()
    logits = sample_logits(positions, [6], 0)
    with LogitCacheWriter(tmp_path / "other" / "toy.h5", of, positions=positions) as writer:
        writer.write([6], logits + logits**2, labels=[6], input_crc32=[6])
        with pytest.raises(
            MismatchError, match=r"sample 6, view 0 has other log_probs|sample 6, view 0 has other ids"
        ):
            merge_parts(Store(tmp_path / "again"), [files[0], _closed(writer)])


def _closed(writer: LogitCacheWriter) -> Path:
    writer.close()
    return writer.partial


def test_several_processes_join_one_file(tmp_path: Path) -> None:
    positions, of = positions_of(), manifest_of(positions_of())
    writers = [LogitCacheWriter.join(tmp_path / "cache.h5", of, positions=positions) for _ in range(2)]
    for view in range(V):
        write(writers[0], positions, np.arange(5), view)
        write(writers[1], positions, np.arange(5, 16), view)
    writers[0].close()
    path = writers[1].publish()
    assert path.read_bytes() == build(tmp_path / "whole.h5", positions).read_bytes()


def test_what_reads_a_row_for_each_sample_refuses_positions(tmp_path: Path) -> None:
    cache = LogitCache.open(
        build(tmp_path / "cache.h5", Positions.of([2] * 4, predicts="here", tokens=[0] * 8))
    )
    says = "has a row for each of 8 positions"
    with pytest.raises(MismatchError, match=says):
        SoftLabelDataset([(0, 0)] * 4, cache)  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match=says):
        Ensemble([cache, cache])
    with pytest.raises(MismatchError, match="has a row for each position"):
        export_logits(cache, tmp_path / "logits.npy")
    with pytest.raises(MismatchError, match="means are made of caches with a row for each sample"):
        merge_caches(Store(tmp_path), [cache, cache], "mean-logits")
