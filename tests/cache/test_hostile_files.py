"""A hostile file is harmless: refused by a typed error before a row is read, or it gives the right rows."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from decant.cache import FormatError, LogitCache
from tests.helpers import hostile_positions
from tests.helpers.caches import HEADER, build, manifest
from tests.helpers.hostile import crafted
from tests.helpers.processes import finished, python


def test_every_crafted_file_is_refused_for_its_reason(tmp_path: Path) -> None:
    """In a process that a crash, a hang or a hunger for memory would end. Whoever opens the trap waits for ever."""
    folder, trap = tmp_path / "files", tmp_path / "trap"
    folder.mkdir()
    os.mkfifo(trap)
    reasons = crafted(folder, trap)
    script = "import sys; from pathlib import Path\n"
    script += "from tests.helpers import hostile; hostile.read_all_in(Path(sys.argv[1]))"
    said = json.loads(finished(python(script, folder)))
    assert len(reasons) >= 70
    assert set(said["outcomes"]) == set(reasons)
    for name, reason in reasons.items():
        kind, text = said["outcomes"][name]
        assert kind == ("NewerFormatError" if name == "version 2" else "FormatError"), (
            f"{name}: {kind} {text}"
        )
        assert reason in text, f"{name}: refused, but for another reason: {text}"
        assert f"{name}.h5: " in text, f"{name}: the path is not named: {text}"
        assert text.count(".h5: ") == 1, text
    assert said["grown"] < 64, f"reading them took {said['grown']} MiB"


def test_a_cache_crafted_without_malice_is_read(tmp_path: Path) -> None:
    """What the crafted files are changed from is sound: they are refused for the change alone."""
    from tests.helpers.hostile import SMALL, craft, patch

    patch(tmp_path / "patched.h5", lambda content: None)
    assert LogitCache.open(tmp_path / "patched.h5", verify="open").manifest == SMALL
    craft(tmp_path / "crafted.h5")
    with pytest.raises(FormatError, match="`logits` lies at byte"):  # the seal covers more than the header
        LogitCache.open(tmp_path / "crafted.h5")


@pytest.mark.parametrize("length", [0, 8, 47, 100, 4096, HEADER - 1, HEADER + 1, 2**20 + 1, 2**63, 2**64 - 1])
def test_a_seal_over_another_length_is_refused(tmp_path: Path, length: int) -> None:
    import hashlib

    content = bytearray(build(tmp_path / "cache.h5", manifest(3, 2, 1)).read_bytes())
    digest = hashlib.sha256(content[:length]).digest()
    content[-40:] = struct.pack("<Q32s", length, digest)
    (tmp_path / "sealed.h5").write_bytes(content)
    with pytest.raises(FormatError):
        LogitCache.open(tmp_path / "sealed.h5")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(10_000), bytes(100), b"PK\3\4" * 99],
)
def test_what_is_no_cache_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.h5").write_bytes(content)
    with pytest.raises(FormatError, match=r"file\.h5: "):
        LogitCache.open(tmp_path / "file.h5")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_give_a_typed_error_or_the_right_rows(tmp_path: Path, seed: int) -> None:
    """4 × 2,500 files: as they are, sealed again, and sealed with their HDF5 checksums repaired."""
    script = """
import sys
from pathlib import Path
from tests.helpers import hostile
hostile.fuzz(Path(sys.argv[1]), int(sys.argv[2]), 2_500)
"""
    outcomes = json.loads(finished(python(script, tmp_path, seed)))
    assert sum(outcomes.values()) == 2_500
    for kind in ("as it is: FormatError", "as it is: CorruptError", "sealed: FormatError"):
        assert outcomes.get(kind), f"no file came to '{kind}': {outcomes}"
    for kind in ("sealed and repaired: FormatError", "sealed and repaired: rows"):
        assert outcomes.get(kind), f"no file came to '{kind}': {outcomes}"


def test_mutated_files_with_positions_give_a_typed_error_or_the_right_rows(tmp_path: Path) -> None:
    """800 files of three encodings: as they are, sealed, with HDF5 checksums repaired, and with those of blocks."""
    script = """
import sys
from pathlib import Path
from tests.helpers import hostile_positions
hostile_positions.fuzz(Path(sys.argv[1]), 0, 800)
"""
    outcomes = json.loads(finished(python(script, tmp_path)))
    assert sum(outcomes.values()) == 800
    repaired = "sealed and repaired: FormatError" if hostile_positions.SAFE_LIBHDF5 else "left out"
    for kind in ("as it is: CorruptError", repaired, "agreeing: CorruptError", "agreeing: rows"):
        assert outcomes.get(kind), f"no file came to '{kind}': {outcomes}"
