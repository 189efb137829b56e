"""Links in folders that others may write to: what is written, emptied, locked, extended or removed is never a file that
a link leads to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from decant.cache import CacheError, LogitCache, LogitCacheWriter, Store, export_logits
from decant.cache.io import locks, partial, usage
from decant.cache.io.files import write_atomically
from decant.pipeline.data import image_pack, pack_filling
from decant.pipeline.errors import PipelineError
from decant.pipeline.report.tensorboard import write_events
from decant.pipeline.runs.footprint import FOOTPRINT
from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.notes import Pass, remember_cache, remember_pass
from decant.pipeline.training.epoch_log import METRICS, append_epoch, keep_epochs
from tests.helpers import small
from tests.helpers.caches import build, manifest, write_missing
from tests.helpers.commands import fork_python

KEPT = b"a file that nobody here may change\n"


def plant(at: Path, elsewhere: Path, how: str) -> None:
    """Puts a link at a name that is to be written: a soft one to a file, to nothing, or a hard one."""
    at.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    if how != "to nothing":
        elsewhere.write_bytes(KEPT)
        elsewhere.chmod(0o444)
    if how == "hard":
        os.link(elsewhere, at)
    else:
        at.symlink_to(elsewhere)


def untouched(elsewhere: Path, how: str) -> bool:
    """Whether the file that was linked to has its content, its permissions and its times, or is still missing."""
    if how == "to nothing":
        return not os.path.lexists(elsewhere)
    return elsewhere.read_bytes() == KEPT and stat.S_IMODE(elsewhere.stat().st_mode) == 0o444


def lock_exclusively(lock: Path) -> None:
    with locks.exclusive(lock, print):
        pass


def lock_if_free(lock: Path) -> None:
    with locks.try_exclusive(lock):
        pass


def share(lock: Path) -> None:
    with locks.shared(lock):
        pass


def count_a_use(log: Path) -> None:
    with usage.using(log.with_name(log.name.removesuffix(".uses"))):
        pass


def build_a_pack(unfinished: Path) -> None:
    path = unfinished.with_name(unfinished.name.removesuffix(".partial"))
    layout = image_pack.Layout("key", 2, (1, 2, 2))
    pack_filling.find_or_build(path, layout, lambda rows: build_pixels(len(rows)), lambda: None, "")


def find_a_pack(path: Path) -> None:
    layout = image_pack.Layout("key", 2, (1, 2, 2))
    pack_filling.find_or_build(path, layout, lambda rows: build_pixels(len(rows)), lambda: None, "")


def build_pixels(count: int):
    import numpy as np

    return np.zeros((count, 1, 2, 2), np.uint8)


def go_on_with_a_cache(unfinished: Path) -> None:
    path = unfinished.parent / "cache.h5"
    with LogitCacheWriter(path, manifest()) as writer:
        write_missing(writer)
        writer.publish()


def train(checkpoint: Path) -> None:
    small.teach(checkpoint.parents[2])


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a lock": ("a.h5.lock", lock_exclusively),
    "a lock that is tried": ("a.h5.lock", lock_if_free),
    "a lock that is shared": ("a.h5.lock", share),
    "a count of uses": ("a.h5.uses", count_a_use),
    "a log of epochs": (METRICS, lambda path: append_epoch(path.parent, {"epoch": 1})),
    "a log that is cut": (METRICS, lambda path: keep_epochs(path.parent, 1)),
    "a log that is dropped": (METRICS, lambda path: keep_epochs(path.parent, 0)),
    "a file that is replaced": ("result.json", lambda path: write_json(path, {})),
    "the unfinished file of a pack": ("a.pack.partial", build_a_pack),
    "a pack": ("a.pack", find_a_pack),
    "the unfinished file of a cache": (
        f"cache.h5.{partial.machine()}-01234567.partial",
        go_on_with_a_cache,
    ),
    "the draft of a cache": (
        f"cache.h5.{partial.machine()}-01234567.partial.89abcdef.draft",
        go_on_with_a_cache,
    ),
    "an exported table": (
        "logits.npy",
        lambda path: export_logits(LogitCache.open(build(path.parent / "a.h5")), path),
    ),
}


@pytest.mark.parametrize("how", ["to a file", "to nothing", "hard"])
@pytest.mark.parametrize("what", WRITERS)
def test_what_is_written_is_no_file_that_a_link_leads_to(what: str, how: str, tmp_path: Path) -> None:
    name, work = WRITERS[what]
    at, elsewhere = tmp_path / "shared" / name, tmp_path / "home" / "kept"
    plant(at, elsewhere, how)
    refused = ""
    try:
        work(at)
    except (CacheError, PipelineError, OSError) as error:  # refused is right too, by name and with a reason
        refused = str(error)
    assert not refused or (name in refused and ("link" in refused or "second name" in refused)), refused
    assert untouched(elsewhere, how), f"{what}: the file elsewhere is changed"


@pytest.mark.parametrize(
    "folder", ["teacher-conv-0123abcd", "student-mlp-kd-0123abcd/seed-0", "seeds/seed-0"]
)
def test_a_run_folder_that_is_a_link_is_not_trained_in(folder: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    at = tmp_path / "runs" / folder
    if folder.startswith("seeds"):  # the folder of all seeds is the link
        at.parent.parent.mkdir(parents=True)
        at.parent.symlink_to(tmp_path / "home")
    else:
        at.parent.mkdir(parents=True)
        at.symlink_to(tmp_path / "home")
    with pytest.raises(OSError, match="a link, and links are not followed here"), alone_with(at):
        pass
    assert os.listdir(tmp_path / "home") == []


def test_notes_land_in_no_folder_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/passes").symlink_to(tmp_path / "home")
    with pytest.raises(OSError, match="passes"):
        remember_pass(tmp_path / "runs", "key", Pass(1.0, 1, 0, "CPU"))
    assert os.listdir(tmp_path / "home") == []


def test_a_run_whose_own_files_are_links_changes_none_of_what_they_lead_to(tmp_path: Path) -> None:
    """All of a run, and what is added to it later: events, footprint, notes."""
    folder = small.plan(tmp_path).teacher_folder
    names = ["recipe.toml", "checkpoint.pt", METRICS, "weights.safetensors", "test_logits.npy", FOOTPRINT]
    for name in names:
        plant(folder / name, tmp_path / "home" / name, "to a file")
    (tmp_path / "runs/caches.json").symlink_to(tmp_path / "home/notes.json")
    with pytest.raises(PipelineError, match=r"checkpoint\.pt: not a checkpoint"):
        small.teach(tmp_path)
    (folder / "checkpoint.pt").unlink()
    result = small.teach(tmp_path)
    with pytest.raises(OSError, match=r"caches\.json"):
        remember_cache(small.recipe(), tmp_path / "runs", tmp_path / "caches/a.h5")
    for name in names:
        assert untouched(tmp_path / "home" / name, "to a file"), name
    assert not (tmp_path / "home/notes.json").exists()
    assert not (folder / "weights.safetensors").is_symlink()
    # Events
    (tmp_path / "home/events").mkdir()
    (tmp_path / "home/events/kept").write_bytes(KEPT)
    (folder / "tensorboard").symlink_to(tmp_path / "home/events")
    with pytest.raises(OSError, match="tensorboard"):
        write_events([result])
    assert os.listdir(tmp_path / "home/events") == ["kept"]


def test_permissions_are_those_that_the_umask_leaves(tmp_path: Path) -> None:
    quick = ('teacher.network="linear"', "teacher.epochs=1")
    for umask in (0o022, 0o002, 0o077):
        before, work = os.umask(umask), tmp_path / f"{umask:o}"
        try:
            write_events([small.teach(work, *quick)])
            small.build_cache(work, *quick)
        finally:
            os.umask(before)
        for path in work.rglob("*"):
            whole, published = (0o777, 0) if path.is_dir() else (0o666, 0o222 * (path.suffix == ".h5"))
            found = stat.S_IMODE(path.stat().st_mode)
            assert found == whole & ~umask & ~published, f"{path}: {found:o} with umask {umask:o}"


def test_who_lies_in_wait_for_drafts_gets_nothing_written(tmp_path: Path) -> None:
    """A process that puts a link in the place of each draft that it sees."""
    kept = tmp_path / "kept"
    kept.write_bytes(KEPT)
    shared = tmp_path / "shared"
    shared.mkdir()
    script = """
import os, sys
folder, kept = sys.argv[1:]
print("waits", flush=True)
while True:
    for entry in os.scandir(folder):
        if entry.name.endswith(".draft"):
            try:
                os.unlink(entry.path)
                os.symlink(kept, entry.path)
            except OSError:
                pass
"""
    thief = fork_python(script, shared, kept)
    try:
        assert thief.stdout is not None
        thief.stdout.readline()
        for number in range(300):
            try:
                write_atomically(shared / f"{number}.json", b"x" * 10_000)
                if number % 30 == 0:
                    build(shared / f"{number}.h5", manifest(3, 5, 1))
            except (OSError, CacheError):
                pass  # that it fails is all that the other can have
    finally:
        thief.kill()
        thief.communicate()
    assert kept.read_bytes() == KEPT


def test_links_to_data_caches_and_roots_are_followed(tmp_path: Path) -> None:
    cache = small.build_cache(tmp_path / "real")
    (tmp_path / "linked.h5").symlink_to(cache.path)
    assert LogitCache.open(tmp_path / "linked.h5").manifest.key == cache.manifest.key
    (tmp_path / "caches").symlink_to(cache.path.parent)
    (tmp_path / "runs").symlink_to(tmp_path / "real/runs")
    assert Store(tmp_path / "caches").paths()[0].name == cache.path.name
    assert small.teach(tmp_path).folder.parent == tmp_path / "runs"


def test_permissions_of_a_file_of_two_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unfinished cache is made writable again, and no other file that a hard link of that name leads to."""
    kept = tmp_path / "kept"
    kept.write_text("mine")
    kept.chmod(0o400)
    os.link(kept, partial.new_name(tmp_path / "cache.h5"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for anybody but root
    assert partial.hold(tmp_path / "cache.h5") is None
    assert stat.S_IMODE(kept.stat().st_mode) == 0o400
