"""The test vectors of docs/file-format.md are those of tests/golden/v1.h5, computed without Decant."""

from __future__ import annotations

import hashlib
import json
import re
import zlib

import h5py

from decant.cache import LogitCache
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs/file-format.md").read_text("utf-8").partition("## Test vectors")[2]
FILE = ROOT / "tests/golden/v1.h5"


def vectors() -> dict[str, str]:
    """The table of the page."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    return {name: value.replace("`", "") for name, value in rows[2:]}


def computed() -> dict[str, str]:
    """The same from the file, by the rules of the page."""
    raw = FILE.read_bytes()
    with h5py.File(FILE) as file:
        identity = json.loads(file.attrs["manifest"])["identity"]
        tables = ("logits", "labels", "input_crc32", "blocks", "seal")
        offsets = {name: file[name].id.get_offset() for name in tables}
        logits, labels, crc32 = file["logits"][:], file["labels"][:], file["input_crc32"][:]
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    found = {
        "SHA-256 of the file": hashlib.sha256(raw).hexdigest(),
        "key": hashlib.sha256(canonical).hexdigest(),
        "rows in a block, R": str(max(2**power for power in range(17) if 2**power * 5 * 2 <= 65_536)),
        **{f"offset of `{name}`": f"{offset:,}" for name, offset in offsets.items()},
        "length in `seal`": f"{int.from_bytes(raw[-40:-32], 'little'):,}",
        "SHA-256 in `seal`": hashlib.sha256(raw[: offsets["logits"]]).hexdigest(),
    }
    for view in range(2):
        crc = zlib.crc32(
            labels.tobytes(), zlib.crc32(crc32[view].tobytes(), zlib.crc32(logits[view].tobytes()))
        )
        found[f"`blocks[{view}, 0]`"] = f"{2**32 + crc} = 2³² + 0x{crc:08x}"
    return found


def test_the_vectors_are_those_of_the_file() -> None:
    assert vectors() == computed()


def test_the_manifest_is_that_of_the_file() -> None:
    (shown,) = re.findall(r"```json\n(.+)\n```", PAGE)
    with h5py.File(FILE) as file:
        assert shown.encode() == bytes(file.attrs["manifest"])


def test_decant_reads_what_the_page_says() -> None:
    cache = LogitCache.open(FILE, verify="open")
    assert cache.manifest.key == vectors()["key"]
    assert cache.logits([6], view=1)[0].tolist() == [101.625, 101.75, 101.875, 102.0, 102.125]
