"""The same rows from the mapped file and from a copy in memory, and which of them is chosen."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from decant.cache import CorruptError, LogitCache, placement
from tests.helpers.caches import answers, build, manifest


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_the_same_bytes_wherever_they_are_read_from(tmp_path: Path, dtype: str) -> None:
    path = build(tmp_path / "cache.h5", manifest(dtype=dtype))
    mapped, held = (LogitCache.open(path, table=table) for table in ("mapped", "ram"))
    for view in (0, 1):
        for indices in ([5, 3, 3, -1], slice(None), np.arange(50) % 3 == 0):
            expected = mapped.logits(indices, view)
            assert held.logits(indices, view).tobytes() == expected.tobytes()
    assert held.logits([1, 2], [0, 1]).tobytes() == mapped.logits([1, 2], [0, 1]).tobytes()
    assert held.verify() == []


def test_a_copy_is_checked_as_the_file_is(tmp_path: Path) -> None:
    path = build(tmp_path / "cache.h5")
    content = bytearray(path.read_bytes())
    content[content.find(answers(manifest(), 1)["logits"].tobytes())] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    held = LogitCache.open(path, table="ram")
    assert held.logits([0], 0).shape == (1, 1000)
    with pytest.raises(CorruptError, match="view 1, block 0"):
        held.logits([0], 1)
    with pytest.raises(CorruptError):
        LogitCache.open(path, table="ram", verify="open")


def test_a_copy_stays_what_it_was_and_is_not_sent_along(tmp_path: Path) -> None:
    path = build(tmp_path / "cache.h5")
    held = LogitCache.open(path, table="ram", verify="off")
    assert len(pickle.dumps(held)) < 1000
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))  # the mapped tables change with the file, the copy does not
    assert held.logits([7]).tobytes() == answers(manifest())["logits"][[7]].tobytes()


def test_an_unknown_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table: expected auto, mapped or ram, found 'disk'"):
        LogitCache.open(build(tmp_path / "cache.h5"), table="disk")  # type: ignore[arg-type]


def test_a_file_that_ends_early_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(100))
    with open(path, "rb") as file:
        assert placement.read_whole(file.fileno(), 40, 60).tolist() == [0] * 60
        with pytest.raises(EOFError, match="ends 1 bytes early"):
            placement.read_whole(file.fileno(), 40, 61)


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/data /mnt/team nfs4 rw 0 0
/dev/sdb1 /mnt/team/scratch\\040disk xfs rw 0 0
sshfs /home/me/far fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/cache.h5", False),
        ("/mnt/team/cache.h5", True),
        ("/mnt/team/a/b/cache.h5", True),
        ("/mnt/teams/cache.h5", False),
        ("/mnt/team/scratch disk/cache.h5", False),
        ("/home/me/far/cache.h5", True),
    ],
)
def test_the_nearest_mount_point_says_whether_it_is_a_network(
    tmp_path: Path, path: str, expected: bool
) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert placement.on_network(Path(path), tmp_path / "mounts") is expected
    assert placement.on_network(Path(path), tmp_path / "no such list") is False


def test_auto_copies_what_fits_from_a_network_and_maps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda: 1000)
    for network, nbytes, expected in [(True, 500, "ram"), (True, 501, "mapped"), (False, 1, "mapped")]:
        monkeypatch.setattr(placement, "on_network", lambda path, network=network: network)
        assert placement.resolve("auto", tmp_path, nbytes) == expected
        assert placement.resolve("ram", tmp_path, nbytes) == "ram"
        assert placement.resolve("mapped", tmp_path, nbytes) == "mapped"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's list of mappings")
@pytest.mark.parametrize(("available", "advised"), [(0, True), (2**50, False)])
def test_a_file_too_large_for_memory_is_not_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, advised: bool
) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda: available)
    path = build(tmp_path / "cache.h5")
    opened = LogitCache.open(path)
    maps = Path("/proc/self/smaps").read_text()
    entry = re.search(rf"{re.escape(os.fspath(path))}\n(?:.*\n)*?VmFlags:(.*)", maps)
    assert entry is not None
    assert (" rr " in entry[1]) is advised  # MADV_RANDOM
    assert opened.num_samples == 50
    assert placement.available_memory() == available


def test_available_memory_is_a_sensible_number() -> None:
    assert 2**26 < placement.available_memory() < 2**50
