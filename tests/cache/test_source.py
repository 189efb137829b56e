"""What `LogitCache` and `Ensemble` have in common as sources of soft labels; chunks are every row once, in order."""

from __future__ import annotations

import numpy as np
import pytest

from decant.cache import Ensemble, LogitCache, LogitSource, row_chunks
from decant.cache.source import ROWS
from tests.helpers.caches import answers, build, manifest

N, C, V = 50, 10, 2


@pytest.fixture(scope="module", params=["cache", "logits", "probabilities", "separate"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LogitSource:
    folder = tmp_path_factory.mktemp("source")
    caches = [
        LogitCache.open(build(folder / f"{name}.h5", manifest(N, C, V, teacher={"sha256": name})))
        for name in ("one", "other")
    ]
    return caches[0] if request.param == "cache" else Ensemble(caches, request.param)


def test_sizes_labels_and_checksums_are_those_of_the_data(source: LogitSource) -> None:
    assert (source.num_samples, source.num_views, source.num_outputs, source.num_classes) == (N, V, C, C)
    for view in range(V):
        expected = answers(source.manifest, view)
        assert np.array_equal(source.labels, expected["labels"])
        assert np.array_equal(source.input_crc32[view], expected["input_crc32"])
    assert source.manifest.num_samples == N


def test_members_are_the_files_that_are_read(source: LogitSource) -> None:
    assert all(isinstance(member, LogitCache) for member in source.members)
    assert source.members[0].path == source.path
    assert [problem for member in source.members for problem in member.verify()] == []


@pytest.mark.parametrize("view", [0, 1, [0, 1, 1, 0]])
def test_rows_come_in_the_order_of_the_indices(source: LogitSource, view: int | list[int]) -> None:
    whole = [source.logits(slice(None), each) for each in range(V)]
    indices = np.array([3, -1, 49, 3])
    found = source.logits(indices, view)
    expected = [whole[each][index] for each, index in zip(np.broadcast_to(view, 4), indices, strict=True)]
    assert np.array_equal(found, np.stack(expected))
    assert found.shape[-1] == C


@pytest.mark.parametrize(("indices", "view"), [([N], 0), ([-N - 1], 0), ([0], V), ([0.5], 0), ([0], -1)])
def test_what_is_out_of_range_is_an_index_error(source: LogitSource, indices: list[float], view: int) -> None:
    with pytest.raises(IndexError):
        source.logits(indices, view)


@pytest.mark.parametrize("count", [0, 1, ROWS - 1, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_chunks_are_every_row_once_in_order(count: int) -> None:
    chunks = list(row_chunks(count))
    assert np.array_equal(np.concatenate([*chunks, np.arange(0)]), np.arange(count))
    assert all(0 < len(chunk) <= ROWS for chunk in chunks)
