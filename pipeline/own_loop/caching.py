"""`cache_logits`: the teacher's pass over views of one's own, into a cache that is found the next time."""

from __future__ import annotations

import contextlib
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import torch

from decant.cache import (
    Dense,
    Encoding,
    LogitCache,
    LogitCacheWriter,
    expected_size,
    find_unfinished,
    holder_of_views,
    warn,
)
from decant.cache.io.files import user_path
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.own_loop.cache_identity import CacheIdentity
from decant.pipeline.own_loop.dataset import Views, plain_views
from decant.pipeline.own_loop.joint_pass import (
    POLL_SECONDS,
    Begun,
    Find,
    build,
    join_and_fill,
    make_folder_of,
)
from decant.pipeline.own_loop.same_teacher import require_same_as_begun, require_same_teacher
from decant.pipeline.own_loop.teacher_pass import Collate, TeacherPass
from decant.pipeline.support.notices import say_once
from decant.pipeline.training import handout
from decant.pipeline.training.handout import Run

Precision = Literal["float32", "bfloat16", "float16"]


class Options(TypedDict, total=False):
    """Keywords of `cache_logits` that do not change what it returns."""

    batch_size: int
    device: str | torch.device | None
    num_workers: int
    precision: Precision
    encoding: Encoding | None
    output: teachers.Output
    name: str | None
    data_name: str | None
    collate: Collate | None
    show_progress: bool


@dataclass(frozen=True)
class Estimate:
    """What `cache_logits` would do, from a few batches: `cache_logits(…, dry_run=True)`.

    >>> print(Estimate(rows=200_000, missing=150_000, seconds=93.4, bytes=40_800_000))
    150,000 of 200,000 rows to compute, in about 1 min 33 s; the file takes 40.8 MB
    """

    rows: int
    """V·N."""
    missing: int
    """Rows that are not computed yet."""
    seconds: float
    """For these, on this machine."""
    bytes: int
    """Of the whole file."""

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        took = f"{minutes:,} min {seconds} s" if minutes else f"{seconds} s"
        return (
            f"{self.missing:,} of {self.rows:,} rows to compute, in about {took}; the file takes "
            f"{self.bytes / 1e6:,.1f} MB"
        )


@overload
def cache_logits(
    teacher: teachers.Teacher,
    views: Any,
    path: str | os.PathLike[str],
    *,
    part: tuple[int, int] | None = None,
    **options: Unpack[Options],
) -> LogitCache: ...


@overload
def cache_logits(
    teacher: teachers.Teacher,
    views: Any,
    path: str | os.PathLike[str],
    *,
    part: tuple[int, int],
    wait: Literal[False],
    **options: Unpack[Options],
) -> LogitCache | None: ...


@overload
def cache_logits(
    teacher: teachers.Teacher,
    views: Any,
    path: str | os.PathLike[str],
    *,
    dry_run: Literal[True],
    **options: Unpack[Options],
) -> Estimate: ...


def cache_logits(
    teacher: teachers.Teacher,
    views: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    precision: Precision = "float32",
    encoding: Encoding | None = None,
    output: teachers.Output = None,
    name: str | None = None,
    data_name: str | None = None,
    collate: Collate | None = None,
    part: tuple[int, int] | None = None,
    wait: bool = True,
    dry_run: bool = False,
    show_progress: bool = True,
) -> LogitCache | Estimate | None:
    """Runs a teacher once over every view of every sample and stores its logits at `path`; finds what is there.

    A pass that was killed goes on where it was when the same lines are run again. The published file never changes: a
    cache at `path` of another teacher, other data or other views is refused, with every field that differs.

    teacher: any module or callable of a batch; it is run in evaluation mode, without gradients, and gets its modes and
    its device back. It returns a tensor (B, C), or a tuple, a dictionary or a `ModelOutput`, in which the logits are
    the field "logits" or the one tensor (B, C). Of several named inputs each is a keyword. views: `Views`, or any
    map-style dataset, which is one view.

    num_workers: processes that read the views, forked on Linux where the program has set no start method. device: None
    is where the teacher is. precision: other than "float32", the teacher runs under autocast. encoding:
    how logits are stored, by default `decant.encodings.Dense("float16")`. output: which field of what the teacher
    returns, at which place, or a function of it. name: of the teacher, needed where it has no weights. data_name: of
    the data in the manifest. collate: makes a batch of a list of inputs; by default torch's `default_collate`.

    part: (i, n) computes the i-th of n equal runs of blocks; n processes, on one machine or on several with a common
    folder, write one file, and the last publishes it. The others wait for that, or return None where `wait` is False.
    Without `part`, the ranks of a script under `torchrun` that call this share the work in the same way, as they are
    done, and all return the cache; other processes that start together wait for the first one, and find its cache.
    dry_run: writes nothing, and returns an `Estimate` from a few batches.

    Raises CacheError where `path` holds another cache or cannot be written, DataError where views do not repeat or
    cannot be collated, ModelError where the teacher fails or its logits are not found, ValueError for a teacher without
    weights and name or an unknown precision, TypeError for what is no dataset, or an encoding that is none. Warns where
    a sample's logits change with the rest of its batch, as with batch norm that a callable leaves in training mode.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> data = torch.utils.data.TensorDataset(5 * torch.eye(20, 3), torch.arange(20) % 3)
    >>> views = Views(data, lambda x: x + 0.1 * torch.randn(3), count=2, seed=0)
    >>> network = torch.nn.Linear(3, 3)
    >>> cache = cache_logits(network, views, f"{folder.name}/teacher.h5", batch_size=8)
    >>> cache.num_views, cache.num_samples, cache.num_classes
    (2, 20, 3)
    >>> live = network(views[7, 1][0])
    >>> bool((live - torch.from_numpy(cache.logits(7, view=1))).abs().max() < 0.01)
    True
    >>> folder.cleanup()
    """
    place, seen = user_path(path), views if isinstance(views, Views) else plain_views(_map_style(views))
    _check(batch_size, precision, encoding, part, seen)
    identity = CacheIdentity(
        teacher, seen, precision, encoding or Dense(), name, data_name, batch_size, output, collate
    )
    found = identity.find(place)
    identity.probe()  # before the teacher is asked, which would be blamed for what views do

    def run_on(device: torch.device) -> TeacherPass:
        return TeacherPass(
            teacher, seen, device, precision, batch_size, num_workers, output, collate, show_progress
        )

    on = teachers.device_of(teacher, device)
    if found is not None:
        _require_same(found, [run_on(each) for each in (teachers.device_of(teacher, None), on)])
    if dry_run:
        return _estimate(identity, run_on(on), place, found)
    if found is not None:
        return found
    find, begin = partial(identity.find, place), partial(_begun, identity, run_on(on))
    if part is None:
        return build(place, find, begin)
    return _build_part(place, find, begin, part, wait)


def _require_same(found: LogitCache, runs: Iterable[TeacherPass]) -> None:
    """Raises MismatchError where the teacher gives other logits than the cache holds, in the first of some runs in
    which it does not fail; says where it fails in all.
    """
    for run in runs:
        try:
            with run:
                return require_same_teacher(run, found)
        except ModelError as error:  # as where its operations are for GPUs alone
            failed = error
    warn(
        f"{found.path}: found by the teacher's name and weights; that it gives these logits was not tried: {failed}"
    )


def _build_part(
    path: Path,
    find: Find,
    begin: Callable[[int], AbstractContextManager[Begun]],
    part: tuple[int, int],
    wait: bool,
) -> LogitCache | None:
    """Builds a part; whoever comes last publishes the whole."""
    make_folder_of(path)
    with begin(part[1]) as begun:
        found = join_and_fill(path, begun, lambda units: handout.part(units, *part), find)
    if found is None and wait:
        say_once(f"{path}: part {part[0]} of {part[1]} is written; waits for the others")
        while (found := find()) is None:
            time.sleep(POLL_SECONDS)
    return found


@contextlib.contextmanager
def _begun(identity: CacheIdentity, run: TeacherPass, processes: int) -> Iterator[Begun]:
    """The teacher's pass, of which each of so many processes takes a share."""
    with run:
        manifest, labels = identity.manifest(run.num_outputs)
        all_units = run.units(manifest, processes)

        def fill(writer: LogitCacheWriter, units: Iterable[Run] | None = None) -> None:
            require_same_as_begun(run, writer)
            run.fill(writer, labels, units)

        yield Begun(manifest, lambda writer: all_units, all_units.batches, fill)


def _estimate(identity: CacheIdentity, run: TeacherPass, path: Path, found: LogitCache | None) -> Estimate:
    """What a pass would take; nothing, where its cache is there."""
    with run:
        manifest, _ = identity.manifest(run.num_outputs)
        total = manifest.num_views * manifest.num_samples
        begun = find_unfinished(path) if path.parent.is_dir() else None
        rows = 0 if found is not None else total - (begun.rows if begun else 0)
        return Estimate(total, rows, rows * run.seconds_per_row() if rows else 0.0, expected_size(manifest))


def _check(
    batch_size: int, precision: str, encoding: object, part: tuple[int, int] | None, views: Views
) -> None:
    if operator.index(batch_size) < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected {', '.join(get_args(Precision))}, found {precision!r}")
    if encoding is not None and not isinstance(encoding, Encoding):
        raise TypeError(
            f'encoding: expected one of decant.encodings, as Dense("float16"), found {encoding!r}'
        )
    if part is not None and not 0 <= part[0] < part[1]:
        raise ValueError(f"part: expected (i, n) with 0 ≤ i < n, found {part}")
    if not len(views):
        raise DataError("views: the dataset has no samples")


def _map_style(dataset: Any) -> Any:
    """Raises TypeError for views in another dataset, which would be read in view 0 alone."""
    holder = holder_of_views(dataset)
    if holder is not None:
        inner = "dataset, indices" if holder == "Subset" else "…"
        raise TypeError(
            f"views: a {holder} of Views; make it Views of a {holder}: Views({holder}({inner}), …)"
        )
    return dataset
