"""What has the name of a file and is none: pipes, sockets, devices, folders, links to nothing or in a circle; and files
that this user may not read. No command waits for one, none stops at one among many, and each is named.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

from decant.cache import CacheError, LogitCache, LogitCacheWriter, Store, leftovers
from decant.cache.io import locks, partial, usage
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data import image_pack
from decant.pipeline.data.array_files import read_table
from decant.pipeline.data.image_decode import decode
from decant.pipeline.errors import PipelineError
from decant.pipeline.networks.foreign_weights.class_names import names_in_file
from decant.pipeline.networks.foreign_weights.reading import read_checkpoint
from decant.pipeline.networks.weights import load_weights
from decant.pipeline.runs.json_files import read_json
from decant.pipeline.runs.result import find_results, load_result
from decant.pipeline.runs.saved_logits import load_test_logits
from decant.pipeline.runs.saved_recipe import read_saved_recipe
from decant.pipeline.support.notices import forget_what_was_said
from decant.pipeline.training.checkpoint import Kept, resume
from decant.pipeline.training.epoch_log import read_epochs
from tests.helpers import small
from tests.helpers.caches import build, holds_the_answers, manifest, write_missing
from tests.helpers.commands import decant, fork_python, succeed
from tests.helpers.folders import write_folder
from tests.helpers.processes import finished

SECONDS = 60
"""After which something that waits is taken for stuck."""


@pytest.fixture(autouse=True)
def nothing_waits_for_ever() -> Iterator[None]:
    """Ends a test that waits, with the line that waits."""

    def stuck(_: int, frame: FrameType | None) -> None:
        raise AssertionError(f"waited for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's name may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def make_device(path: Path) -> None:
    """One that is read without end."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        path.open("rb").close()
    except PermissionError:
        pytest.skip("only root makes devices, and only where they may be opened")


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": make_device,
    "a folder": Path.mkdir,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "a link to a pipe": lambda path: (os.mkfifo(f"{path}.far"), path.symlink_to(f"{path}.far")),
}
LAYOUT = image_pack.Layout("key", 1, (1, 1, 1))


def begin_a_cache(unfinished: Path) -> None:
    with LogitCacheWriter(unfinished.parent / "a.h5", manifest(3, 5, 1)) as writer:
        write_missing(writer)
        assert holds_the_answers(LogitCache.open(writer.publish()))


def lock_for_long(lock: Path) -> None:
    with locks.exclusive(lock, print):
        pass


def lock_for_now(lock: Path) -> None:
    with locks.try_exclusive(lock), locks.shared(lock):
        locks.holder(lock)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a cache": ("a.h5", LogitCache.open),
    "an unfinished cache": (f"a.h5.{partial.machine()}-01234567.partial", begin_a_cache),
    "a lock": ("a.h5.lock", lock_for_long),
    "a lock that is tried": ("a.h5.lock", lock_for_now),
    "a count": ("a.h5.uses", lambda path: usage.count(path.with_name("a.h5"))),
    "a pack": ("a.pack", lambda path: image_pack.Pack(path, LAYOUT)),
    "a table .npy": ("a.npy", lambda path: read_table(str(path))),
    "a table .npz": ("a.npz", lambda path: read_table(str(path))),
    "a table .pt": ("a.pt", lambda path: read_table(str(path))),
    "a table .h5": ("a.h5", lambda path: read_table(f"{path}:logits")),
    "an image": ("a.png", lambda path: decode(path, ViewsSettings())),
    "a recipe": ("a.toml", lambda path: load_recipe(str(path))),
    "weights": ("a.safetensors", read_checkpoint),
    "weights of torch": ("a.pth", read_checkpoint),
    "weights of a run": ("weights.safetensors", lambda path: load_weights(torch.nn.Linear(1, 1), path)),
    "a result": ("result.json", lambda path: load_result(path.parent)),
    "JSON": ("caches.json", read_json),
    "a saved recipe": ("recipe.toml", lambda path: read_saved_recipe(path.parent)),
    "epochs": ("metrics.jsonl", lambda path: read_epochs(path.parent)),
    "logits": ("test_logits.npy", lambda path: load_test_logits(path.parent, 1, 1)),
    "a checkpoint": ("checkpoint.pt", lambda path: go_on(path.parent)),
}


def go_on(folder: Path) -> None:
    network = torch.nn.Linear(1, 1)
    resume(folder, Kept(network, torch.optim.SGD(network.parameters(), 0.1)))


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("what", READERS)
def test_what_is_no_file_is_refused_by_name_or_left_out(what: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[what]
    ODD[kind](tmp_path / name)
    said = ""
    try:
        read(tmp_path / name)
    except (CacheError, PipelineError, OSError) as error:
        said = str(error)
    assert not said or name in said, said


def test_names_beside_weights_that_are_no_files_are_passed_by(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "net.pth")
    for name in ("config.json", "class_names.json", "labels.json", "id2label.json"):
        os.mkfifo(tmp_path / name)
    assert names_in_file(tmp_path / "net.pth", 2) is None


def odd_ones(folder: Path, ending: str) -> list[Path]:
    """One of each kind, beside a file that is nothing that it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (kind, make) in enumerate(ODD.items()):
        path = folder / f"odd-{number:016x}{ending}"
        try:
            make(path)
        except pytest.skip.Exception:
            continue
        paths.append(path)
        assert os.path.lexists(path), kind
    foreign = folder / f"foreign-{99:016x}{ending}"
    foreign.write_bytes(b"measurements of somebody else")
    return [*paths, foreign]


def test_a_store_with_all_of_them_is_listed_checked_and_cleaned(tmp_path: Path) -> None:
    cache = small.build_cache(tmp_path)
    odd = odd_ones(tmp_path / "caches", ".h5")
    odd_ones(tmp_path / "caches", f".h5.{partial.machine()}-01234567.partial")
    odd_ones(tmp_path / "caches/packs", ".pack")
    before = {path: os.lstat(path).st_ino for path in (tmp_path / "caches").rglob("*")}
    listed = succeed(decant("cache", "ls", cwd=tmp_path))
    assert cache.path.name in listed
    assert all(path.name in listed for path in odd)
    checked = decant("cache", "verify", cwd=tmp_path)
    assert checked.returncode == 1
    assert f"{cache.path.name}: sound" in checked.stdout
    assert [checked.stdout.count(f"{path.name}: ") for path in odd] == [1] * len(odd)
    succeed(decant("cache", "info", cache.manifest.key[:8], cwd=tmp_path))
    assert small.build_cache(tmp_path).path == cache.path
    for path in (tmp_path / "caches").rglob("*"):
        os.utime(path, (time.time() - 90 * 86_400,) * 2, follow_symlinks=False)
    done = decant("cache", "gc", "--delete", cwd=tmp_path)
    assert "removed " in succeed(done)
    assert not cache.path.exists()
    left = {path for path in before if os.path.lexists(path)}
    assert {path.name for path in set(before) - left} <= {cache.path.name, f"{cache.path.name}.uses"}
    for path in before:
        if path != cache.path and not path.is_dir() and ".lock" not in path.name and "far" not in path.name:
            assert done.stderr.count(f"{path.name}: ") == 1, f"{path}\n{done.stderr}"


def test_a_file_of_another_program_is_never_removed(tmp_path: Path) -> None:
    """Also where it lies where ours do, under a name such as ours have, and whatever led there."""
    git, store = tmp_path / "project/.git/objects/pack", tmp_path / "store"
    git.mkdir(parents=True)
    (git / "pack-0123.pack").write_bytes(b"PACK\0\0\0\2")
    store.mkdir()
    (store / "packs").symlink_to(git)
    for name in ("mine.h5", "film.partial", "letter.draft", "a.h5.host-01234567.partial"):
        (store / name).write_bytes(b"mine")
    files = [*git.iterdir(), *(path for path in store.iterdir() if path.is_file())]
    for path in files:
        os.utime(path, (0, 0))
    assert "0 bytes freed" in succeed(decant("cache", "gc", "--delete", "--store", store, cwd=tmp_path))
    assert all(path.exists() for path in files)


AS_ANOTHER = """
import contextlib, io, os, sys
from decant.pipeline.cli import main
store, command, *more = sys.argv[1:]
words = ["cache", command, "--store", store]
# Once as root: the other user may not be allowed to read what it imports.
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        main.decant.main(words, standalone_mode=False)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.umask(0)
sys.argv = ["decant", *words, *more]
main.main()
"""
"""`decant cache COMMAND --store STORE …` of another user."""


def test_gc_goes_on_where_one_cannot_be_removed_and_says_so(open_folder: Path) -> None:
    if os.geteuid():
        pytest.skip("needs another user")
    store = Store(open_folder)
    paths = [build(store.root / f"a-{number:016x}.h5", manifest(3, 5, 1)) for number in range(3)]
    for path in paths:
        os.utime(path, (0, 0))
    open_folder.chmod(0o1777)  # where nobody removes what is another's
    for path in (paths[0], paths[2]):
        os.chown(path, 65534, 65534)
        os.chown(usage.lock_path(path), 65534, 65534) if usage.lock_path(path).exists() else None
    running = fork_python(AS_ANOTHER, open_folder, "gc", "--delete", HOME="/tmp")
    out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 1, (out, err)
    assert [path.exists() for path in paths] == [False, True, False]
    assert err.count("decant: ") == 1
    assert f"{paths[1].name}: removing: Operation not permitted" in err


def test_a_cache_is_published_where_no_other_thing_has_its_name(tmp_path: Path) -> None:
    for kind in ("a pipe", "a folder", "a link to nothing"):
        folder = tmp_path / kind.replace(" ", "-")
        folder.mkdir()
        ODD[kind](folder / "a.h5")
        with pytest.raises(CacheError, match=r"a\.h5: opening its partial file: "):
            LogitCacheWriter(folder / "a.h5", manifest(3, 5, 1))


def test_predict_names_each_and_classifies_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", (8, 8))
    (tmp_path / "mine.toml").write_text(
        '[data]\nname = "imagefolder"\nroot = "images"\n[teacher]\nnetwork = "linear"\nepochs = 1\n'
        '[student]\nnetwork = "linear"\nepochs = 1\n'
    )
    succeed(decant("teacher", "--recipe", "mine.toml", cwd=tmp_path))
    (run,) = (tmp_path / "runs/mine").glob("teacher-*")
    photos = tmp_path / "photos"
    shutil.copytree(tmp_path / "images/test/cat", photos)
    odd = odd_ones(photos, ".png")
    (photos / "closed").mkdir()
    done = decant("predict", run, photos, *odd[:1], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("%") >= 3
    assert "left out" in done.stderr
    said = [path for path in odd if path.is_symlink() or path.name.startswith("foreign")]
    assert all(str(path) in done.stderr for path in said if path.name != "odd-0000000000000006.png")
    assert f"{odd[0]}: not a readable image" in done.stderr, "what is named itself is answered"


def test_a_report_leaves_out_what_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small.teach(tmp_path).folder
    for number, make in enumerate((os.mkfifo, Path.mkdir, ODD["a link in a circle"])):
        (tmp_path / f"runs/odd{number}").mkdir()
        make(tmp_path / f"runs/odd{number}/result.json")
    forget_what_was_said()
    assert [result.folder for result in find_results(tmp_path / "runs")] == [folder]
    assert [result.folder for result in find_results(tmp_path / "runs")] == [folder]
    said = capsys.readouterr().err
    assert said.count("odd0/result.json: a pipe") == 1
    assert said.count("odd1/result.json: a folder") == 1


def test_what_another_user_closed_is_named_and_the_others_are_listed(open_folder: Path) -> None:
    if os.geteuid():
        pytest.skip("needs another user")
    sound = build(open_folder / "a-0000000000000001.h5", manifest(3, 5, 1))
    closed = build(open_folder / "b-0000000000000002.h5", manifest(3, 5, 1))
    closed.chmod(0)
    listed = finished(fork_python(AS_ANOTHER, open_folder, "ls", HOME="/tmp"))
    assert sound.name in listed
    assert f"{closed.name}" in listed
    running = fork_python(AS_ANOTHER, open_folder, "verify", HOME="/tmp")
    out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 1, err
    assert f"{sound.name}: sound" in out, err
    assert "Permission denied" in out


def test_an_array_whose_values_lie_in_other_files_is_refused(tmp_path: Path) -> None:
    """HDF5 would read any file that it names, and wait for a pipe."""
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4.0).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("logits", (2, 2), "f8", external=[(str(secret), 0, 32)])
    with pytest.raises(PipelineError, match="has its values in other files"):
        read_table(str(tmp_path / "a.h5"))


@pytest.mark.parametrize("kind", ["a pipe", "a link"])
def test_a_cache_that_cannot_be_locked_is_named_by_gc(kind: str, tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5")
    lock = locks.lock_path(path)
    lock.unlink(missing_ok=True)
    os.mkfifo(lock) if kind == "a pipe" else lock.symlink_to(tmp_path / "elsewhere")
    named: list[tuple[Path, str]] = []
    found = leftovers(Store(tmp_path), 0, kept=lambda path, reason: named.append((path, reason)))
    assert list(found) == []
    assert named == [(lock, f"{kind}, where a file is expected")]
    assert not (tmp_path / "elsewhere").exists()


AS_ONE_OF_TWO = """
import os, sys
from pathlib import Path
from decant.cache import IncompleteError, LogitCacheWriter
from decant.cache.io.files import remedy
from tests.helpers.caches import manifest, write

folder = Path(sys.argv[1])
os.umask(0o077)
for user, rows in ((0, range(2)), (65534, range(2, 4))):
    os.setuid(user)
    with LogitCacheWriter.join(folder / "x.h5", manifest(4, 5, 1)) as writer:
        write(writer, 0, rows)
        try:
            writer.publish()
        except IncompleteError as error:
            print(error)
print(*(remedy(PermissionError(13, ""), path) for path in folder.glob("*.partial")), sep="\\n")
"""


def test_a_part_says_that_another_users_cannot_be_read(open_folder: Path) -> None:
    """With umask 077 each would be done, and nothing published."""
    if os.geteuid():
        pytest.skip("needs another user")
    open_folder.chmod(0o777)
    first, second, *remedies = finished(fork_python(AS_ONE_OF_TWO, open_folder, HOME="/tmp")).splitlines()
    assert "cannot be read" not in first
    (of_root,) = (path.name for path in open_folder.glob("*.partial") if path.stat().st_uid == 0)
    assert second.endswith(f"; what may have them cannot be read, as it is another user's: {of_root}")
    assert [found.endswith("have that one chmod a+r it") for found in sorted(remedies)] == [False, True]
