"""The rows of texts from a sparse cache: eight samples of about 512 positions, 64 outputs of 49,152 each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.caches import checked
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, medians, timed
from decant.cache import LogitCache, LogitCacheWriter, Manifest, Positions, Sparse

BATCH, KEPT, OUTPUTS = 8, 64, 49_152

Batches = Iterator[np.ndarray]


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 20."""
    path = _written(conditions, conditions.choose(2_000, 40))
    cache, held = checked(path), LogitCache.open(path, table="ram", verify="open")
    repetitions, what = (
        conditions.choose(25, 3),
        f"`cache.rows({BATCH} samples of 512 positions)`, {KEPT} of {OUTPUTS:,}",
    )
    batches = _random_batches(conditions, cache.num_samples)
    yield compare(
        20, what.replace("rows", "encoded"), timed(lambda: cache.encoded(next(batches)), 100),
        "the same from a copy in memory", timed(lambda: held.encoded(next(batches)), 100),
        unit=Unit.RATE, target=0.9, repetitions=repetitions,
    )  # fmt: skip
    to_tensors = timed(lambda: _tensors(cache, next(batches)), 100)
    (seconds,) = medians(to_tensors, repetitions=repetitions)
    rate = BATCH * cache.num_positions / cache.num_samples / seconds / 1e6
    details = {"seconds": seconds, "repetitions": float(repetitions)}
    yield Measurement(20, f"{what}, to tensors", "", rate, Unit.MILLIONS, 10.0, details=details)
    load = _torch_load(conditions, cache, batches)
    yield compare(
        20, what.replace("rows", "encoded"), timed(lambda: cache.encoded(next(batches)), 100),
        "`torch.load` of a file for each sample, as it is stored", timed(load, 10),
        unit=Unit.RATE, target=40, repetitions=repetitions,
    )  # fmt: skip
    yield compare(
        20, f"{what}, to tensors", timed(lambda: _tensors(cache, next(batches)), 100),
        "the same tensors from these files", timed(lambda: _same_tensors(load()), 10),
        unit=Unit.RATE, repetitions=repetitions,
    )  # fmt: skip
    yield compare(
        20, what, timed(lambda: cache.rows(next(batches)), 100),
        "the same arrays from rows of Parquet, a row group each", timed(_parquet(conditions, cache, batches), 1),
        unit=Unit.RATE, target=1_000, repetitions=conditions.choose(3, 1),
    )  # fmt: skip


def _tensors(cache: LogitCache, samples: np.ndarray) -> tuple[torch.Tensor, ...]:
    rows = cache.rows(samples)
    return (
        torch.from_numpy(rows.ids).long(),
        torch.from_numpy(rows.log_probs),
        torch.from_numpy(rows.log_tail),
    )


def _same_tensors(loaded: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    ids, log_probs, tail = loaded
    return ids.long(), log_probs.float(), tail


def _torch_load(
    conditions: Conditions, cache: LogitCache, batches: Batches
) -> Callable[[], list[torch.Tensor]]:
    """The same tensors, saved a sample at a time as others do; all files are in the page cache."""
    folder = conditions.folder / "tensors"
    if not folder.exists():
        folder.mkdir()
        for sample in range(cache.num_samples):
            ids, log_probs, tail = _tensors(cache, np.array([sample]))
            torch.save((ids.to(torch.int32), log_probs.half(), tail), folder / f"{sample}.pt")

    def load() -> list[torch.Tensor]:
        found = [torch.load(folder / f"{sample}.pt", weights_only=True) for sample in next(batches).tolist()]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    return load


def _parquet(conditions: Conditions, cache: LogitCache, batches: Batches) -> Callable[[], object]:
    """Rows as a file of Parquet has them that can be read in any order: lists of ids and of log-probabilities, each row
    a row group of its own. Of a few samples alone; all of it is in the page cache. Raises LeftOut without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise LeftOut("pyarrow is not installed: pip install 'decant-kd[parquet]'") from None
    path, few = conditions.folder / "rows.parquet", min(2 * BATCH, cache.num_samples)
    found = cache.rows(np.arange(few))
    table = pa.table({"token_ids": list(found.ids), "top_values": list(found.log_probs)})
    pq.write_table(table, path, row_group_size=1, compression="zstd")
    file, offsets = pq.ParquetFile(path, memory_map=True), cache.offsets[: few + 1]

    def load() -> object:
        chosen = next(batches) % few
        rows = [row for sample in chosen.tolist() for row in range(offsets[sample], offsets[sample + 1])]
        read = [file.read_row_group(row) for row in rows]
        ids, values = (
            np.stack([one.column(name)[0].values.to_numpy() for one in read])
            for name in ("token_ids", "top_values")
        )
        return ids, values

    return load


def _random_batches(conditions: Conditions, samples: int) -> Batches:
    random = conditions.random()
    return itertools.cycle([random.integers(0, samples, BATCH) for _ in range(500)])


def _written(conditions: Conditions, samples: int) -> Path:
    """A cache of made-up rows, written at the first call."""
    path = conditions.folder / f"{samples}-texts.h5"
    if path.exists():
        return path
    random = conditions.random()
    lengths = random.integers(400, 625, samples)
    positions = Positions.of(lengths, predicts="here", tokens=random.integers(0, OUTPUTS, lengths.sum()))
    manifest = Manifest.build(
        num_samples=samples,
        num_outputs=OUTPUTS,
        encoding=Sparse(KEPT),
        positions=positions,
        data={"name": "bench"},
    )
    count = int(lengths.max())
    ids = random.integers(0, OUTPUTS // KEPT, (count, KEPT)) + np.arange(KEPT) * (OUTPUTS // KEPT)
    shares = -(np.sort(-random.random((count, KEPT)), axis=1) ** 3)
    log_probs = np.log(0.8 * shares / shares.sum(axis=1, keepdims=True)).astype("<f2")
    tail = np.log(1 - np.exp(log_probs.astype("f8")).sum(axis=1))
    rows = {"ids": ids.astype("<u2"), "log_probs": log_probs}
    rows["stats"] = np.stack([np.zeros(count), tail], axis=1).astype("<f4")
    with LogitCacheWriter(path, manifest, positions=positions) as writer:
        for sample, length in enumerate(lengths.tolist()):
            writer.write_encoded([sample], {name: column[:length] for name, column in rows.items()})
        writer.publish()
    return path
