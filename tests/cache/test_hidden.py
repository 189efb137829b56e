"""Hidden states and the head that makes logits of them: exact at every temperature, and one head for all rows."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import (
    CacheError,
    CorruptError,
    FormatError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    NewerFormatError,
    Positions,
    Sparse,
    StorageError,
    Store,
    ValueRefusedError,
    convert_cache,
    merge_caches,
)
from decant.cache.encodings import Dense, Head, Hidden
from decant.cache.format import hdf5
from tests.cache.test_compact import softmax

OUTPUTS, WIDTH = 30, 6


def states(seed: int, rows: int = 20) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype("f4")


HEAD = Head.of(np.random.default_rng(9).standard_normal((OUTPUTS, WIDTH)), np.arange(OUTPUTS) / 10, scale=0.5)
CAPPED = Head.of(HEAD.weight, soft_cap=2.0, dtype="float16")


def manifest(head: Head, views: int = 1, **more: Any) -> Manifest:
    return Manifest.build(
        num_samples=20, num_outputs=OUTPUTS, num_views=views, encoding=Hidden.of(head), **more
    )


def build(path: Path, head: Head, views: int = 1) -> LogitCache:
    with LogitCacheWriter(path, manifest(head, views), head=head) as writer:
        for view in range(views):
            writer.write(range(20), states(view), labels=range(20), view=view)
        return LogitCache.open(writer.publish())


@pytest.mark.parametrize("head", [HEAD, CAPPED], ids=["bias", "cap"])
def test_logits_are_the_product_at_every_temperature(tmp_path: Path, head: Head) -> None:
    cache = build(tmp_path / "cache.h5", head, views=2)
    made = head.scale * states(1).astype("f2").astype("f8") @ head.weight.astype("f8").T
    made = made if head.bias is None else made + head.bias
    made = made if head.soft_cap is None else head.soft_cap * np.tanh(made / head.soft_cap)
    np.testing.assert_allclose(cache.logits(slice(None), 1), made, rtol=1e-5, atol=1e-5)
    at_four = cache.at_temperature(4.0)
    assert np.array_equal(at_four.logits([3]), cache.logits([3]))
    np.testing.assert_allclose(softmax(cache.logits([3], 1), 4.0), softmax(made[3:4], 4.0), rtol=1e-5)
    assert np.array_equal(cache.hidden([4], 1), states(1)[4:5].astype("f2"))
    assert np.array_equal(cache.head.weight, head.weight)
    assert cache.verify() == []
    assert pickle.loads(pickle.dumps(cache)).head.sha256 == head.sha256


def test_the_head_is_stored_once(tmp_path: Path) -> None:
    cache = build(tmp_path / "cache.h5", HEAD, views=3)
    assert cache.manifest.encoding.row_bytes(OUTPUTS) == 2 * WIDTH
    assert cache.manifest.encoding == Hidden.of(HEAD)
    assert cache.manifest.identity["encoding"]["head"]["sha256"] == HEAD.sha256


def test_it_is_a_file_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path / "cache.h5", HEAD).path
    monkeypatch.setattr(hdf5, "FORMAT_VERSION", 1)  # a reader of before
    with pytest.raises(NewerFormatError, match="read up to 1, found 2"):
        LogitCache.open(path)


@pytest.mark.parametrize("verify", ["lazy", "open"])
@pytest.mark.parametrize("table", ["head", "head_bias"])
def test_a_flipped_bit_of_the_head_is_found(tmp_path: Path, verify: Any, table: str) -> None:
    path = build(tmp_path / "cache.h5", HEAD).path
    at = LogitCache.open(path)._layout.tables[table]
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[at.offset + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError, match=r"`head` is not as the manifest says"):
        LogitCache.open(path, verify=verify).logits([0])
    with pytest.raises(CorruptError, match=r"`head` is not as the manifest says"):
        _ = LogitCache.open(path).head
    assert len(LogitCache.open(path).verify()) == 1


def test_a_build_goes_on_without_being_given_the_head_again(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, manifest(HEAD), head=HEAD) as writer:
        writer.write(range(5), states(0)[:5])
    with LogitCacheWriter(path, manifest(HEAD)) as writer:
        assert writer.is_written().sum() == 5
        writer.write(range(5, 20), states(0)[5:])
        writer.publish()
    whole = build(tmp_path / "whole.h5", HEAD)
    again = LogitCache.open(path)
    assert np.array_equal(again.logits(slice(None)), whole.logits(slice(None)))


def test_a_file_that_lost_its_name_is_published_as_a_copy_with_its_head(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(HEAD), head=HEAD) as writer:
        writer.write(range(20), states(0), labels=range(20))
        writer.partial.unlink()
        assert writer.publish().read_bytes() == build(tmp_path / "whole.h5", HEAD).path.read_bytes()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with pytest.raises(ValueRefusedError, match="head: needed to begin it"):
        LogitCacheWriter(path, manifest(HEAD))
    with pytest.raises(MismatchError, match=r"head: not the one that .*\n.*encoding\.head\."):
        LogitCacheWriter(path, manifest(HEAD), head=CAPPED)
    with pytest.raises(MismatchError, match="head: not the one that"):
        LogitCacheWriter.join(path, manifest(HEAD), head=CAPPED)
    with pytest.raises(ValueRefusedError, match="head: is of hidden states"):
        LogitCacheWriter(path, Manifest.build(num_samples=2, num_outputs=OUTPUTS), head=HEAD)
    with pytest.raises(FormatError, match="head: makes 30 logits, and num_outputs is 31"):
        Hidden.of(HEAD).check_outputs(31)
    with pytest.raises(ValueRefusedError, match=r"head: expected weight \(C, d\)"):
        Head.of(np.zeros((3, 4)), np.zeros(4))
    with pytest.raises(ValueRefusedError, match="weight: not all values are finite in float16"):
        Head.of(np.full((3, 4), 1e9), dtype="float16")
    with LogitCacheWriter(path, manifest(HEAD), head=HEAD) as writer:
        with pytest.raises(
            ValueRefusedError, match=r"hidden states: expected \(2, 6\) floats, found \(2, 30\)"
        ):
            writer.write([0, 1], np.zeros((2, OUTPUTS)))
        wrong = np.zeros((2, WIDTH))
        wrong[1, 3] = 1e9
        with pytest.raises(ValueRefusedError, match=r"sample 1, view 0: hidden state .* overflows float16"):
            writer.write([0, 1], wrong)
    dense = LogitCache.open(_dense(tmp_path / "dense.h5"))
    for read in (lambda: dense.head, lambda: dense.hidden([0])):
        with pytest.raises(TypeError, match="holds no hidden states"):
            read()


def _dense(path: Path) -> Path:
    with LogitCacheWriter(path, Manifest.build(num_samples=2, num_outputs=2)) as writer:
        writer.write([0, 1], np.eye(2))
        return writer.publish()


@pytest.mark.parametrize(
    "wrong",
    [
        {"head": None},
        {"width": 0},
        {"width": True},
        {"dtype": "float64"},
        {"head": {"sha256": "ab"}},
        {"head": {"soft_cap": 0.0}},
        {"head": {"scale": "1"}},
        {"head": {"scale": None}},
        {"head": {"bias": 1}},
        {"head": {"dtype": None}},
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    good: Any = Hidden.of(HEAD).identity
    assert Hidden.from_identity(good) == Hidden.of(HEAD)
    spoilt = {**good, **wrong}
    if wrong.get("head") is not None:
        spoilt["head"] = {**good["head"], **wrong["head"]}
    with pytest.raises(FormatError, match=r"identity\.encoding"):
        Hidden.from_identity(spoilt)


def test_positions_have_hidden_states_too(tmp_path: Path) -> None:
    positions = Positions.of([2, 3], tokens=[1, 2, 3, 4, 5], predicts="next")
    of = Manifest.build(num_samples=2, num_outputs=OUTPUTS, encoding=Hidden.of(HEAD), positions=positions)
    with LogitCacheWriter(tmp_path / "c.h5", of, positions=positions, head=HEAD) as writer:
        writer.write([1], states(0)[2:5])
        writer.write([0], states(0)[:2])
        cache = LogitCache.open(writer.publish())
    assert np.array_equal(cache.hidden([0, 1]), states(0)[:5].astype("f2"))
    log_probs = np.log(softmax(HEAD.logits(states(0)[:5]), 1.0))
    expected = [log_probs[0, 2], np.nan, log_probs[2, 4], log_probs[3, 5], np.nan]
    np.testing.assert_allclose(cache.next_log_prob([0, 1]), expected, rtol=2e-3)
    assert cache.verify() == []
    small = LogitCache.open(convert_cache(Store(tmp_path / "store"), cache, Sparse(5)))
    assert np.array_equal(small.rows([1, 0]).ids[:, 0], cache.logits([1, 0]).argmax(1))


def test_a_smaller_cache_and_a_stack_of_views_are_made_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    cache = build(tmp_path / "cache.h5", HEAD)
    small = LogitCache.open(convert_cache(store, cache, Sparse(5, (1.0, 4.0))))
    expected = Sparse(5, (1.0, 4.0)).encode(cache.logits(slice(None)), np.arange(20), 0)
    assert np.array_equal(small.encoded(slice(None))["ids"], expected["ids"])
    assert "head" in small.manifest.identity["encoding"]
    assert small.manifest.identity["encoding"]["head"] == 5
    stacked = LogitCache.open(merge_caches(store, [cache, cache], "stack-views"))
    assert np.array_equal(stacked.logits(slice(None), 1), cache.logits(slice(None)))
    twice = np.stack([cache.logits(slice(None)), stacked.logits(slice(None))])
    mean = LogitCache.open(merge_caches(store, [cache, cache], "mean-logits"))
    assert mean.manifest.encoding == Dense("float32")
    np.testing.assert_allclose(mean.logits(slice(None)), twice.mean(0), rtol=1e-5)
    for refused in (Dense(), Hidden.of(HEAD)):
        with pytest.raises(CacheError, match="holds hidden states"):
            convert_cache(store, cache, refused)


def test_a_head_that_does_not_read_back_is_not_published(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(HEAD), head=HEAD) as writer:
        writer.write(range(20), states(0))
        os.pwrite(writer._rows.fd, b"\x5a", writer.layout.tables["head"].offset + 5)
        with pytest.raises(StorageError, match=r"`head` is not as the manifest says: .* does not read back"):
            writer.publish()
    assert not (tmp_path / "cache.h5").exists()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(HEAD), head=HEAD) as writer:
        assert writer.is_written().all()
        assert LogitCache.open(writer.publish()).head.sha256 == HEAD.sha256
