"""Mutated caches of samples with several positions each: as they are, sealed again, and with their checksums repaired.

`python -m tests.helpers.hostile_positions DIR SEED COUNT` by hand.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import warnings
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from decant.cache import Encoding, LogitCache, LogitCacheWriter, Manifest, Positions, Quantised, Sparse
from decant.cache.format.blocks import Blocks
from decant.cache.format.hdf5 import check
from decant.cache.format.tables import Layout
from decant.cache.io.block_layout import expected_entry
from tests.helpers.caches import repair_checksums, reseal
from tests.helpers.hostile import guard, mutate, outcome

C, V = 40, 2
SAFE_LIBHDF5 = h5py.version.hdf5_version_tuple >= (2, 0, 0)
"""Whether a header that was made by hand cannot end the process in libhdf5 itself, as it can before."""
ENCODINGS: tuple[Encoding, ...] = (Sparse(5, (1.0, 2.0)), Sparse(2, draws=3), Quantised())
POSITIONS = Positions.of(
    [3, 0, 9, 1],
    predicts="next",
    tokens=np.arange(20) % C,
    token_lengths=[4, 2, 12, 2],
    places=[0, 2, 3, 0, 1, 2, 4, 5, 6, 8, 9, 10, 1],
)


def logits() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(POSITIONS.num_positions, C)).astype("f4") * 3


def build(path: Path, encoding: Encoding) -> Path:
    manifest = Manifest.build(
        num_samples=4, num_outputs=C, num_views=V, encoding=encoding, positions=POSITIONS
    )
    with LogitCacheWriter(path, manifest, positions=POSITIONS) as writer:
        for view in range(V):
            writer.write(range(4), logits() + view, view=view)
        return writer.publish()


def read_whole(cache: LogitCache) -> dict[str, bytes]:
    """Everything that can be read, by what it is."""
    found: dict[str, bytes] = {"labels": cache.labels.tobytes(), "crc32": cache.input_crc32.tobytes()}
    for view in range(cache.num_views):
        for name, rows in cache.encoded(slice(None), view).items():
            found[f"{name} {view}"] = rows.tobytes()
        found[f"logits {view}"] = cache.logits(slice(None), view).tobytes()
        found[f"next {view}"] = cache.next_log_prob([2, 0], view).tobytes()
        if isinstance(cache.manifest.encoding, Sparse):
            rows_of = cache.rows([3, 1, 2], view)
            found[f"rows {view}"] = rows_of.ids.tobytes() + rows_of.log_probs.tobytes()
    ids, offsets = cache.tokens(slice(None))
    found |= {"tokens": ids.tobytes(), "offsets": offsets.tobytes(), "places": cache.places([1, 2]).tobytes()}
    return found


def repair_entries(content: bytearray, layout: Layout) -> None:
    """Makes the entry of every block agree with its bytes."""
    blocks = Blocks(layout)
    for number in range(blocks.num_blocks):
        entry = expected_entry(blocks, lambda first, end: bytes(content[first:end]), number)
        struct.pack_into("<Q", content, blocks.entries_offset + 8 * number, entry)


def fuzz(folder: Path, seed: int, count: int) -> None:
    """Reads `count` mutated caches; of each four one has checksums of its blocks that agree with what they now hold, so
    that nothing but a typed error or some rows may come of it.
    """
    guard()
    warnings.simplefilter("ignore", RuntimeWarning)  # what a file says may be any number
    sound, layouts, right, hot = [], [], [], []
    for number, encoding in enumerate(ENCODINGS):
        path = build(folder / f"sound{number}.h5", encoding)
        with open(path, "rb") as file:
            layouts.append(check(file, str(path)))
        sound.append(path.read_bytes())
        right.append(read_whole(LogitCache.open(path)))
        header = min(table.offset for table in layouts[-1].tables.values())
        tables = layouts[-1].tables.values()
        hot.append([place for place in range(header) if any(sound[-1][max(0, place - 8) : place + 8])])
        hot[-1] += [place for table in tables for place in range(table.offset, table.end)]
    outcomes: Counter[str] = Counter()
    path = folder / "mutated.h5"
    for number in range(count):
        kind = number // 4 % len(sound)
        chance = random.Random(f"{seed} {number}")
        header = min(table.offset for table in layouts[kind].tables.values())
        content = bytearray(sound[kind])
        places = hot[kind]
        if number % 4 == 3:  # rows, and what says whose they are
            places = [place for place in places if place >= header]
        mutate(content, chance, places)
        treatment = ("as it is", "sealed", "sealed and repaired", "agreeing")[number % 4]
        if treatment.startswith("sealed") and not SAFE_LIBHDF5:
            outcomes["left out"] += 1
            continue
        if number % 4 == 2:
            repair_checksums(content, header)
        if number % 4 in (1, 2):
            reseal(content, header)
        if number % 4 == 3 and len(content) == len(sound[kind]):
            content[:header], content[-40:] = sound[kind][:header], sound[kind][-40:]
            repair_entries(content, layouts[kind])
        path.unlink(missing_ok=True)
        path.write_bytes(content)

        def rows_are_right(cache: LogitCache, kind: int = kind, number: int = number) -> bool:
            cache.verify()
            return read_whole(cache) == right[kind] or number % 4 == 3

        said, text = outcome(path, rows_are_right)
        if number % 4 == 0 and said == "rows":
            said = "WRONG" if content != sound[kind] else "unchanged"
        outcomes[f"{treatment}: {said}"] += 1
        if said.startswith(("WRONG", "UNTYPED")):
            raise AssertionError(f"seed {seed}, file {number}, {treatment}: {said} {text}")
    print(json.dumps(outcomes))


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    fuzz(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
