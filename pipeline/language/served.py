"""A cache of token samples from a teacher behind a server: found, or filled by asking it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from decant.cache import Encoding, LogitCache, Manifest, Sparse
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import positions_of, samples_manifest
from decant.pipeline.errors import DataError, ServerError
from decant.pipeline.language.building import batch_by_batch, find, find_or_build
from decant.pipeline.language.served_pass import ServedPass
from decant.pipeline.own_loop.joint_pass import Begun
from decant.pipeline.served.connection import Connection, UnreachableError
from decant.pipeline.served.server import describe, require_fitting
from decant.pipeline.served.teacher import ServedTeacher
from decant.pipeline.support.notices import say_once

_HEAD = 64


def cache_served(
    teacher: ServedTeacher,
    samples: TokenSamples,
    place: Path,
    *,
    encoding: Encoding | str | None,
    tokens_per_batch: int,
    num_outputs: int | None,
    name: str | None,
    show_progress: bool,
) -> LogitCache:
    """`decant.language.cache_logits` of a teacher behind a server. A cache that is whole is taken without the server,
    if that cannot be reached.
    """
    outputs = num_outputs or samples.corpus.num_ids
    stored = _sparse(encoding, outputs)
    positions = positions_of(samples)

    def manifest_of(identity: Mapping[str, Any]) -> Manifest:
        known = identity if name is None else {**identity, "network": {"name": name}}
        return samples_manifest(
            samples, positions, known, encoding=stored, precision="unknown", num_outputs=outputs
        )

    with contextlib.closing(Connection(teacher, patience=0.0 if place.exists() else None)) as connection:
        try:
            model = describe(connection, teacher.model)
        except UnreachableError as error:
            if not place.exists():
                raise
            return _unasked(place, manifest_of, teacher.model if name is None else name, error)
        connection.patience = teacher.patience
        require_fitting(model, connection.url, int(samples.lengths.max()), samples.corpus.num_ids)
        manifest = manifest_of(model.identity)
        run = ServedPass(
            teacher, connection, model, samples, stored, outputs, tokens_per_batch, show_progress
        )

        @contextlib.contextmanager
        def begin(processes: int) -> Iterator[Begun]:
            run.begin()
            yield Begun(manifest, run.windows, batch_by_batch, run.fill, positions)

        return find_or_build(place, manifest, begin, run.require_same)


def _sparse(encoding: Encoding | str | None, num_outputs: int) -> Sparse:
    """What can be stored of a server's answers. Raises DataError for anything else."""
    if encoding is None:
        return Sparse(min(_HEAD, num_outputs))
    if not isinstance(encoding, Sparse) or encoding.draws:
        raise DataError(
            f"encoding: of a served teacher the likeliest tokens are known and no others, so it must be "
            f"Sparse(head=k), found {encoding!r}"
        )
    if encoding.temperatures != (1.0,):
        raise DataError(
            "encoding: a server tells probabilities at T = 1, from which those of all other tokens together at another "
            f"temperature do not follow; expected temperatures = (1.0,), found {encoding.temperatures}"
        )
    return encoding


def _unasked(
    place: Path,
    manifest_of: Callable[[Mapping[str, Any]], Manifest],
    name: str | None,
    error: ServerError,
) -> LogitCache:
    """The cache at `place`, of a server that cannot be asked: all else must be as it is."""
    stored = LogitCache.open(place).manifest.identity["teacher"]
    theirs = {key: value for key, value in stored.items() if key != "outputs"}
    if name is not None:
        theirs["network"] = {"name": name}
    cache = find(place, manifest_of(theirs))
    assert cache is not None
    say_once(f"{error}; {place} is whole, and taken without asking")
    return cache
