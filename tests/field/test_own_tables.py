"""Tables of other programs through `decant cache import`: softmax outputs, archives of several arrays, other orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decant.cache import LogitCache
from tests.helpers.commands import decant, refused, succeed

RANDOM = np.random.default_rng(2)
LABELS = RANDOM.integers(0, 3, 90)
LOGITS = (RANDOM.normal(size=(90, 3)) + 3 * np.eye(3)[LABELS]).astype("f4")
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
OF = ("--teacher", "t", "--data", "d", "--labels", "labels.npy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "labels.npy", LABELS)
    np.save(tmp_path / "logits.npy", LOGITS)
    np.save(tmp_path / "softmax.npy", PROBABILITIES)
    np.save(tmp_path / "shuffled.npy", RANDOM.permutation(LOGITS))
    np.savez(tmp_path / "one.npz", LOGITS)
    np.savez(tmp_path / "two.npz", logits=LOGITS, features=LOGITS[:, :2])
    torch.save({"logits": torch.from_numpy(LOGITS).requires_grad_(), "epoch": 3}, tmp_path / "dictionary.pt")
    return tmp_path


def test_softmax_outputs_are_refused_and_imported_as_probabilities(folder: Path) -> None:
    said = refused(decant("cache", "import", "softmax.npy", *OF, cwd=folder))
    assert "--probabilities" in said
    assert len(said.splitlines()) == 1
    done = decant("cache", "import", "softmax.npy", *OF, "--probabilities", cwd=folder)
    assert "the teacher's top-1 is 9" in succeed(done)
    assert done.stderr == ""
    assert "are not all 0 or more" in refused(
        decant("cache", "import", "logits.npy", *OF, "--probabilities", cwd=folder)
    )


def test_logits_in_another_order_are_imported_and_doubted_in_one_line(folder: Path) -> None:
    done = decant("cache", "import", "shuffled.npy", *OF, cwd=folder)
    assert "chance is 3" in succeed(done)
    assert done.stderr.startswith("warning: caches/")
    assert "shuffled loader" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = decant("cache", "import", "logits.npy", *OF, cwd=folder)
    assert "the teacher's top-1 is 9" in succeed(done)
    assert done.stderr == ""


@pytest.mark.parametrize("source", ["one.npz", "two.npz:logits", "dictionary.pt", "dictionary.pt:logits"])
def test_the_array_of_a_file_is_found(folder: Path, source: str) -> None:
    assert "the teacher's top-1 is 9" in succeed(decant("cache", "import", source, *OF, cwd=folder))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("two.npz", "two.npz: has logits, features; say which, as two.npz:logits"),
        ("two.npz:heads", "two.npz: has no array 'heads'; it has logits, features"),
        ("dictionary.pt:heads", "has no array 'heads'; it has logits"),
        ("logits.npy:x", "expected FILE.npy"),
    ],
)
def test_a_choice_that_is_missing_is_said(folder: Path, source: str, says: str) -> None:
    assert says in refused(decant("cache", "import", source, *OF, cwd=folder))


def test_outputs_of_sigmoids_are_imported_as_their_logits(folder: Path) -> None:
    answers = (RANDOM.random((90, 3)) < 0.5).astype("f4")
    logits = (6 * answers - 3 + RANDOM.normal(size=(90, 3))).astype("f4")
    np.save(folder / "answers.npy", answers)
    np.save(folder / "sigmoids.npy", 1 / (1 + np.exp(-logits)))
    of = (
        "--teacher",
        "t",
        "--data",
        "d",
        "--labels",
        "answers.npy",
        "--task",
        "multilabel",
        "--dtype",
        "float32",
    )
    warned = decant("cache", "import", "sigmoids.npy", *of, cwd=folder)
    succeed(warned)
    assert "every value is between 0 and 1, as sigmoid gives" in warned.stderr
    done = decant("cache", "import", "sigmoids.npy", *of, "--probabilities", cwd=folder)
    assert done.stderr == ""
    cache = LogitCache.open(folder / succeed(done).partition("made ")[2].splitlines()[0])
    assert np.allclose(cache.logits(slice(None)), logits, atol=1e-3)
    np.save(folder / "logits3.npy", logits)
    said = refused(decant("cache", "import", "logits3.npy", *of, "--probabilities", cwd=folder))
    assert said == "decant: probabilities: rows 0 to 89 of view 0 are not all between 0 and 1"
    for form, outputs in (("binary", logits[:, :1]), ("multilabel", logits)):  # without labels too
        np.save(folder / "some.npy", 1 / (1 + np.exp(-outputs)))
        words = ("--teacher", form, "--data", "d", "--task", form, "--probabilities", "--dtype", "float32")
        done = decant("cache", "import", "some.npy", *words, cwd=folder)
        cache = LogitCache.open(folder / succeed(done).partition("made ")[2].splitlines()[0])
        assert np.allclose(cache.logits(slice(None)), outputs, atol=1e-3)
