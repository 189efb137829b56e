"""attach with webdataset and streaming datasets: every sample once, with its own logits, whichever worker reads it."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from decant.cache import LogitCache, LogitCacheWriter, MismatchError, attach
from tests.helpers.caches import manifest
from tests.helpers.extras import needs

pytestmark = [  # webdataset leaves its files open
    *needs("webdataset", "datasets"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

N, C = 24, 4
IMAGES = np.random.default_rng(5).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(N) % C
LOGITS = np.random.default_rng(6).normal(size=(N, C)).astype("f4") + 6 * np.eye(C, dtype="f4")[LABELS]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    with LogitCacheWriter(
        tmp_path_factory.mktemp("streams") / "a.h5", manifest(N, C, 1, "float32")
    ) as writer:
        writer.write(np.arange(N), LOGITS, labels=LABELS, inputs=IMAGES)
        return LogitCache.open(writer.publish())


def png(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(IMAGES[index]).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four shards of six samples, whose keys are the indices in six digits."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        with tarfile.open(folder / f"train-{shard}.tar", "w") as tar:
            for index in range(shard * 6, shard * 6 + 6):
                for ending, content in (("png", png(index)), ("cls", str(LABELS[index]).encode())):
                    entry = tarfile.TarInfo(f"{index:06}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return f"{folder}/train-{{0..3}}.tar"


def index_of(sample: dict[str, Any]) -> int:
    return int(sample["__key__"])


def require_all(found: list[dict[str, Any]], key: str) -> None:
    assert sorted(int(sample[key]) for sample in found) == list(range(N))
    for sample in found:
        assert sample["teacher_logits"].tolist() == LOGITS[int(sample[key])].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_of_webdataset_get_their_logits(cache: LogitCache, shards: str, workers: int) -> None:
    import webdataset as wds

    data = wds.WebDataset(shards, shardshuffle=4, seed=1).shuffle(10).decode("pil")
    stream = attach(data, cache, key=index_of, keys=("png", "cls"), check_inputs="all")
    for _ in range(2):
        require_all(list(DataLoader(stream, batch_size=None, num_workers=workers)), "__key__")


def test_shards_of_other_data_are_refused_at_the_first_sample(cache: LogitCache, shards: str) -> None:
    import webdataset as wds

    data = wds.WebDataset(shards, shardshuffle=False).decode("pil")
    other = attach(data, cache, key=lambda sample: (index_of(sample) + C) % N, keys=("png", "cls"))
    with pytest.raises(MismatchError, match="sample 4, view 0: the input is not what the teacher saw"):
        next(iter(other))
    named = attach(data, cache, key="__key__", keys=("png", "cls"))
    with pytest.raises(TypeError, match="found '000000'; give a function of the sample"):
        next(iter(named))


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_of_a_streaming_dataset_of_datasets_get_their_logits(cache: LogitCache, workers: int) -> None:
    import datasets

    columns = {"image": [Image.fromarray(image) for image in IMAGES], "label": LABELS, "index": np.arange(N)}
    features = datasets.Features(
        image=datasets.Image(), label=datasets.Value("int64"), index=datasets.Value("int64")
    )
    data = datasets.Dataset.from_dict(columns, features=features).to_iterable_dataset(num_shards=4)
    stream = attach(
        data.shuffle(seed=1, buffer_size=5), cache, key="index", keys=("image", "label"), check_inputs="all"
    )
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        found = list(DataLoader(stream, batch_size=None, num_workers=workers))
        require_all(found, "index")
        orders.append([sample["index"] for sample in found])
    assert orders[0] != orders[1], "the stream was told the epoch, which its shuffling follows"
