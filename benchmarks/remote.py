"""Caches that lie elsewhere: fetched from a server that speaks S3, and read lazily from a web server, over loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.caches import published
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from benchmarks.memory import forget_peak, peak_memory
from benchmarks.reading import described, gather, random_batches
from benchmarks.timing import compare, timed
from decant.cache import LogitCache, Manifest, Store, push_cache
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.io.block_layout import expected_entry

_BATCH = 32  # rows of the first batch, each in a block of its own


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 22."""
    missing = [name for name in ("s3fs", "moto", "aiohttp") if importlib.util.find_spec(name) is None]
    if missing:
        raise LeftOut(f"{', '.join(missing)}: not installed; make test-integrations installs them")
    os.environ["DECANT_CACHE_HOME"] = str(conditions.folder / "mirror")
    yield from _fetching(conditions)
    yield from _first_batch(conditions)
    yield from _second_epoch(conditions)


def _fetching(conditions: Conditions) -> Iterator[Measurement]:
    import fsspec

    samples, classes = conditions.choose((100_000, 1_000), (5_000, 100))
    path = published(conditions, samples, classes)
    with _s3_server():
        fsspec.filesystem("s3").mkdir("bench")
        push_cache(path, "s3://bench")
        store, copy = Store("s3://bench"), conditions.folder / "copy.h5"

        def fetch() -> None:
            shutil.rmtree(store.root, ignore_errors=True)
            store.resolve(path.name)

        before = forget_peak()
        plain = timed(lambda: fsspec.filesystem("s3").get_file(f"bench/{path.name}", str(copy)))
        found = compare(
            22, f"fetching {described(samples, classes)} from S3 over loopback, each block checked", timed(fetch),
            "a plain copy by s3fs", plain, unit=Unit.RATE, target=0.8, repetitions=conditions.choose(5, 1),
        )  # fmt: skip
        yield found
        yield Measurement(
            22, "memory of both, above what was held before", "", (peak_memory() - before) / 1e6, Unit.MEGABYTES, 400,
            details={"seconds": found.details["seconds"]},
        )  # fmt: skip


def _first_batch(conditions: Conditions) -> Iterator[Measurement]:
    samples = conditions.choose(5_000_000, 50_000)
    folder = conditions.folder / "served"
    folder.mkdir()
    ones = _holes(folder / "large.h5", samples)
    with _web_server(folder, *ones) as url:
        import aiohttp  # noqa: F401  # whose import is not measured

        before = _sent(url)
        started = time.perf_counter()
        cache = LogitCache.open(f"{url}/large.h5", lazy=True)
        rows = np.sort(conditions.random().choice(samples, _BATCH, replace=False))
        cache.logits(rows)
        seconds, sent = time.perf_counter() - started, _sent(url) - before
    size = (folder / "large.h5").stat().st_size
    what = f"{_BATCH} random rows of a file of {size / 1e9:.1f} GB, opened lazily over HTTP"
    details = {"seconds": seconds, "bytes": sent}
    yield Measurement(22, f"{what}: until they are read", "", seconds, Unit.SECONDS, 1, details=details)
    yield Measurement(22, f"{what}: fetched", "", sent / 2**20, Unit.MEBIBYTES, 5, details=details)


def _second_epoch(conditions: Conditions) -> Iterator[Measurement]:
    samples, classes = conditions.choose((200_000, 1_000), (20_000, 100))
    path = published(conditions, samples, classes)
    push_cache(path, conditions.folder / "read")
    with _web_server(conditions.folder / "read") as url:
        lazy, local = LogitCache.open(f"{url}/{path.name}", lazy=True), LogitCache.open(path)
        for cache in (lazy, local):
            assert not cache.verify()
            cache.check_unchanged()
        yield compare(
            22, f"{described(samples, classes)}, read lazily: batches of the second epoch",
            timed(gather(lazy, random_batches(conditions, samples)), 400), "the same file here",
            timed(gather(local, random_batches(conditions, samples)), 400), unit=Unit.RATE, target=0.95,
            repetitions=conditions.choose(15, 3),
        )  # fmt: skip


def _holes(path: Path, samples: int) -> tuple[int, int]:
    """A cache whose tables are holes, and which bytes of it are to be sent as ones: its blocks have their checksum."""
    manifest = Manifest.build(num_samples=samples, num_outputs=1_000, data={"name": "holes"})
    layout, fd = hdf5.create(path, manifest)
    try:
        os.ftruncate(fd, layout.size)
        blocks = Blocks(layout)
        first, last = (expected_entry(blocks, _ones, number) for number in (0, blocks.num_blocks - 1))
        entries = np.full(blocks.num_blocks, first, "<u8")
        entries[-1] = last
        os.pwrite(fd, entries.tobytes(), blocks.entries_offset)
        return layout.tables["logits"].offset, layout.tables["input_crc32"].end
    finally:
        os.close(fd)


def _ones(first: int, end: int) -> bytes:
    return b"\1" * (end - first)


@contextlib.contextmanager
def _s3_server() -> Iterator[None]:
    """moto's server, and the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        _wait(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield
    finally:
        process.kill()
        process.wait()
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(name)


@contextlib.contextmanager
def _web_server(folder: Path, *ones: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.web_server", str(folder), *map(str, ones)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def _sent(url: str) -> int:
    with urllib.request.urlopen(f"{url}/sent") as answer:
        return int(answer.read())


def _wait(is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)
