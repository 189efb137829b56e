"""Every encoding, and samples with several positions each, by whole copies and lazily."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from decant.cache import CorruptError, FormatError, LogitCache
from decant.cache.remote.fetching import fetch
from decant.cache.remote.local_folder import LocalFolder
from decant.cache.remote.opening import open_folder
from decant.cache.remote.publishing import publish
from tests.helpers import positions as of_positions
from tests.helpers.processes import ROOT


@pytest.fixture(
    params=["v1", "v2-dense-u8", "v2-sparse", "v2-sparse-high", "v2-draws-high", "v2-hidden", "positions"]
)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "positions":
        return of_positions.build(tmp_path / "positions.h5")
    return ROOT / f"tests/golden/{request.param}.h5"


@pytest.mark.parametrize("lazy", [False, True])
def test_a_copy_is_the_file(path: Path, lazy: bool) -> None:
    store = f"memory://{uuid.uuid4().hex}"
    assert publish(path, open_folder(store)).made
    whole, cache = LogitCache.open(path), LogitCache.open(f"{store}/{path.name}", lazy=lazy)
    samples = np.arange(whole.num_samples)[::-1]
    cache.prefetch(samples)
    for view in range(whole.num_views):
        there, here = whole.encoded(samples, view), cache.encoded(samples, view)
        assert there.keys() == here.keys()
        for name, rows in there.items():
            assert np.array_equal(rows, here[name])
        assert np.array_equal(whole.logits(samples, view), cache.logits(samples, view))
    assert np.array_equal(whole.labels, cache.labels)
    assert np.array_equal(whole.input_crc32, cache.input_crc32)
    assert cache.verify() == []
    cache.check_unchanged(checksums=True)
    assert cache.path.read_bytes() == path.read_bytes()


def test_offsets_are_checked_before_a_row_is_asked_for(tmp_path: Path) -> None:
    content = bytearray(of_positions.build(tmp_path / "p.h5").read_bytes())
    table = LogitCache.open(tmp_path / "p.h5")._layout.tables["offsets"]
    content[table.offset + 8] ^= 1
    store = open_folder(f"memory://{uuid.uuid4().hex}")
    store.put_small("p.h5", bytes(content))
    with pytest.raises(FormatError, match="`offsets`"):
        LogitCache.open(f"{store.shown}/p.h5", lazy=True)


HIDDEN = ROOT / "tests/golden/v2-hidden.h5"


def with_another_head(folder: Path) -> Path:
    """The cache of hidden states, in whose head a bit has changed."""
    content = bytearray(HIDDEN.read_bytes())
    content[LogitCache.open(HIDDEN)._layout.tables["head"].offset + 5] ^= 1
    folder.mkdir(exist_ok=True)
    (folder / "x.h5").write_bytes(content)
    return folder / "x.h5"


@pytest.mark.parametrize("lazy", [False, True])
def test_a_head_that_is_not_the_manifests_is_refused_and_no_copy_is_made(
    tmp_path: Path, lazy: bool, mirror_home: Path
) -> None:
    store = open_folder(f"memory://{uuid.uuid4().hex}")
    store.put_small("x.h5", with_another_head(tmp_path).read_bytes())
    with pytest.raises(
        CorruptError, match=r"`head` is not as the manifest says: .*, in two answers of the store"
    ):
        LogitCache.open(f"{store.shown}/x.h5", lazy=lazy)
    assert list(mirror_home.rglob("*.h5*")) == []


def test_a_head_that_was_changed_on_its_way_is_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(HIDDEN.read_bytes())
    table, changed = LogitCache.open(HIDDEN)._layout.tables["head"], list[int]()

    class Noisy(LocalFolder):
        def read(self, name: str, first: int, end: int, tag: str = "") -> bytes:
            content = bytearray(super().read(name, first, end, tag))
            if first <= table.offset < end and not changed:
                changed.append(table.offset - first)
                content[changed[0]] ^= 1
            return bytes(content)

    copy = fetch(Noisy(tmp_path), "x.h5", tmp_path / "copies")
    assert changed
    assert copy.read_bytes() == HIDDEN.read_bytes()


def test_a_copy_with_another_head_is_fetched_again_where_it_is_checked(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(HIDDEN.read_bytes())
    folder, copies = LocalFolder(tmp_path), tmp_path / "copies"
    copy = fetch(folder, "x.h5", copies)
    copy.chmod(0o644)
    copy.write_bytes(with_another_head(tmp_path / "elsewhere").read_bytes())
    assert fetch(folder, "x.h5", copies, check=True).read_bytes() == HIDDEN.read_bytes()


def test_a_cache_with_another_head_is_not_published(tmp_path: Path) -> None:
    store = open_folder(f"memory://{uuid.uuid4().hex}")
    with pytest.raises(CorruptError, match=r"`head` is not as the manifest says: .*; nothing was published"):
        publish(with_another_head(tmp_path), store)
    assert store.names() == {}
