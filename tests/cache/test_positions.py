"""Samples of several positions each: every row comes back, whoever wrote it and in whatever order."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decant.cache import (
    CacheWarning,
    CorruptError,
    Encoding,
    FormatError,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    Positions,
    Sparse,
    ValueRefusedError,
    differences,
)
from decant.cache.format import hdf5
from decant.cache.format import offsets as format_offsets
from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.format.tables import Layout, Table, expected_tables
from decant.cache.io.block_layout import WRITTEN
from decant.cache.lengths import Ragged
from decant.cache.statistics.outputs import softmax
from tests.helpers.caches import leftovers
from tests.helpers.positions import (
    ENCODINGS,
    LENGTHS,
    C,
    V,
    build,
    holds_the_answers,
    logits_of,
    manifest_of,
    positions_of,
    sample_logits,
    write,
    write_missing,
)

KINDS = {
    "ragged": positions_of(),
    "one token more": positions_of(extra=1),
    "no tokens alike": positions_of(extra=1, predicts="here"),
    "of one length": positions_of((40,) * 9),
    "longer than a block": positions_of((700,) * 3),
    "of one position": positions_of((1,) * 300),
}


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: type(encoding).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_comes_back(kind: str, encoding: Encoding, tmp_path: Path) -> None:
    positions = KINDS[kind]
    path = build(tmp_path / "cache.h5", positions, encoding)
    for options in ({}, {"verify": "open", "table": "ram"}, {"verify": "off"}):
        cache = LogitCache.open(path, **options)  # type: ignore[arg-type]
        assert holds_the_answers(cache, positions, encoding)
    assert cache.verify() == []
    assert cache.num_positions == positions.num_positions
    assert cache.offsets.tolist() == np.r_[0, np.cumsum(cache.lengths)].tolist()
    assert pickle.loads(pickle.dumps(cache)).num_positions == cache.num_positions


def test_any_samples_in_any_order_and_any_views(tmp_path: Path) -> None:
    positions, encoding = positions_of(), ENCODINGS[1]
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions, encoding))
    chance = np.random.default_rng(3)
    for _ in range(20):
        samples = chance.integers(-len(LENGTHS), len(LENGTHS), chance.integers(0, 9))
        views = chance.integers(0, V, len(samples))
        whole = samples % len(LENGTHS)
        expected = [sample_logits(positions, [i], v) for i, v in zip(whole, views, strict=True)]
        found = cache.logits(samples, views)
        assert np.array_equal(found, np.concatenate([*expected, np.empty((0, C))]).astype("f2"))
    assert cache.logits(6, 1).shape == (300, C)
    assert cache.logits(slice(3, 5)).shape == (42, C)
    assert cache.logits(np.array(LENGTHS) == 64).shape == (128, C)
    with pytest.raises(IndexError, match="the cache has 0 to 15"):
        cache.logits([16])
    with pytest.raises(IndexError, match="the cache has 2"):
        cache.logits([1], 2)
    with pytest.raises(IndexError, match=r"expected \(B,\) samples with several rows each, found \(1, 2\)"):
        cache.logits([[1, 2]])


def test_rows_have_their_offsets(tmp_path: Path) -> None:
    positions = positions_of()
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions))
    rows = cache.rows([6, 1, 0], 1)
    assert rows.offsets is not None
    assert rows.offsets.tolist() == [0, 300, 300, 303]
    assert rows.ids.shape == (303, 100)
    assert rows.log_probs.dtype == np.float32
    logits = sample_logits(positions, [6, 1, 0], 1)
    assert np.array_equal(rows.ids[:, 0], logits.argmax(axis=1))
    ids, offsets = cache.tokens([6, 1, 0])
    assert positions.tokens is not None
    assert np.array_equal(ids[:300], positions.tokens[48:348])
    assert offsets.tolist() == [0, 300, 300, 303]


def test_the_next_token_has_the_log_probability_that_the_teacher_gave_it(tmp_path: Path) -> None:
    positions = positions_of()
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions))
    logits, tokens = sample_logits(positions, [3], 1), cache.tokens([3])[0]
    found = cache.next_log_prob([3], 1)
    expected = np.log(softmax(logits.astype("f8")))[np.arange(39), tokens[1:]]
    np.testing.assert_allclose(found[:-1], expected, rtol=2e-3)
    assert np.isnan(found[-1]), "after the last token comes none"
    more = LogitCache.open(build(tmp_path / "more.h5", positions_of(extra=1)))
    assert not np.isnan(more.next_log_prob(slice(None))).any()
    with pytest.raises(TypeError, match="does not predict the next token"):
        LogitCache.open(build(tmp_path / "here.h5", positions_of(predicts="here"))).next_log_prob([0])


def test_rows_of_some_tokens_alone_know_their_places(tmp_path: Path) -> None:
    """As of a chat, where only the answers are targets."""
    positions = Positions.of(
        [2, 0, 3], tokens=range(12), token_lengths=[4, 3, 5], places=[1, 3, 0, 2, 3], predicts="next"
    )
    assert positions.next_tokens(np.arange(3)).tolist() == [2, -1, 8, 10, 11]
    cache = LogitCache.open(build(tmp_path / "cache.h5", positions))
    assert cache.places([2, 0]).tolist() == [0, 2, 3, 1, 3]
    assert np.isnan(cache.next_log_prob([0])).tolist() == [False, True]
    assert cache.tokens([2])[0].tolist() == [7, 8, 9, 10, 11]


lengths_of_any_kind = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 400)), min_size=1, max_size=40)


def blocks_of(positions: Positions) -> Blocks:
    of, tables, end = manifest_of(positions), {}, 4096
    for name, (shape, dtype) in expected_tables(of).items():
        tables[name] = Table(end, shape, dtype)
        end = -(-tables[name].end // 4096) * 4096
    offsets = positions.tables()
    return Blocks(Layout(of, tables, {name: offsets[name] for name in offsets if "offsets" in name}))


@given(lengths_of_any_kind.filter(any))
def test_every_sample_is_in_one_block_and_every_byte_in_a_block(lengths: list[int]) -> None:
    positions = Positions.of(lengths, predicts="next", tokens=np.zeros(sum(lengths) + 3, int),
                             token_lengths=[lengths[0] + 3, *lengths[1:]])  # fmt: skip
    blocks = blocks_of(positions)
    covered = [sample for block in range(blocks.per_view) for sample in range(*blocks.bounds(block))]
    assert covered == list(range(len(lengths)))
    for block in range(blocks.per_view):
        assert (blocks.of(np.arange(*blocks.bounds(block))) == block).all()
        assert blocks.without_samples()[block] == (not range(*blocks.bounds(block)))
    counts = np.zeros(blocks.size, int)
    for number in range(blocks.num_blocks):
        for first, end in blocks.ranges(number):
            counts[first:end] += 1
    for name, table in blocks.layout.tables.items():
        column = blocks.columns.get(name)
        times = 0 if column is None else 1 if column.per_view else V
        assert set(counts[table.offset : table.end].tolist()) <= {times}, name


def test_samples_without_positions_after_a_full_last_block_are_in_it() -> None:
    rows = blocks_of(positions_of((4,))).rows
    blocks = blocks_of(positions_of((rows, rows, 0, 0)))
    bounds = [blocks.bounds(block) for block in range(blocks.per_view)]
    assert bounds == [(0, 1), (1, 4)]
    assert np.stack(blocks.bounds_of(np.arange(2)), 1).tolist() == [[0, 1], [1, 4]]


def test_blocks_without_samples_are_marked_at_once_when_a_file_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be millions of them, too many to be marked one by one."""
    monkeypatch.delattr(StoredRows, "write_entry")
    positions = KINDS["longer than a block"]
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions), positions=positions) as writer:
        entries = writer._rows.stored.read_entries()
        assert ((entries == WRITTEN) == writer.blocks.without_samples()).all()
        assert (entries == WRITTEN).any()


@pytest.mark.parametrize("entry", [0, WRITTEN + 1])
def test_the_entry_of_a_block_without_samples_is_mended(tmp_path: Path, entry: int) -> None:
    """As a power cut may have left it: nobody writes that block again."""
    positions = KINDS["longer than a block"]
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions), positions=positions) as writer:
        write_missing(writer, positions)
        for view, block in ((0, -1), (1, 0)):
            writer._rows.stored.write_entry(
                view, int(np.flatnonzero(writer.blocks.without_samples())[block]), entry
            )
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions)) as writer:
        assert writer.is_written().all()
        assert writer.publish().read_bytes() == build(tmp_path / "whole.h5", positions).read_bytes()


def test_whoever_writes_and_in_whatever_order_the_bytes_are_the_same(tmp_path: Path) -> None:
    positions = positions_of()
    whole = build(tmp_path / "whole.h5", positions).read_bytes()
    chance, of = np.random.default_rng(2), manifest_of(positions)
    for number in range(3):
        path = tmp_path / f"{number}.h5"
        while not path.exists():  # killed again and again, as far as the file can tell
            begun = list(tmp_path.glob(f"{path.name}.*.partial"))
            given = None if begun and chance.random() < 0.5 else positions
            with LogitCacheWriter(path, of, positions=given) as writer:
                for view in range(V):
                    missing = np.flatnonzero(~writer.is_written(view))
                    some = chance.permutation(missing)[: chance.integers(1, 6)]
                    if len(some):
                        write(writer, positions, some, view)
                if all(writer.is_written(view).all() for view in range(V)):
                    writer.publish()
        assert path.read_bytes() == whole
    assert leftovers(tmp_path) == []


def test_a_file_that_lost_its_name_is_published_as_a_copy_with_its_positions(tmp_path: Path) -> None:
    positions = positions_of()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions), positions=positions) as writer:
        write_missing(writer, positions)
        writer.partial.unlink()
        assert writer.publish().read_bytes() == build(tmp_path / "whole.h5", positions).read_bytes()


def test_what_is_not_written_yet_is_not_handed_out(tmp_path: Path) -> None:
    positions = positions_of()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions), positions=positions) as writer:
        write(writer, positions, np.array([0, 3]), 0)
        assert len(writer.next_log_prob(0)) == LENGTHS[0]
        assert len(writer.encoded(0)["ids"]) == LENGTHS[0]
        for read in (writer.next_log_prob, writer.encoded):
            for sample, view in ((1, 0), (0, 1), (-1, 0), (len(LENGTHS), 0)):
                with pytest.raises(IndexError, match=f"sample {sample}, view {view}: is not written"):
                    read(sample, view)


def test_ranks_write_into_one_file_or_into_several(tmp_path: Path) -> None:
    positions = positions_of()
    whole = build(tmp_path / "whole.h5", positions).read_bytes()
    for number, shared in enumerate((False, True)):
        path = tmp_path / f"{number}.h5"
        first = LogitCacheWriter(path, manifest_of(positions), positions=positions)
        second = pickle.loads(pickle.dumps(first)) if shared else LogitCacheWriter(
            path, manifest_of(positions), positions=positions
        )  # fmt: skip
        for view in range(V):
            write(first, positions, np.arange(0, 16, 2), view)
            write(second, positions, np.r_[np.arange(1, 16, 2), 6], view)  # one is given twice, as padding is
        first.close()
        assert second.publish().read_bytes() == whole
        second.close()
    assert leftovers(tmp_path) == []


def test_a_row_of_the_same_input_that_is_rounded_otherwise_is_left(tmp_path: Path) -> None:
    positions = positions_of()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(positions), positions=positions) as writer:
        logits = sample_logits(positions, [3], 0)
        writer.write([3], logits, input_crc32=[5])
        writer.write([3], logits * 1.0005, input_crc32=[5])
        with pytest.raises(ValueRefusedError, match="sample 3, view 0: already stored with other"):
            writer.write([3], logits * 1.5, input_crc32=[5])
        with pytest.raises(IncompleteError, match=r"the first is view 0, block 0 .samples 0 to"):
            writer.publish()


def problems_of(path: Path) -> list[str]:
    """What `decant cache verify` says."""
    try:
        return LogitCache.open(path).verify()
    except CorruptError as error:
        return [str(error)]


def test_a_changed_byte_of_any_table_is_found_and_named(tmp_path: Path) -> None:
    positions = Positions.of(
        LENGTHS, tokens=np.arange(len(LENGTHS) * 320) % C, token_lengths=[320] * len(LENGTHS),
        places=np.concatenate([np.arange(n) for n in LENGTHS]), predicts="next",
    )  # fmt: skip
    path = build(tmp_path / "cache.h5", positions)
    with open(path, "rb") as file:
        layout = hdf5.check(file, str(path))
    sound = path.read_bytes()
    assert set(layout.tables) >= {"ids", "log_probs", "stats", "next_log_prob", "places", "tokens", "offsets"}
    for name, table in layout.tables.items():
        for place in np.linspace(table.offset, table.end - 1, 5).astype(int):
            changed = bytearray(sound)
            changed[place] ^= 4
            (tmp_path / "changed.h5").write_bytes(changed)
            if name in ("offsets", "seal"):
                with pytest.raises(FormatError):
                    LogitCache.open(tmp_path / "changed.h5")
                continue
            problems = problems_of(tmp_path / "changed.h5")
            assert problems, (name, place)
            if name != "blocks":
                assert re.search(r"\(samples .*, positions ", problems[0])


def test_values_that_no_writer_stores_are_found_with_their_sample_and_position(tmp_path: Path) -> None:
    positions = positions_of()
    wrong: dict[str, tuple[str, Any]] = {
        "ids: one is no output": ("ids", 60_000),
        "log_probs: must be finite, 0 or below, and fall": ("log_probs", np.nan),
        "head and tail do not add up to 1": ("stats", -1e-4),
        "next_log_prob must be finite and 0 or below, or NaN": ("next_log_prob", 1.0),
    }
    for number, (says, (table, value)) in enumerate(wrong.items()):
        with LogitCacheWriter(
            tmp_path / f"{number}.h5", manifest_of(positions), positions=positions
        ) as writer:
            write(writer, positions, [3], 1)
            stored = writer._rows.stored.read_array(table, 1, 3, 4).copy()
            stored[17 if stored.ndim == 1 else (17, 1)] = value
            writer._rows.stored.write(table, 1, 3, stored)
            writer._rows.filled[1, 3] = True
            write_missing(writer, positions)
            cache = LogitCache.open(writer.publish())
        problems = cache.verify()
        assert len(problems) == 1
        assert problems[0].startswith(f"sample 3, position 17, view 1: {says}")
        if table == "ids":
            with pytest.raises(CorruptError, match="ids: 60000 is no output, of 1,000"):
                cache.rows([3], 1)


def test_a_value_that_cannot_be_stored_is_refused_with_its_sample_and_position(tmp_path: Path) -> None:
    positions = positions_of()
    for encoding in ENCODINGS:
        with LogitCacheWriter(
            tmp_path / f"{encoding.name[:3]}.h5", manifest_of(positions, encoding), positions=positions
        ) as writer:
            logits = sample_logits(positions, [0, 3], 0).copy()
            logits[3 + 21, 5] = np.nan
            with pytest.raises(ValueRefusedError, match="sample 3, position 21, view 0: logit nan"):
                writer.write([0, 3], logits)
            with pytest.raises(
                ValueRefusedError, match=r"logits: expected \(43, 1000\) floats, found \(42, 1000"
            ):
                writer.write([0, 3], logits[:-1])
            assert not writer.is_written().any()


def test_next_tokens_are_checked(tmp_path: Path) -> None:
    bare = Positions.of([2, 1], predicts="next")
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(bare), positions=bare) as writer:
        logits = logits_of(3, 0)
        with pytest.raises(ValueRefusedError, match=r"next_tokens: \(Q,\) integers are needed"):
            writer.write([0, 1], logits)
        with pytest.raises(ValueRefusedError, match="sample 0, position 1, view 0: the next token is 1000"):
            writer.write([0, 1], logits, next_tokens=[1, 1000, -1])
        writer.write([0, 1], logits, next_tokens=[1, 5, -1])
    wide = Positions.of([2], predicts="next", tokens=[5, C])
    with pytest.raises(ValueRefusedError, match="tokens: 1000 is no output of the teacher, which has 1,000"):
        LogitCacheWriter(tmp_path / "wide.h5", manifest_of(wide), positions=wide)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lengths": [1, -1]}, "lengths: expected 0 to .*, found -1 at 1"),
        ({"lengths": [0, 0]}, "lengths: there are none in 2 samples"),
        ({"lengths": [1.0]}, "lengths: expected .* integers, found"),
        ({"lengths": [2**44, 2**44]}, "lengths: more than"),
        ({"lengths": [1], "predicts": "now"}, "predicts: expected next or here"),
        ({"lengths": [1], "count": 3}, "positions: count follows from lengths"),
        ({"lengths": [1], "places": [0]}, "there are no tokens"),
        ({"lengths": [2], "tokens": [1]}, "tokens: expected 2 of 1 samples"),
        ({"lengths": [2], "tokens": [1], "token_lengths": [1]}, "sample 0: 2 positions, and 1 tokens"),
        (
            {"lengths": [1, 1], "tokens": [1, 2], "token_lengths": [2]},
            "tokens: expected 2 of 2 samples .* of 1",
        ),
        ({"lengths": [2], "tokens": [1, 2], "places": [1, 1]}, "sample 0: places must rise"),
        (
            {"lengths": [1], "tokens": [1], "places": [1]},
            "sample 0: places must rise, and be below its 1 tokens",
        ),
        ({"lengths": [1], "tokens": [2**32]}, "tokens: expected 0 to 4,294,967,295"),
    ],
)
def test_positions_that_do_not_fit_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueRefusedError, match=says):
        Positions.of(**{"predicts": "next", **given})


def changed_identity(**changes: Any) -> Any:
    identity = {**positions_of(extra=1).identity, **changes}
    return {name: value for name, value in identity.items() if value != "absent"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"count": 0}, "positions.count"),
        ({"count": 2**60}, "positions.count"),
        ({"count": True}, "positions.count"),
        ({"offsets_sha256": "absent"}, "positions must have either"),
        ({"length": 3}, "positions must have either"),
        ({"offsets_sha256": "AB" * 32}, "positions.offsets_sha256"),
        ({"offsets_sha256": "absent", "length": 3}, "positions.length must be count"),
        ({"predicts": "there"}, "positions.predicts"),
        ({"tokens": 3}, "positions.tokens must be a table"),
        ({"tokens": {"dtype": "int64", "sha256": "ab" * 32}}, "positions.tokens.dtype"),
        ({"tokens": {"dtype": "uint16", "sha256": "ab"}}, "positions.tokens.sha256"),
        ({"tokens": {"dtype": "uint16", "sha256": "ab" * 32, "count": -1}}, "positions.tokens.count"),
        ({"places_sha256": 3}, "positions.places_sha256"),
        ({"tokens": None, "places_sha256": "ab" * 32}, "positions.places_sha256"),
    ],
    ids=str,
)
def test_an_identity_that_cannot_be_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(FormatError, match=rf"manifest: identity\.{field}"):
        Manifest.build(num_samples=len(LENGTHS), num_outputs=C, positions=changed_identity(**changes))


def test_other_positions_are_another_cache_and_the_difference_is_named(tmp_path: Path) -> None:
    positions, others = positions_of(max_length=512), positions_of(max_length=256)
    of = manifest_of(positions)
    assert of.key != manifest_of(others).key
    assert [str(one) for one in differences(of.identity, manifest_of(others).identity)] == [
        "positions.max_length: expected 512, found 256"
    ]
    with pytest.raises(MismatchError, match=r"positions\.max_length: expected 256, found 512"):
        LogitCacheWriter(tmp_path / "cache.h5", of, positions=others)
    with pytest.raises(ValueRefusedError, match="positions: needed to begin it"):
        LogitCacheWriter(tmp_path / "cache.h5", of)
    plain = Manifest.build(num_samples=len(LENGTHS), num_outputs=C)
    with pytest.raises(ValueRefusedError, match="build the manifest with them"):
        LogitCacheWriter(tmp_path / "cache.h5", plain, positions=positions)
    with pytest.raises(ValueRefusedError, match="tokens: give the lengths with them"):
        LogitCacheWriter(tmp_path / "cache.h5", of, tokens=positions.tokens)
    for more in ({"lengths": LENGTHS}, {"tokens": positions.tokens}):
        with pytest.raises(ValueRefusedError, match="positions have them: give one of both"):
            LogitCacheWriter(tmp_path / "cache.h5", of, positions=positions, **more)
    fewer = Manifest.build(num_samples=3, num_outputs=C, positions=positions)
    with pytest.raises(ValueRefusedError, match="positions: of 16 samples, and the manifest has 3"):
        LogitCacheWriter(tmp_path / "cache.h5", fewer, positions=positions)
    with LogitCacheWriter(tmp_path / "cache.h5", of, lengths=LENGTHS, tokens=positions.tokens) as writer:
        write_missing(writer, positions)
        assert holds_the_answers(LogitCache.open(writer.publish()), positions, ENCODINGS[0])


@pytest.mark.parametrize(
    ("offsets", "says"),
    [
        ([0, 5, 3, 9], "sample 2: must not fall, or exceed 9, found 3"),
        ([0, 10, 3, 9], "sample 1: must not fall, or exceed 9, found 10"),
        ([0, 2**62, 2**62, 9], "sample 1: must not fall, or exceed 9"),
        ([0, -1, 4, 9], "sample 1: must not fall, or exceed 9"),
        ([1, 2, 3, 9], "expected 0 to 9, found 1 to 9"),
        ([0, 2, 3, 8], "expected 0 to 9, found 0 to 8"),
        ([0, 2, 4, 9], "`offsets` is not as the manifest says: SHA-256 expected"),
    ],
)
@pytest.mark.parametrize("piece", [8, 16, 1 << 23])
def test_offsets_of_a_hostile_file_are_refused(
    offsets: list[int], says: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece, and in several, as those of some millions of samples are read."""
    monkeypatch.setattr(format_offsets, "_PIECE", piece)
    honest = Positions.of([2, 1, 6], predicts="here")
    hostile = Positions(honest.identity, Ragged(np.array(offsets)))
    if "SHA" not in says:  # whoever makes such a file gives the right digest
        from decant.cache.positions import sha256

        hostile = Positions({**honest.identity, "offsets_sha256": sha256(np.array(offsets))}, hostile.lengths)
    with pytest.raises(FormatError, match=says):
        hdf5.create(tmp_path / "cache.h5", manifest_of(hostile), hostile.tables())
    layout, fd = hdf5.create(tmp_path / "honest.h5", manifest_of(honest), honest.tables())
    os.close(fd)
    assert layout.offsets["offsets"].tolist() == [0, 2, 3, 9]


def test_a_file_of_holes_with_many_samples_takes_no_memory(tmp_path: Path) -> None:
    identity = {**Positions.of([2, 1], predicts="here").identity, "count": 2**40}
    of = Manifest.build(num_samples=2**33, num_outputs=4, encoding=Sparse(1), positions=identity)
    with pytest.raises(FormatError, match=r"`offsets`: expected 0 to .*, found 0 to 0"):
        hdf5.create(tmp_path / "cache.h5", of)


def test_rows_that_are_shifted_by_one_are_doubted(tmp_path: Path) -> None:
    """The guard that needs no reference: the teacher should have expected what follows."""
    tokens = np.random.default_rng(0).integers(0, C, 600)
    positions = Positions.of([600], predicts="next", tokens=tokens)
    good = np.zeros((600, C), "f4")
    good[np.arange(599), tokens[1:]] = 9.0
    for shift in (0, 1):
        with LogitCacheWriter(
            tmp_path / f"{shift}.h5", manifest_of(positions, views=1), positions=positions
        ) as writer:
            writer.write([0], np.roll(good, shift, axis=0))
            if shift:
                with pytest.warns(CacheWarning, match="rows that are shifted by one position"):
                    writer.publish()
            else:
                writer.publish()


def test_tokens_of_few_bytes_are_not_copied() -> None:
    """There may be billions of them, in a mapped file."""
    tokens = np.arange(9, dtype="<u2")
    positions = Positions.of([4, 5], tokens=tokens, predicts="next")
    assert positions.tokens is not None
    assert np.shares_memory(positions.tokens, tokens)
    same = Positions.of([4, 5], tokens=tokens.astype("i8"), predicts="next")
    assert same.identity == positions.identity
    assert Positions.of([1], tokens=[2**16], predicts="next").identity["tokens"]["dtype"] == "uint32"


def test_what_is_drawn_of_a_position_does_not_depend_on_who_writes_it_and_when(tmp_path: Path) -> None:
    positions, encoding = positions_of(), Sparse(4, draws=8, seed=5)
    whole = build(tmp_path / "whole.h5", positions, encoding)
    assert holds_the_answers(LogitCache.open(whole), positions, encoding)
    of = manifest_of(positions, encoding)
    for samples in np.array_split(np.random.default_rng(1).permutation(16), 4):
        with LogitCacheWriter(tmp_path / "cache.h5", of, positions=positions) as writer:
            for view in (1, 0):
                write(writer, positions, samples, view)
            if all(writer.is_written(view).all() for view in range(V)):
                writer.publish()
    assert (tmp_path / "cache.h5").read_bytes() == whole.read_bytes()
    rows = [LogitCache.open(whole).rows([6], view) for view in range(V)]
    assert not np.array_equal(rows[0].ids, rows[1].ids)


def test_a_secret_among_the_entries_is_left_out_on_both_sides(tmp_path: Path) -> None:
    positions = Positions.of([1], predicts="here", api_key="hunter2", tokenizer="mine")
    of = Manifest.build(num_samples=1, num_outputs=2, positions=positions)
    assert b"hunter2" not in of.to_json()
    with LogitCacheWriter(tmp_path / "cache.h5", of, positions=positions) as writer:
        writer.write([0], [[1.0, 2.0]])
        assert LogitCache.open(writer.publish()).positions is not None


@pytest.mark.parametrize("table", ["offsets", "token_offsets", "tokens"])
def test_what_was_known_beforehand_is_written_anew_where_a_bit_has_changed(
    table: str, tmp_path: Path
) -> None:
    positions = positions_of((3, 5, 2, 0), extra=1)
    of, whole = manifest_of(positions), build(tmp_path / "whole.h5", positions)
    with LogitCacheWriter(tmp_path / "cache.h5", of, positions=positions) as writer:
        write(writer, positions, [0, 1], 0)
        place = writer.layout.tables[table].offset + 9
    with open(writer.partial, "r+b") as file:
        file.seek(place)
        changed = file.read(1)[0] ^ 2
        file.seek(place)
        file.write(bytes([changed]))
    with pytest.raises(FormatError, match=rf"`{table}`.*delete it and run the command again"):
        LogitCacheWriter(tmp_path / "cache.h5", of)
    with LogitCacheWriter(tmp_path / "cache.h5", of, positions=positions) as writer:
        assert writer.is_written().tolist() == [True, True, False, False]
        write_missing(writer, positions)
        assert writer.publish().read_bytes() == whole.read_bytes()


def test_a_damaged_file_of_other_positions_stays_as_it_is(tmp_path: Path) -> None:
    """What is known of one cache is never written into the file of another."""
    begun, others = positions_of((3, 5, 2, 0)), positions_of((3, 5, 1, 1))
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(begun), positions=begun) as writer:
        write(writer, begun, [0, 1], 0)
        place = writer.layout.tables["offsets"].offset + 9
    with open(writer.partial, "r+b") as file:
        file.seek(place)
        file.write(b"\1")
    content = writer.partial.read_bytes()
    with pytest.raises(FormatError, match="delete it and run the command again"):
        LogitCacheWriter(tmp_path / "cache.h5", manifest_of(others), positions=others)
    assert writer.partial.read_bytes() == content
