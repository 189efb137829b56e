"""Sequences joined with the rows of their positions: the right rows at the right places, or a refusal."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from decant.cache import (
    CacheWarning,
    Dense,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    Positions,
    SequenceDataset,
    Sparse,
    input_crc32,
)
from decant.objectives import SparseTargets

LENGTHS = [3, 1, 7, 2]
C = 11


def texts() -> list[Tensor]:
    return [torch.arange(length) * 3 % 8 + start for start, length in enumerate(LENGTHS)]


def tagged() -> list[tuple[Tensor, Tensor]]:
    return [(ids, ids % 5) for ids in texts()]


def build(path: Path, encoding: Any = None, views: int = 1, **more: Any) -> LogitCache:
    positions = Positions.of(more.pop("lengths", LENGTHS), tokens=torch.cat(texts()), predicts="here", **more)
    of = Manifest.build(
        num_samples=4, num_outputs=C, num_views=views, encoding=encoding or Dense(), positions=positions
    )
    with LogitCacheWriter(path, of, positions=positions) as writer:
        for view in range(views):
            logits = np.arange(positions.num_positions * C).reshape(-1, C) % 17 + view
            writer.write(range(4), logits.astype("f4"), view=view)
        return LogitCache.open(writer.publish())


def test_each_row_is_at_the_place_that_it_is_of(tmp_path: Path) -> None:
    cache = build(tmp_path / "cache.h5")
    train = SequenceDataset(tagged(), cache)
    loader = DataLoader(train, 3, shuffle=True, collate_fn=train.collate, num_workers=1)
    seen = 0
    for batch in loader:
        assert batch.teacher_logits is not None
        assert np.array_equal(batch.teacher_logits.numpy(), cache.logits(batch.indices))
        given = [texts()[index] for index in batch.indices]
        assert torch.equal(batch.at(batch.inputs), torch.cat(given)), "what a network says there"
        assert torch.equal(batch.at(batch.labels), torch.cat(given) % 5)
        assert batch.mask.sum(1).tolist() == [len(ids) for ids in given]
        assert (batch.labels[batch.mask == 0] == -100).all()
        seen += len(batch.indices)
    assert seen == 4
    with pytest.raises(IndexError, match="outputs: 2 places, and there is a row at place 6"):
        train.collate([train[2]]).at(torch.zeros(1, 2, C))
    with pytest.raises(
        IndexError, match=r"of 1 samples, found \(7, 1, 5\); a recurrent network needs batch_first"
    ):
        train.collate([train[2]]).at(torch.zeros(7, 1, 5))


def test_rows_of_pixels_are_those_of_their_rows_and_columns(tmp_path: Path) -> None:
    height, width = 3, 4
    images = torch.arange(2 * C * height * width).view(2, C, height, width) / 7
    pixels = images.flatten(2).transpose(1, 2)  # (2, H·W, C), as a network that gives its input back has them
    positions = Positions.of([height * width] * 2, predicts="here")
    manifest = Manifest.build(num_samples=2, num_outputs=C, positions=positions)
    with LogitCacheWriter(tmp_path / "pixels.h5", manifest, positions=positions) as writer:
        writer.write([0, 1], pixels.flatten(0, 1), input_crc32=list(map(input_crc32, images)))
        cache = LogitCache.open(writer.publish())
    masks = torch.arange(24).view(2, height, width)
    train = SequenceDataset(list(zip(images, masks, strict=True)), cache, check_inputs="all")
    batch = train.collate([train[1], train[0]])
    assert batch.teacher_logits is not None
    assert torch.allclose(
        batch.at(batch.inputs.flatten(2).transpose(1, 2)), batch.teacher_logits, rtol=2**-10
    )
    assert batch.at(batch.labels.flatten(1)).tolist() == [*range(12, 24), *range(12)]
    for given, says in ((batch.inputs, r"outputs\.flatten\(2\)"), (batch.labels, r"labels\.flatten\(1\)")):
        with pytest.raises(IndexError, match=f"there is a row at place 11; of pixels give {says}"):
            batch.at(given)


def test_rows_of_some_places_alone(tmp_path: Path) -> None:
    places = [0, 2, 0, 1, 6, 1]
    cache = build(
        tmp_path / "cache.h5", Sparse(2), lengths=[2, 1, 2, 1], token_lengths=LENGTHS, places=places
    )
    train = SequenceDataset([{"input_ids": ids, "labels": 1, "name": "x"} for ids in texts()], cache)
    batch = train.collate([train[2], train[0]])
    assert batch.rows is not None
    assert batch.rows.offsets is not None
    assert batch.offsets.tolist() == batch.rows.offsets.tolist() == [0, 2, 4]
    assert batch.at(batch.inputs).tolist() == [*texts()[2][[1, 6]].tolist(), *texts()[0][[0, 2]].tolist()]
    assert batch.labels.tolist() == [1, 1]
    targets = SparseTargets.read(cache, batch.indices, view=batch.view)
    assert np.array_equal(np.asarray(targets.ids), batch.rows.ids)


def test_an_epoch_reads_its_view_in_every_worker(tmp_path: Path) -> None:
    cache = build(tmp_path / "cache.h5", views=3)
    train = pickle.loads(
        pickle.dumps(SequenceDataset(tagged(), cache))
    )  # as a launcher sends it to a machine
    loader = DataLoader(train, 4, collate_fn=train.collate, num_workers=1, persistent_workers=True)
    for epoch in (0, 1, 5):
        train.set_epoch(epoch)
        (batch,) = loader
        assert batch.view == epoch % 3
        assert np.array_equal(batch.teacher_logits.numpy(), cache.logits(range(4), epoch % 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda ids: torch.cat([ids[:4], ids[4:] + 1]),
            r"sample 2: token 4 is 7, and the teacher read 6: \[5, 8, 3, 7",
        ),
        (lambda ids: ids[:-1], "sample 2: has 6 tokens, and the teacher read 7"),
        (lambda ids: torch.cat([torch.tensor([1]), ids]), "sample 2: token 0 is 1, and the teacher read 2"),
        (lambda ids: ids.float(), r"sample 2: expected token ids \(L,\), found \(7,\) float32"),
    ],
)
def test_other_tokens_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    train = SequenceDataset(
        [(change(ids), 0) if len(ids) == 7 else (ids, 0) for ids in texts()], build(tmp_path / "c.h5")
    )
    with pytest.raises(MismatchError, match=says):
        train.collate([train[index] for index in range(4)])


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    cache = build(tmp_path / "cache.h5")
    with pytest.raises(MismatchError, match=r"data\.length: the dataset has 3, the cache 4"):
        SequenceDataset(tagged()[:3], cache)
    with LogitCacheWriter(tmp_path / "plain.h5", Manifest.build(num_samples=4, num_outputs=2)) as writer:
        writer.write(range(4), np.eye(4, 2))
        with pytest.raises(MismatchError, match="has one row for each sample"):
            SequenceDataset(tagged(), LogitCache.open(writer.publish()))
    train = SequenceDataset(tagged(), cache)
    with pytest.raises(ValueError, match="epoch: counts from 0"):
        train.set_epoch(-1)
    part = Subset(train, [3, 1])
    assert train.collate([part[0]]).indices.tolist() == [3]


def test_frames_are_compared_by_their_checksums(tmp_path: Path) -> None:
    frames = [torch.randn(length, 4) for length in LENGTHS]
    positions = Positions.of(LENGTHS, predicts="here")
    of = Manifest.build(num_samples=4, num_outputs=C, positions=positions)
    for checked in (True, False):
        with LogitCacheWriter(tmp_path / f"{checked}.h5", of, positions=positions) as writer:
            crc32 = [input_crc32(each) for each in frames] if checked else None
            writer.write(range(4), np.eye(13, C), input_crc32=crc32)
            cache = LogitCache.open(writer.publish())
        if not checked:
            with pytest.warns(CacheWarning, match="the cache has no checksums"):
                SequenceDataset([(each, 0) for each in frames], cache)
            continue
        train = SequenceDataset([(each, 0) for each in frames], cache)
        assert train.collate([train[0], train[2]]).inputs.shape == (2, 7, 4)
        other = SequenceDataset([(each + 1, 0) for each in frames], cache)
        with pytest.raises(MismatchError, match="sample 2, view 0: the input is not what the teacher saw"):
            other.collate([other[2]])
