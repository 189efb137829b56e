"""Blocks that are checked together: the very blocks are found damaged that are when each is checked alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import CorruptError, LogitCache, LogitCacheWriter, Manifest
from decant.cache.io import span_checks
from decant.cache.io.block_checks import different_blocks, expected_entries
from decant.cache.io.span_checks import sound_in_spans
from tests.helpers.block_files import KINDS


class Tables:
    """Blocks of `rows` rows of several tables that lie one after another, of `views` views; the last block of each has
    fewer.
    """

    def __init__(self, row_bytes: list[int], rows: int, samples: int, views: int) -> None:
        self.row_bytes, self.rows, self.samples = row_bytes, rows, samples
        self.per_view = -(-samples // rows)
        self.num_blocks = views * self.per_view
        self.entries_offset = views * samples * sum(row_bytes)
        self.size = self.entries_offset + 8 * self.num_blocks
        self.views = views

    def ranges(self, block: int) -> Iterator[tuple[int, int]]:
        (view, number), start = divmod(block, self.per_view), 0
        first, end = number * self.rows, min(self.samples, (number + 1) * self.rows)
        for each in self.row_bytes:
            at = start + view * self.samples * each
            yield at + first * each, at + end * each
            start += self.views * self.samples * each


class Content:
    """Bytes that may be changed, and what was read of them."""

    def __init__(self, size: int, seed: int) -> None:
        self.bytes = bytearray(np.random.default_rng(seed).bytes(size))
        self.read_at = list[int]()

    def __call__(self, first: int, end: int) -> bytes:
        self.read_at.append(first)
        return bytes(self.bytes[first:end])


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_checks, "_SPAN", 256)
    monkeypatch.setattr(span_checks, "_AT_ONCE", 8)


def alone(
    layout: Tables, content: Content, blocks: NDArray[np.intp], entries: NDArray[np.uint64]
) -> list[int]:
    found: list[int] = blocks[expected_entries(layout, content, blocks) != entries[blocks]].tolist()
    return found


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("seed", range(60))
def test_the_same_blocks_are_damaged_together_as_alone(seed: int) -> None:
    """Of any shape, order and number, of bytes and entries that changed anywhere."""
    random = np.random.default_rng(seed)
    others = random.integers(0, 3, random.integers(0, 3)).tolist()
    layout = Tables(
        [*random.integers(1, 40, 1).tolist(), *others], *random.integers([1, 1, 1], [5, 90, 4]).tolist()
    )
    content = Content(layout.size, seed)
    entries = expected_entries(layout, content, np.arange(layout.num_blocks))
    blocks = np.flatnonzero(random.random(layout.num_blocks) < random.choice([0.5, 0.95, 1]))
    assert different_blocks(layout, content, blocks, entries[blocks]) == []
    for _ in range(random.integers(1, 4)):
        content.bytes[random.integers(layout.entries_offset)] ^= 1 << random.integers(8)
    entries[random.integers(layout.num_blocks)] ^= np.uint64(1 << random.integers(64))
    if seed % 2:
        random.shuffle(blocks)
    assert different_blocks(layout, content, blocks, entries[blocks]) == alone(
        layout, content, blocks, entries
    )


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize("row_bytes", [[5], [8, 1, 1]], ids=["one table", "three tables"])
def test_every_changed_byte_and_bit_of_an_entry_is_found(row_bytes: list[int]) -> None:
    layout = Tables(row_bytes, rows=3, samples=48, views=1)
    content, blocks = Content(layout.size, 0), np.arange(16)
    entries = expected_entries(layout, content, blocks)
    whose = {
        place: block
        for block in blocks.tolist()
        for first, end in layout.ranges(block)
        for place in range(first, end)
    }
    assert len(whose) == layout.entries_offset
    for place, block in whose.items():
        content.bytes[place] ^= 1 << place % 8
        assert different_blocks(layout, content, blocks, entries) == [block]
        content.bytes[place] ^= 1 << place % 8
    for block in (0, 7, 15):
        for bit in range(64):
            entries[block] ^= np.uint64(1 << bit)
            assert different_blocks(layout, content, blocks, entries) == [block]
            entries[block] ^= np.uint64(1 << bit)


@pytest.mark.usefixtures("small_spans")
def test_two_blocks_that_changed_places_are_found() -> None:
    layout = Tables([8], rows=1, samples=32, views=1)
    content, blocks = Content(layout.size, 0), np.arange(32)
    entries = expected_entries(layout, content, blocks)
    for other in range(1, 32):
        swapped = Content(layout.size, 0)
        swapped.bytes[:8], swapped.bytes[8 * other : 8 * other + 8] = (
            content.bytes[8 * other : 8 * other + 8],
            content.bytes[:8],
        )
        assert different_blocks(layout, swapped, blocks, entries) == [0, other]


def ranges_of(layout: Tables) -> NDArray[np.int64]:
    return np.array([[*layout.ranges(block)] for block in range(layout.num_blocks)], np.int64)


@pytest.mark.usefixtures("small_spans")
def test_what_lies_together_is_read_together() -> None:
    """A read for each span, and one for what 8 blocks have in each of the other tables."""
    layout = Tables([16, 1, 1], rows=4, samples=4 * 16 + 1, views=2)
    content = Content(layout.size, 0)
    entries = expected_entries(layout, content, np.arange(layout.num_blocks))
    content.read_at.clear()
    sound = sound_in_spans(content, ranges_of(layout), entries)
    assert sound.tolist() == [*[True] * 16, False, *[True] * 16, False], "the last of each view is smaller"
    assert len(content.read_at) == 2 * (4 + 2 * 2)


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize(
    ("row_bytes", "rows", "samples"),
    [([64, 16, 1], 1, 40), ([257], 1, 40), ([129], 1, 40), ([0, 1], 1, 40), ([8], 8, 8)],
    ids=["much besides", "larger than a span", "two are", "nothing in the first", "one block"],
)
def test_what_is_not_worth_it_is_left_to_be_looked_at_alone(
    row_bytes: list[int], rows: int, samples: int
) -> None:
    layout = Tables(row_bytes, rows, samples, views=1)
    content = Content(layout.size, 0)
    entries = expected_entries(layout, content, np.arange(layout.num_blocks))
    content.read_at.clear()
    assert not sound_in_spans(content, ranges_of(layout), entries).any()
    assert content.read_at == []
    assert different_blocks(layout, content, np.arange(layout.num_blocks), entries) == []


def test_blocks_of_a_file_that_was_cut_off_are_found() -> None:
    layout = Tables([8, 1, 1], 3, 40, views=1)
    content, blocks = Content(layout.size, 1), np.arange(layout.num_blocks)
    entries = expected_entries(layout, content, blocks)
    del content.bytes[8 * 40 + 20 :]
    assert different_blocks(layout, content, blocks, entries) == blocks.tolist()


def test_a_file_of_several_spans_is_verified_and_its_damage_named(tmp_path: Path) -> None:
    """Two views of 100 blocks of 64,000 bytes, of which a span has sixteen."""
    manifest = Manifest.build(num_samples=3_200, num_outputs=1_000, num_views=2)
    path = tmp_path / "toy.h5"
    rows = np.random.default_rng(0).standard_normal((3_200, 1_000)).astype("f2")
    with LogitCacheWriter(path, manifest) as writer:
        for view in range(2):
            writer.write(range(3_200), rows, labels=np.arange(3_200) % 7, view=view)
        writer.publish()
    assert LogitCache.open(path).verify() == []
    ranges = [[*LogitCache.open(path)._blocks.ranges(block)] for block in range(200)]
    path.chmod(0o644)
    with path.open("r+b") as file:
        for block, table in ((17, 0), (18, 0), (150, 2), (199, 1)):
            file.seek(ranges[block][table][1] - 1)
            value = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([value ^ 1]))
    # Labels belong to both views: what block 150 has of them, block 50 has too.
    assert [problem.partition(" (")[0] for problem in LogitCache.open(path).verify()] == [
        f"view {block // 100}, block {block % 100}" for block in (17, 18, 50, 150, 199)
    ]
    cache = LogitCache.open(path)
    with pytest.raises(CorruptError, match="view 0, block 17 "):
        cache.logits(slice(0, 3_200))
    assert np.array_equal(cache.logits(slice(32 * 51, 3_200)), rows[32 * 51 :])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_checked_together_as_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ranges of any size, blocks of several views, and such that hold nothing."""
    monkeypatch.setattr(span_checks, "_SPAN", 1 << 30)
    monkeypatch.setattr(span_checks, "_SMALL", 0)
    path = KINDS[kind]().build(tmp_path)
    layout, content = KINDS[kind]().layout(path), bytearray(path.read_bytes())
    entries = np.frombuffer(bytes(content), "<u8", layout.num_blocks, layout.entries_offset)
    random, blocks = np.random.default_rng(0), np.arange(layout.num_blocks)

    def read(first: int, end: int) -> bytes:
        return bytes(content[first:end])

    for _ in range(20):
        alone = blocks[expected_entries(layout, read, blocks) != entries].tolist()
        assert different_blocks(layout, read, blocks, entries) == alone
        content[random.integers(layout.size)] ^= 1 << random.integers(8)
    assert alone
