"""Rows of a cache as arrays of a .npz file, and rows of other programs as a cache."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import (
    CacheWarning,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    Positions,
    Sparse,
    Store,
    ValueRefusedError,
    export_rows,
    import_rows,
)
from tests.helpers.commands import decant, refused, succeed
from tests.helpers.positions import ENCODINGS, LENGTHS, C, V, build, positions_of


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: type(encoding).__name__)
def test_exported_rows_are_those_of_the_cache(tmp_path: Path, encoding: Any) -> None:
    positions = positions_of(extra=1)
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions, encoding))
    shapes = export_rows(cache, tmp_path / "rows.npz")
    with np.load(tmp_path / "rows.npz", allow_pickle=False) as found:
        assert {name: found[name].shape for name in found.files} == shapes
        assert found["lengths"].tolist() == list(LENGTHS)
        assert np.array_equal(found["tokens"], positions.tokens)
        assert (found["token_lengths"] == found["lengths"] + 1).all()
        for view in range(V):
            np.testing.assert_array_equal(
                found["next_log_prob"][view], cache.next_log_prob(slice(None), view)
            )
            if encoding is ENCODINGS[0]:
                rows = cache.rows(slice(None), view)
                for name in ("ids", "log_probs", "log_tail", "log_sum_exp"):
                    assert np.array_equal(found[name][view], getattr(rows, name)), name
            else:
                assert np.array_equal(found["logits"][view], cache.logits(slice(None), view))


def test_what_was_exported_is_imported_with_the_very_rows(tmp_path: Path) -> None:
    positions = positions_of(extra=1)
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions))
    export_rows(cache, tmp_path / "rows.npz")
    store, named = Store(tmp_path / "store"), {"teacher": {"network": "llm"}, "data": {"name": "texts"}}
    with np.load(tmp_path / "rows.npz") as arrays:
        path = import_rows(store, arrays, num_outputs=C, **named)
        assert import_rows(store, arrays, num_outputs=C, **named) == path
    made = LogitCache.open(path)
    assert made.verify() == []
    for view in range(V):
        for name, rows in cache.encoded(slice(None), view).items():
            assert made.encoded(slice(None), view)[name].tobytes() == rows.tobytes(), name
    assert np.array_equal(made.tokens([3])[0], cache.tokens([3])[0])


def test_all_logits_of_positions_are_imported_as_they_were_exported(tmp_path: Path) -> None:
    positions = positions_of(extra=1)
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions, ENCODINGS[1]))
    export_rows(cache, tmp_path / "rows.npz")
    named: dict[str, Any] = {"teacher": {"network": "llm"}, "data": {"name": "texts"}, "num_outputs": C}
    with np.load(tmp_path / "rows.npz") as arrays:
        given = {name: arrays[name] for name in arrays.files}
    for known in (True, False):  # what the teacher gave to the next token follows from logits and tokens
        if not known:
            del given["next_log_prob"]
        made = LogitCache.open(import_rows(Store(tmp_path / "store"), given, **named))
        assert made.verify() == []
        assert made.manifest.encoding == cache.manifest.encoding
        for view in range(V):
            assert np.array_equal(made.logits(slice(None), view), cache.logits(slice(None), view))
            found = made.next_log_prob(slice(None), view), cache.next_log_prob(slice(None), view)
            np.testing.assert_allclose(*found, atol=0.02)
    for changes in ({"logits": given["logits"][..., :-1]}, {"logits": given["logits"].astype(int)}):
        with pytest.raises(ValueRefusedError, match=r"logits: expected \(P, 1000\) or"):
            import_rows(Store(tmp_path / "store"), {**given, **changes}, **named)


def test_log_probabilities_alone_leave_the_rest_to_the_tail(tmp_path: Path) -> None:
    rows = {"ids": [[4, 70_001], [0, 2]], "log_probs": np.log([[0.25, 0.5], [0.9, 0.05]])}
    path = import_rows(Store(tmp_path), rows, num_outputs=80_000, teacher={}, data={"name": "toy"})
    cache = LogitCache.open(path)
    assert cache.rows([0, 1]).ids.tolist() == [[70_001, 4], [0, 2]], "by falling probability"
    np.testing.assert_allclose(np.exp(cache.rows([0, 1]).log_tail[:, 0]), [0.25, 0.05], atol=2e-3)
    scaled = {**rows, "log_probs": np.log([[0.5, 0.5], [0.9, 0.1]])}
    with pytest.warns(CacheWarning, match="sum to 1, so nothing is left out"):
        import_rows(Store(tmp_path), scaled, num_outputs=80_000, teacher={}, data={"name": "toy"})


good = {"ids": [[0, 1]], "log_probs": [[-1.0, -2.0]]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": [[0, 9]]}, "ids: row 0: one is no output, of 8"),
        ({"ids": [[0, -1]]}, "ids: row 0: one is no output, of 8"),
        ({"ids": [[1, 1]]}, "ids: one is there twice"),
        ({"ids": [0, 1]}, "ids: expected 2 or 3 axes"),
        ({"ids": [[0.0, 1.0]]}, "ids and log_probs: expected"),
        ({"log_probs": [[-1.0]]}, "ids and log_probs: expected"),
        ({"log_probs": [[0.5, -1.0]]}, "log_probs: row 0: expected numbers of 0 or below, found 0.5"),
        ({"log_probs": [[np.nan, -1.0]]}, "log_probs: row 0: expected numbers of 0 or below, found nan"),
        ({"log_probs": [[0.6, 0.2]]}, "found 0.6; these are probabilities: give their logarithms"),
        ({"log_probs": [[7.5, -2.0]]}, "found 7.5; of raw logits take the logarithm of the softmax"),
        ({"ids": [[1, 2], [3]]}, "ids: expected rows of one length, found lists of several"),
        ({"log_probs": [[-0.1, -0.2]]}, "log_probs: row 0: their probabilities sum to 1.7"),
        ({"log_tail": [[-5.0]]}, "head and tail do not add up to 1"),
        ({"lengths": [2]}, "lengths: of 2 positions, and there are 1 rows"),
        ({"temperatures": [1.0, 2.0]}, "without log_tail"),
        ({"tokens": [3, 4]}, "tokens: are of samples with several rows each, and there are no lengths"),
        ({"log_tail": [[-0.7], [-0.7]]}, "log_tail: expected .1, 1, 1. numbers, found .1, 2, 1."),
        ({"log_tail": [["a"]]}, "log_tail: expected .1, 1, 1. numbers, found .1, 1, 1. <U1"),
        ({"log_sum_exp": [1.0, 2.0]}, "log_sum_exp: expected .1, 1. numbers, found .1, 2."),
        ({"labels": [1, 2]}, "labels: expected .1,. integers, found .2,."),
        ({"labels": [1.0]}, "labels: expected .1,. integers, found .1,. float64"),
        ({"lengths": [1], "next_log_prob": [-1.0, -1.0]}, "next_log_prob: expected .1, 1. numbers"),
        ({"temperatures": ["1"]}, "temperatures: expected .m,. numbers, found .1,. <U1"),
        ({"temperatures": 1.0}, "temperatures: expected .m,. numbers, found .. float64"),
        ({"certain": [1]}, "rows with draws are not imported"),
        ({"ids": None}, "ids: missing; there are log_probs"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    given = {name: value for name, value in {**good, **changes}.items() if value is not None}
    with pytest.raises(ValueRefusedError, match=says):
        import_rows(Store(tmp_path), given, num_outputs=8, teacher={}, data={"name": "toy"})


def test_arrays_that_are_not_read_are_said(tmp_path: Path) -> None:
    given = {**good, "log_tails": [[-0.7]]}
    with pytest.warns(CacheWarning, match="log_tails: arrays that are not read; those that are: ids"):
        import_rows(Store(tmp_path), given, num_outputs=8, teacher={}, data={"name": "toy"})


def test_the_commands_export_and_import_rows(tmp_path: Path) -> None:
    positions = Positions.of([2, 1], predicts="here", tokens=[3, 4, 5])
    of = Manifest.build(num_samples=2, num_outputs=6, encoding=Sparse(2), positions=positions)
    with LogitCacheWriter(tmp_path / "caches" / "toy.h5", of, positions=positions) as writer:
        writer.write([0, 1], np.eye(3, 6) * 3)
        path = writer.publish()
    words = ("--teacher", "llm", "--data", "toy", "--outputs", "6", "--predicts", "here")
    said = succeed(decant("cache", "export", path, "rows.npz", cwd=tmp_path))
    assert "ids (1, 3, 2)" in said
    made = succeed(decant("cache", "import", "rows.npz", *words, cwd=tmp_path)).split()[1]
    cache = LogitCache.open(tmp_path / made)
    assert cache.rows([1]).ids.tolist() == [[2, 0]]
    assert cache.manifest.identity["positions"]["predicts"] == "here"
    assert "mass of what is not stored" in succeed(decant("cache", "info", made, cwd=tmp_path))
    assert "cannot be read as a .npz file" in refused(decant("cache", "import", path, *words, cwd=tmp_path))
    assert "no such file" in refused(decant("cache", "import", "gone.npz", *words, cwd=tmp_path))
    assert "--outputs: rows of ids need --data" in refused(
        decant("cache", "import", "rows.npz", "--teacher", "x", "--outputs", "6", cwd=tmp_path), code=2
    )
    assert succeed(decant("cache", "diff", path, path, cwd=tmp_path)).startswith("no field differs")


def test_the_commands_say_what_rows_do_not(tmp_path: Path) -> None:
    """Of tokens that follow some have no log-probability, logits of a sparse cache were not all stored, and two of them
    have no mean.
    """
    rows = {"ids": [[4, 1], [0, 2], [3, 4]], "log_probs": np.log([[0.5, 0.25], [0.9, 0.05], [0.6, 0.1]])}
    given = {**rows, "lengths": [3], "tokens": [7, 4, 0], "next_log_prob": [np.log(0.5), np.nan, np.nan]}
    paths = [
        import_rows(Store(tmp_path), given, num_outputs=8, teacher={"network": name}, data={"name": "toy"})
        for name in ("one", "other")
    ]
    said = succeed(decant("cache", "info", paths[0], cwd=tmp_path))
    assert "the next token, where it is known (50.00 %; others may be less likely): perplexity 2.00" in said
    differs = decant("cache", "diff", *paths, cwd=tmp_path)
    assert differs.returncode == 1
    assert "merge" not in differs.stderr
    path = import_rows(Store(tmp_path), rows, num_outputs=8, teacher={}, data={"name": "toy"})
    exported = decant("cache", "export", path, "logits.npy", cwd=tmp_path)
    assert "has what students see of that at T = 1; a .npz file has the rows as they are" in exported.stderr


def test_a_share_of_nothing_is_stored_as_such(tmp_path: Path) -> None:
    """Of masked outputs, or of values that two bytes cannot hold."""
    rows = {"ids": [[0, 3], [1, 2]], "log_probs": [[0.0, -np.inf], [-0.5, -1e30]]}
    path = import_rows(Store(tmp_path), rows, num_outputs=5, teacher={"network": "x"}, data={"name": "y"})
    found = LogitCache.open(path).rows([0, 1])
    np.testing.assert_allclose(np.exp(found.log_probs), [[1.0, 0.0], [0.6065, 0.0]], atol=1e-3)
    assert LogitCache.open(path).verify() == []


@pytest.mark.parametrize(
    ("by", "said"), [(1, None), (0, "the token itself"), (2, "the token after the next")]
)
def test_rows_that_are_about_other_tokens_are_doubted(by: int, said: str | None, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 100, 90)
    own = np.roll(tokens, -by)[:, None]
    rows = {"ids": np.concatenate([own, own + 100], 1), "log_probs": np.log([[0.6, 0.2]] * 90)}
    given = {**rows, "tokens": tokens, "lengths": [40, 50]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_rows(Store(tmp_path), given, num_outputs=200, teacher={"network": "x"}, data={"name": "y"})
    assert [said in str(one.message) for one in caught if "shifted" in str(one.message)] == (
        [True] if said else []
    )
