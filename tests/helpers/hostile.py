"""Files that somebody made to do harm, and the reading of many of them in one watched process.

Every crafted file is sealed again, so that it is a check after the seal that has to refuse it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from decant.cache import CacheError, LogitCache
from decant.cache.format.hdf5 import FORMAT, PAGE, check
from decant.cache.format.tables import expected_tables
from tests.helpers.caches import HEADER, answers, build, holds_the_answers, manifest, repair_checksums, reseal
from tests.helpers.processes import PATIENCE

SMALL = manifest(3, 5, 2)
Make = Callable[[h5py.File, str, tuple[int, ...], np.dtype[Any]], None]


def plain(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], **plan: Any) -> None:
    """A table as the format wants it."""
    create = h5p.create(h5p.DATASET_CREATE)
    create.set_layout(plan.get("layout", h5d.CONTIGUOUS))
    create.set_alloc_time(plan.get("alloc", h5d.ALLOC_TIME_EARLY))
    stored = plan.get("stored", h5t.py_create(dtype))
    if not stored.detect_class(h5t.VLEN) and not (
        stored.get_class() == h5t.STRING and stored.is_variable_str()
    ):
        create.set_fill_time(h5d.FILL_TIME_NEVER)
    h5d.create(file.id, name.encode(), stored, plan.get("space", h5s.create_simple(shape)), create)


def craft(
    path: Path,
    tables: dict[str, Make | None] | None = None,
    attributes: dict[str, Any] | None = None,
    then: Callable[[h5py.File], None] = lambda file: None,
) -> None:
    """A cache but for what is replaced: tables and root attributes by name (None leaves one out)."""
    with h5py.File(
        path,
        "w",
        libver=("v108", "latest"),  # which virtual datasets need
        alignment_threshold=0,
        alignment_interval=PAGE,
        meta_block_size=HEADER,
    ) as file:
        values = {
            "format": np.bytes_(FORMAT),
            "format_version": np.array(1, "<i8"),
            "manifest": np.bytes_(SMALL.to_json()),
        } | (attributes or {})
        for name, value in values.items():
            if callable(value):
                value(file)
            elif value is not None:
                file.attrs.create(name, value)
        for name, spec in expected_tables(SMALL).items():
            make = (tables or {}).get(name, plain)
            if make:
                make(file, name, *spec)
        then(file)
    content = bytearray(path.read_bytes()) + bytes(40)
    reseal(content, len(content) - 40)
    path.write_bytes(content)


def patch(path: Path, change: Callable[[bytearray], bytearray | None]) -> None:
    """A real cache with some bytes changed, its HDF5 checksums repaired and the whole sealed again."""
    content = bytearray(build(path.with_suffix(".sound"), SMALL).read_bytes())
    changed = change(content) or content
    repair_checksums(changed)
    reseal(changed)
    path.write_bytes(changed)


def move(name: str, to: Callable[[dict[str, int]], int]) -> Callable[[bytearray], None]:
    """Says in a table's header that it lies elsewhere: a function of where all tables lie."""

    def change(content: bytearray) -> None:
        places = {}
        for table, (shape, dtype) in expected_tables(SMALL).items():
            size = struct.pack("<Q", int(np.prod(shape)) * dtype.itemsize)
            at = content.index(b"\x08\x12\x00\x01\x03\x01", content.index(b"OHDR", 8192 + PAGE * len(places)))
            assert content[at + 14 : at + 22] == size
            places[table] = (at + 6, struct.unpack_from("<Q", content, at + 6)[0])
        offsets = {table: offset for table, (_, offset) in places.items()}
        struct.pack_into("<Q", content, places[name][0], to(offsets) % 2**64)

    return change


def bomb(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    plain(file, name, (2**24, 2**40, 2**24), dtype, alloc=h5d.ALLOC_TIME_LATE)


def huge_attribute(file: h5py.File) -> None:
    file.attrs.create("manifest", np.bytes_(b"x" * 63_000))


def crafted(folder: Path, trap: Path) -> dict[str, str]:
    """Writes every crafted file into `folder`; the reason for which each must be refused. `trap` must not be opened."""
    reasons: dict[str, str] = {}

    def add(name: str, reason: str, **how: Any) -> None:
        reasons[name] = reason
        craft(folder / f"{name}.h5", **how)

    def table(name: str, reason: str, make: Make | None, which: str = "logits") -> None:
        add(name, reason, tables={which: make})

    def add_patched(name: str, reason: str, change: Callable[[bytearray], bytearray | None]) -> None:
        reasons[name] = reason
        patch(folder / f"{name}.h5", change)

    def stored_as(stored: Any) -> Make:
        return lambda file, name, shape, dtype: plain(file, name, shape, dtype, stored=stored)

    def at(name: str, link: Any) -> Make:
        def make(file: h5py.File, _: str, *__: Any) -> None:
            file[name] = link

        return make

    links = "must be a hard link"
    table("external link", links, at("logits", h5py.ExternalLink(str(trap), "/logits")))
    table("soft link", links, at("logits", h5py.SoftLink("/labels")))
    table("soft link to nothing", links, at("logits", h5py.SoftLink("/nowhere")))
    table("soft link to itself", links, at("seal", h5py.SoftLink("/seal")), "seal")
    contiguous = "must be stored contiguous, in this file, without filters"
    table(
        "external storage",
        contiguous,
        lambda file, name, shape, dtype: (
            file.create_dataset(name, shape, dtype, external=[(str(trap), 0, h5py.h5f.UNLIMITED)]) and None
        ),
    )

    def virtual(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(trap), "logits", shape, dtype)
        file.create_virtual_dataset(name, layout)

    table("virtual dataset", contiguous, virtual)
    for name, options in {
        "gzip": {"compression": "gzip"},
        "shuffle": {"shuffle": True, "chunks": True},
        "checksum": {"fletcher32": True},
        "chunked": {"chunks": (1, 1, 1)},
        "unlimited": {"maxshape": (None, None, None)},
    }.items():
        table(
            name,
            contiguous,
            lambda file, name, shape, dtype, options=options: (
                file.create_dataset(name, shape, dtype, **options) and None
            ),
        )
    table(
        "compact",
        contiguous,
        lambda file, name, shape, dtype: plain(file, name, shape, dtype, layout=h5d.COMPACT),
        "labels",
    )
    table("big-endian logits", "dtype: expected <f2, found >f2", stored_as(h5t.py_create(np.dtype(">f2"))))
    table("big-endian labels", "dtype: expected <i8", stored_as(h5t.STD_I64BE), "labels")
    table("object references", "dtype", stored_as(h5t.py_create(h5py.ref_dtype, logical=True)), "labels")
    table(
        "region references", "dtype", stored_as(h5t.py_create(h5py.regionref_dtype, logical=True)), "labels"
    )
    table("variable length", "dtype", stored_as(h5t.py_create(h5py.vlen_dtype("i8"), logical=True)), "labels")
    table("variable strings", "dtype", stored_as(h5t.py_create(h5py.string_dtype(), logical=True)), "labels")
    table("opaque", "dtype", stored_as(h5t.create(h5t.OPAQUE, 8)), "labels")
    table("compound", "dtype", stored_as(h5t.py_create(np.dtype([("a", "i8")]))), "labels")
    table(
        "enumeration",
        "dtype",
        stored_as(h5t.py_create(h5py.enum_dtype({"a": 0}, "i8"), logical=True)),
        "labels",
    )
    table("array type", "dtype", stored_as(h5t.array_create(h5t.STD_I32LE, (2,))), "labels")
    table("unsigned labels", "dtype", stored_as(h5t.STD_U64LE), "labels")
    table("bit offset", "dtype", stored_as(_narrow()), "labels")
    table("wider logits", "dtype: expected <f2, found float32", stored_as(h5t.IEEE_F32LE))
    shaped = "shape: expected"
    table("shape bomb", shaped, bomb)
    table("other shape", shaped, lambda file, name, shape, dtype: plain(file, name, (*shape[:2], 3), dtype))
    table("transposed", shaped, lambda file, name, shape, dtype: plain(file, name, shape[::-1], dtype))
    table(
        "scalar",
        shaped,
        lambda file, name, shape, dtype: plain(file, name, shape, dtype, space=h5s.create(h5s.SCALAR)),
    )
    table(
        "null space",
        shaped,
        lambda file, name, shape, dtype: plain(file, name, shape, dtype, space=h5s.create(h5s.NULL)),
    )
    table(
        "no storage",
        "has no storage",
        lambda file, name, shape, dtype: plain(file, name, shape, dtype, alloc=h5d.ALLOC_TIME_LATE),
    )
    table("group for a table", "is not a dataset", lambda file, name, *_: file.create_group(name) and None)
    table("type for a table", "is not a dataset", at("logits", np.dtype("f4")))
    exactly = "must hold exactly the tables"
    table("missing table", exactly, None, "blocks")
    add("extra table", exactly, then=lambda file: plain(file, "more", (3,), np.dtype("u1")))
    add("extra group", exactly, then=lambda file: file.create_group("more"))
    add("cycle", exactly, then=lambda file: file.__setitem__("self", file["/"]))
    add("many links", exactly, then=lambda file: [file.create_group(f"{n}") for n in range(100)])
    add(
        "undecodable name",
        exactly,
        tables={"seal": None},
        then=lambda file: h5d.create(file.id, b"\xff\xfe", h5t.STD_U8LE, h5s.create_simple((40,))),
    )
    extra = "must have exactly the attributes"
    add("extra attribute", extra, then=lambda file: file.attrs.create("more", 1))
    add("many attributes", extra, then=lambda file: [file.attrs.create(f"{n}", n) for n in range(300)])
    add(
        "attribute of a table",
        "must have no attributes",
        then=lambda file: file["labels"].attrs.create("more", 1),
    )
    kind = "is not of the type and size"
    add("variable manifest", kind, attributes={"manifest": SMALL.to_json().decode()})
    add("manifest array", kind, attributes={"manifest": np.array([SMALL.to_json()])})
    add("huge manifest", kind, attributes={"manifest": huge_attribute})
    add("number for a format", kind, attributes={"format": np.array(7)})
    add("string for a version", kind, attributes={"format_version": np.bytes_(b"1")})
    add(
        "version of 4 bytes",
        "is not a little-endian 64-bit integer",
        attributes={"format_version": np.int32(1)},
    )
    add(
        "big-endian version",
        "is not a little-endian 64-bit integer",
        attributes={"format_version": np.array(1, ">i8")},
    )
    add("version array", kind, attributes={"format_version": np.array([1], "<i8")})
    add(
        "version of another encoding",
        "format_version: expected 1, found 2",
        attributes={"format_version": np.array(2, "<i8")},
    )
    add("version 0", "format_version: expected 1, found 0", attributes={"format_version": np.array(0, "<i8")})
    add(
        "version 2",
        "format_version: read up to 2, found 3",
        attributes={"format_version": np.array(3, "<i8")},
    )
    add("other format", "not a soft-label cache", attributes={"format": np.bytes_(b"soft-label-catch")})
    for name in ("format", "format_version"):
        add(f"no {name}", f"`{name}` is missing", attributes={name: None})
    add("no manifest", extra, attributes={"manifest": None})
    text = SMALL.to_json()
    for name, manifest_text in {
        "NaN": text.replace(b'"info":{}', b'"info":{"x":NaN}'),
        "Infinity": text.replace(b'"info":{}', b'"info":{"x":Infinity}'),
        "deep JSON": b"[" * 30_000 + b"]" * 30_000,
        "deep info": text.replace(b'"info":{}', b'"info":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
        "long number": text.replace(b'"info":{}', b'"info":{"a":' + b"9" * 50_000 + b"}"),
        "spaced JSON": text.replace(b",", b", "),
        "key twice": text.replace(b'"info":{}', b'"info":{},"info":{}'),
        "not JSON": b"\xff" * 100,
        "empty": b" ",
        "huge sizes": text.replace(b'"length":3', b'"length":1' + b"0" * 30),
        "negative sizes": text.replace(b'"length":3', b'"length":-3'),
    }.items():
        add(f"manifest: {name}", "manifest: ", attributes={"manifest": np.bytes_(manifest_text)})
    add(
        "manifest of another shape",
        shaped,
        attributes={"manifest": np.bytes_(manifest(3, 7, 2).to_json())},
    )
    places = "expected at the page after"
    add_patched("overlapping tables", places, move("labels", lambda offsets: offsets["logits"]))
    add_patched("table over the header", "H5Dget_offset", move("logits", lambda offsets: 0))
    add_patched(
        "table before the header's end", places, move("logits", lambda offsets: offsets["logits"] - PAGE)
    )
    add_patched(
        "table past the end",
        "invalid dataset size",
        move("labels", lambda offsets: offsets["labels"] + 2**20),
    )
    add_patched(
        "table at the end of all numbers", "invalid dataset size", move("labels", lambda offsets: -PAGE)
    )
    add_patched("table off its page", places, move("labels", lambda offsets: offsets["labels"] + 8))
    add_patched("tables swapped", places, move("labels", lambda offsets: offsets["input_crc32"]))
    add_patched("no place", "no storage", move("labels", lambda offsets: -1))
    add_patched("junk in a gap", "must be zero", lambda content: content.__setitem__(HEADER + 100, 1))
    add_patched(
        "junk after the end", "its last table ends after", lambda content: content + bytes(PAGE - 1) + b"\1"
    )
    add_patched("zeros after the end", "its last table ends after", lambda content: content + bytes(40))
    return reasons


def _narrow() -> Any:
    """Eight bytes of which the number is bits 8 to 55."""
    narrow = h5t.STD_I64LE.copy()
    narrow.set_precision(48)
    narrow.set_offset(8)
    return narrow


def guard() -> None:
    """From here on a crash, a hang and a hunger for memory end the process, and are so seen."""
    faulthandler.enable()
    limit = 3 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def outcome(path: Path, rows_are_right: Callable[[LogitCache], bool]) -> tuple[str, str]:
    """What opening and reading a file whole comes to: a CacheError's name and text, or rows."""
    signal.alarm(PATIENCE // 2)
    try:
        return ("rows" if rows_are_right(LogitCache.open(path)) else "WRONG ROWS"), ""
    except CacheError as error:
        return type(error).__name__, str(error)
    except Exception as error:
        return f"UNTYPED {type(error).__name__}", str(error)
    finally:
        signal.alarm(0)


def read_all_in(folder: Path) -> None:
    """Reads every file of a folder; prints outcomes by name, and the growth of the process in MiB, as JSON."""
    guard()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {path.stem: outcome(path, holds_the_answers) for path in sorted(folder.glob("*.h5"))}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(json.dumps({"outcomes": found, "grown": grown}))


def mutate(content: bytearray, chance: random.Random, hot: list[int]) -> None:
    """Some bytes changed: bits, bytes and borders of numbers, runs copied about, and now and then the length."""
    for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
        place = chance.choice(hot) if chance.random() < 0.9 else chance.randrange(len(content))
        place %= len(content)  # a run copied from the end has shortened it
        kind = chance.randrange(5)
        if kind == 0:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place] = chance.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            content[place] = chance.randrange(256)
        elif kind == 3:
            width = chance.choice([2, 4, 8])
            value = chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, chance.randrange(len(content))])
            content[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
        else:
            source, length = chance.choice(hot), chance.randrange(1, 40)
            content[place : place + length] = content[source : source + length]
    if chance.random() < 0.02:
        del content[chance.randrange(len(content)) :]


def fuzz(folder: Path, seed: int, count: int) -> None:
    """Reads `count` mutated caches; every third is sealed again, every third has its HDF5 checksums repaired too."""
    guard()
    sound = build(folder / "sound.h5", SMALL).read_bytes()
    with open(folder / "sound.h5", "rb") as file:
        tables = check(file, "").tables
    hot = [place for place in range(HEADER) if any(sound[max(0, place - 8) : place + 8])]
    hot += [place for table in tables.values() for place in range(table.offset, table.end)]
    outcomes: Counter[str] = Counter()
    path = folder / "mutated.h5"
    for number in range(count):
        content, chance = bytearray(sound), random.Random(f"{seed} {number}")
        mutate(content, chance, hot)
        treatment = ("as it is", "sealed", "sealed and repaired")[number % 3]
        if number % 3 == 2:
            repair_checksums(content)
        if number % 3:
            reseal(content)
        path.unlink(missing_ok=True)  # some file systems flush a file that is written over
        path.write_bytes(content)
        said, text = outcome(path, holds_the_answers)
        if number % 3 == 0 and said == "rows":
            said = "WRONG" if content != sound else "unchanged"  # nothing but the very file is taken unsealed
        outcomes[f"{treatment}: {said}"] += 1
        if said.startswith(("WRONG", "UNTYPED")):
            raise AssertionError(f"seed {seed}, file {number}: {said} {text}")
    print(json.dumps(outcomes))


if __name__ == "__main__":
    if sys.argv[1] == "fuzz":
        os.makedirs(sys.argv[2], exist_ok=True)
        fuzz(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        read_all_in(Path(sys.argv[2]))
    assert answers(SMALL)
