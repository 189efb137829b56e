"""What people give in place of a dataset, and datasets that are nearly right: taken, or refused by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import decant as package
from decant.cache import (
    CacheWarning,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    SoftLabelDataset,
    StorageError,
)
from decant.pipeline.errors import DataError
from decant.pipeline.training import worker_processes
from tests.helpers.processes import PATIENCE, ROOT

N, C = 24, 3
LABELS = torch.arange(N) % C
IMAGES = 4 * torch.eye(C)[LABELS] + torch.rand(N, C, generator=torch.Generator().manual_seed(0))


class Items(Dataset[Any]):
    """Feature vectors and their classes."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return IMAGES[index], int(LABELS[index])


class OfBatches(Items):
    """Is read in batches alone, as datasets of databases are."""

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [(IMAGES[index], int(LABELS[index])) for index in indices]


class WithoutSome(Items):
    """Has no sample 17: None in its place, or an error."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises

    def __getitem__(self, index: int) -> Any:
        if index == 17 and self.raises:
            raise OSError("image file is truncated")
        return None if index == 17 else super().__getitem__(index)


class LabelFirst(NamedTuple):
    label: int
    image: torch.Tensor


class PathFirst(NamedTuple):
    path: str
    image: torch.Tensor
    label: int


class Of(Items):
    """Items of another form: a function of the number of the sample."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Items())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return package.cache_logits(
        teacher(), Items(), tmp_path_factory.mktemp("own") / "teacher.h5", batch_size=8
    )


def teacher() -> torch.nn.Module:
    layer = torch.nn.Linear(C, C)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(C))
        layer.bias.zero_()
    return layer


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (DataLoader(Items()), "found DataLoader.*give its dataset, loader.dataset"),
        (Stream(), "found Stream.*list.*a stream whose samples carry that number is for decant.attach"),
        ((item for item in Items()), "found generator.*list"),
        (Subset(Stream(), [0]), "found Stream"),
        ({"x": IMAGES, "y": LABELS}, "a dict of x, y: of columns make a .*TensorDataset"),
        ({"train": Items()}, r"a dict of train: give one of its parts, as \['train'\]"),
        (Subset(Items(), (LABELS == 0).numpy()), "truth values, .*numpy.flatnonzero"),
        (Subset(Items(), (LABELS == 0).tolist()), "truth values"),
        (Subset(Subset(Items(), LABELS == 0), [0]), "truth values"),
    ],
)
def test_what_is_no_dataset_is_refused_with_what_to_give(data: Any, says: str, cache: LogitCache) -> None:
    for take in (package.Views, lambda given: SoftLabelDataset(given, cache)):
        with pytest.raises(TypeError, match=says):
            take(data)


@pytest.mark.parametrize("data", [IMAGES, IMAGES.numpy(), [IMAGES, LABELS]])
def test_arrays_in_place_of_items_are_told_of_tensor_datasets(data: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"make a torch.utils.data.TensorDataset\(inputs, labels\)"):
        package.cache_logits(teacher(), data, tmp_path / "x.h5")


def test_a_dataset_of_batches_alone_is_read(cache: LogitCache, tmp_path: Path) -> None:
    for views in (OfBatches(), package.Views(OfBatches(), count=1)):
        made = package.cache_logits(teacher(), views, tmp_path / f"{type(views).__name__}.h5")
        assert np.array_equal(made.logits(np.arange(N)), cache.logits(np.arange(N)))
    batches = DataLoader(SoftLabelDataset(OfBatches(), cache, check_inputs="all"), batch_size=8)  # type: ignore[arg-type]
    assert sum(len(labels) for _, labels, _ in batches) == N


FORMS: dict[str, tuple[Callable[[int], Any], Any, Any]] = {
    "places": (lambda i: (f"{i}.png", IMAGES[i], int(LABELS[i])), (1, 2), None),
    "a place of the transform": (lambda i: (f"{i}.png", IMAGES[i], int(LABELS[i])), (1, 2), 1),
    "the label first": (lambda i: LabelFirst(int(LABELS[i]), IMAGES[i]), None, None),
    "names": (lambda i: PathFirst(f"{i}.png", IMAGES[i], int(LABELS[i])), None, None),
    "names that are given": (
        lambda i: PathFirst(f"{i}.png", IMAGES[i], int(LABELS[i])),
        ("image", "label"),
        "image",
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_transform_takes_the_input_wherever_it_is_in_a_tuple(form: str, tmp_path: Path) -> None:
    """It took the first value, the file's name or the label."""
    item, keys, field = FORMS[form]
    shifted = package.Views(Items(), shift, count=2)
    views = package.Views(Of(item), shift if field is None else {field: shift}, count=2, keys=keys)
    train = SoftLabelDataset(views, package.cache_logits(teacher(), views, tmp_path / "x.h5"), keys=keys)
    for key in ((0, 0), (17, 1)):
        image, label, logits = train[key]
        assert torch.equal(image, shifted[key][0])
        assert label == LABELS[key[0]]
        assert torch.allclose(logits, image, atol=0.01)  # which this teacher returns


def shift(image: torch.Tensor) -> torch.Tensor:
    return image + torch.rand(())


def test_a_place_or_name_that_items_do_not_have_is_refused() -> None:
    with pytest.raises(DataError, match="no field 7 in the items of the dataset, which are a tuple of 2"):
        package.Views(Items(), {7: shift})[0, 0]
    with pytest.raises(DataError, match=r"no field 'imag' .* which are fields label, image"):
        package.Views(Of(FORMS["the label first"][0]), {"imag": shift})[0, 0]


@pytest.mark.parametrize("item", [lambda i: (IMAGES[i],), lambda i: (IMAGES[i], None)])
def test_samples_without_a_label_are_learnt_from_the_teacher_alone(item: Any, tmp_path: Path) -> None:
    """A tuple of one was refused, with advice that did not fit it; None failed in torch's collate function."""
    views = package.Views(Of(item), shift, count=2)
    train = SoftLabelDataset(views, package.cache_logits(teacher(), views, tmp_path / "x.h5", name="t"))
    train.set_epoch(1)
    for images, labels, logits in DataLoader(train, batch_size=8):
        assert torch.equal(labels, torch.full((8,), -1))
        total, hard, soft = package.objectives.kd(images.flip(1), logits, labels)
        softened = [(row / 4).log_softmax(1) for row in (images.flip(1), logits)]
        by_hand = torch.nn.functional.kl_div(*softened, reduction="batchmean", log_target=True)
        assert hard == 0
        assert (
            float(total) == pytest.approx(0.9 * float(soft or 0)) == pytest.approx(0.9 * 16 * float(by_hand))
        )


def test_labels_of_which_some_are_none_are_told_what_to_write(tmp_path: Path) -> None:
    some = Of(lambda i: (IMAGES[i], int(LABELS[i]) if i % 2 else None))
    with pytest.raises(DataError, match="labels that are None; a sample without a label has −1"):
        package.cache_logits(teacher(), some, tmp_path / "x.h5")


@pytest.mark.parametrize("raises", [True, False])
def test_the_sample_that_cannot_be_read_is_named(raises: bool, tmp_path: Path) -> None:
    found: Any = pytest.raises(OSError if raises else TypeError)
    for workers, transform in ((0, None), (1, None), (0, lambda value: value)):
        views = package.Views(WithoutSome(raises), transform, count=1)
        with found as error:
            package.cache_logits(
                teacher(), views, tmp_path / f"{workers}{transform is None}.h5", num_workers=workers
            )
        if raises:
            assert error.value.__notes__ == ["while sample 17 of WithoutSome was read"]


def test_none_in_place_of_a_sample_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match="found None; each sample has a row in the cache: leave those"
    ) as error:
        package.cache_logits(teacher(), WithoutSome(raises=False), tmp_path / "x.h5")
    assert error.value.__notes__ == ["while sample 17 of WithoutSome was read"]


def test_an_input_of_another_sample_is_told_whose_it_is(cache: LogitCache) -> None:
    """As after samples were added before it; its values are no pixels, and were none for the teacher."""
    shifted = TensorDataset(IMAGES.roll(-C, 0), LABELS)
    with pytest.raises(
        MismatchError, match=r"sample 5, view 0: .* it is what the teacher saw of sample 8, view 0"
    ):
        SoftLabelDataset(shifted, cache)[5]


def test_an_input_without_bytes_is_told_to_be_of_no_other_sample(tmp_path: Path) -> None:
    """Its CRC-32 is 0, by which the cache says that it has none of a sample."""
    with LogitCacheWriter(tmp_path / "x.h5", Manifest.build(num_samples=N, num_outputs=C)) as writer:
        writer.write(range(N // 2), 5 * np.eye(C)[LABELS[: N // 2]], inputs=IMAGES[: N // 2])
        writer.write(range(N // 2, N), 5 * np.eye(C)[LABELS[N // 2 :]])
        made = LogitCache.open(writer.publish())
    with pytest.raises(MismatchError, match=r"found 00000000\): 1 of these 1 inputs differ"):
        SoftLabelDataset(TensorDataset(torch.empty(N, 0), LABELS), made)[5]


class Named(Items):
    def __init__(self, classes: list[Any]) -> None:
        self.classes = classes


def test_classes_of_the_same_names_in_another_order_are_doubted(tmp_path: Path) -> None:
    """As of folders that another system lists in another order: the numbers of labels may mean others."""
    made = package.cache_logits(teacher(), Named(["ash", "elm", "oak"]), tmp_path / "x.h5")
    with pytest.warns(
        CacheWarning, match="in another order: class 0 is oak, and its logits are of ash"
    ) as said:
        SoftLabelDataset(Named(["oak", "elm", "ash"]), made)  # type: ignore[arg-type]
    assert said[0].filename == __file__
    for names in (["ash", "elm", "oak"], ["frêne", "orme", "chêne"]):
        SoftLabelDataset(Named(names), made)  # type: ignore[arg-type]


def test_classes_that_are_numbers_are_the_same_in_the_same_order(tmp_path: Path) -> None:
    manifest = Manifest.build(num_samples=N, num_outputs=C, data={"name": "toy", "classes": list(range(C))})
    with LogitCacheWriter(tmp_path / "x.h5", manifest) as writer:
        writer.write(range(N), 5 * np.eye(C)[LABELS], labels=LABELS)
        made = LogitCache.open(writer.publish())
    SoftLabelDataset(Named(list(range(C))), made, check_inputs="off")  # type: ignore[arg-type]
    with pytest.warns(CacheWarning, match=f"in another order: class 0 is {C - 1}, and its logits are of 0"):
        SoftLabelDataset(Named(list(range(C))[::-1]), made, check_inputs="off")  # type: ignore[arg-type]


class OneBuffer(Items):
    """Fills the same memory for every sample."""

    buffer = torch.zeros(C)

    def __getitem__(self, index: int) -> Any:
        return self.buffer.copy_(IMAGES[index]), int(LABELS[index])


def test_one_piece_of_memory_for_all_samples_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="gives one piece of memory for every sample, of which it must give copies"
    ):
        package.cache_logits(teacher(), OneBuffer(), tmp_path / "x.h5")


def test_rows_that_a_loader_has_dropped_are_counted(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "x.h5", Manifest.build(num_samples=N, num_outputs=C)) as writer:
        for number, (inputs, labels) in enumerate(DataLoader(Items(), batch_size=10, drop_last=True)):
            writer.write(np.arange(10) + 10 * number, inputs, labels=labels)
        with pytest.raises(IncompleteError, match="4 rows are missing, the first is view 0 of sample 20"):
            writer.publish()


def test_a_teacher_of_another_runtime_returns_arrays(cache: LogitCache, tmp_path: Path) -> None:
    layer = teacher()

    def session(batch: torch.Tensor) -> list[np.ndarray[Any, Any]]:
        return [layer(batch).detach().numpy()]

    made = package.cache_logits(session, Items(), tmp_path / "session.h5", name="onnx")
    assert np.array_equal(made.logits(np.arange(N)), cache.logits(np.arange(N)))


class Exported(torch.nn.Linear):
    """Refuses evaluation mode, as the modules of `torch.export` do, which are in it for good."""

    def eval(self) -> Any:
        raise NotImplementedError("Calling eval() is not supported yet.")


def test_an_exported_program_is_a_teacher(cache: LogitCache, tmp_path: Path) -> None:
    program = Exported(C, C)
    program.load_state_dict(teacher().state_dict())
    made = package.cache_logits(program, Items(), tmp_path / "program.h5", batch_size=8)
    assert np.array_equal(made.logits(np.arange(N)), cache.logits(np.arange(N)))


def test_names_that_are_too_long_are_told_so(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 240 + ".h5"), tmp_path.joinpath(*["d" * 200] * 25, "x.h5")):
        with pytest.raises(StorageError, match="name too long; give it a shorter name"):
            package.cache_logits(teacher(), Items(), path)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made = package.cache_logits(teacher(), Items(), "~/caches/x.h5")
    assert made.path == tmp_path / "home/caches/x.h5"
    assert LogitCache.open("~/caches/x.h5").num_samples == N
    assert sorted(os.listdir(tmp_path)) == ["home"]


LOCKED = """
import multiprocessing
from pathlib import Path
from decant.cache.io.locks import exclusive
with exclusive(Path("x.lock"), waiting=print):
    started = multiprocessing.get_context("spawn").Process(target=print)
    started.start()
    started.join()
"""
WHOLE = """
import multiprocessing, sys
multiprocessing.set_start_method("spawn", force=True)
import decant, torch
data = torch.utils.data.TensorDataset(torch.eye(3), torch.arange(3))
decant.cache_logits(torch.nn.Linear(3, 3), data, "x.h5", num_workers=1, show_progress=False)
"""


def ran(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script that was run from a file, as one that starts processes anew must be."""
    (folder / "mine.py").write_text(script)
    return subprocess.run(
        [sys.executable, "mine.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("script", [LOCKED, pytest.param(WHOLE, marks=pytest.mark.slow)])
def test_a_script_without_a_guard_does_not_wait_for_itself(script: str, tmp_path: Path) -> None:
    """A process that is started anew runs the script, which comes to the lock that its parent holds."""
    ended = ran(script, tmp_path)
    assert re.search(
        r"RuntimeError: .*lock: is held by the process that starts this one, .* if __name__", ended.stderr
    )
    assert script == LOCKED or 'under if __name__ == "__main__":, and a notebook must import' in ended.stderr


WAITING = """
import multiprocessing, time
from pathlib import Path
from decant.cache.io.locks import exclusive

class Opened:
    def __reduce__(self):
        return opened, ()

def opened():
    with exclusive(Path("x.lock"), waiting=lambda holder: Path("waits").touch()):
        return Opened()

if __name__ == "__main__":
    with exclusive(Path("x.lock"), waiting=print):
        started = multiprocessing.get_context("spawn").Process(target=print, args=(Opened(),))
        started.start()
        while started.is_alive() and not Path("waits").exists():
            time.sleep(0.01)
    started.join()
    raise SystemExit(started.exitcode)
"""


def test_a_worker_that_opens_what_another_opens_waits_for_it(tmp_path: Path) -> None:
    """It is being started too, but no longer runs the script."""
    ended = ran(WAITING, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_process_that_ends_while_it_is_started_is_told_of_the_guard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "DataLoader worker (pid(s) 7) exited unexpectedly"
    for method, words in (("spawn", "under if __name__"), ("fork", "most often because memory ran out")):
        monkeypatch.setattr("multiprocessing.get_start_method", lambda method=method, **_: method)
        with pytest.raises(DataError, match=words), worker_processes.alive(None):
            raise RuntimeError(said)
