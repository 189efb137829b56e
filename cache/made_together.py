"""Several batches that are made in one call, and handed out one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, TypeVar

from decant.cache.alignment.keys import Keys
from decant.cache.errors import RewrittenError

Made = TypeVar("Made")
OneOf = TypeVar("OneOf")
SizedKeys = TypeVar("SizedKeys", bound=Sized)


def split_batch(made: Sequence[Any], keys: Sequence[Keys]) -> list[tuple[Any, ...]]:
    """The batch of each of several keys, from the tensors that were made of all of these keys in one call. Its tensors
    are parts of these, and copy nothing.

    >>> import torch
    >>> inputs, labels = torch.arange(6).reshape(3, 2), torch.tensor([7, 8, 9])
    >>> [(some.tolist(), of.tolist()) for some, of in split_batch((inputs, labels), [[5, 3], [1]])]
    [([[0, 1], [2, 3]], [7, 8]), ([[4, 5]], [9])]
    """
    sizes = [len(each) for each in keys]
    return list(zip(*(part.split(sizes) for part in made), strict=True))


def take_run(
    first: SizedKeys, left: Iterator[SizedKeys], samples: int, most: int | None = None
) -> list[SizedKeys]:
    """The keys of a first batch and those after them, of about so many samples together, and at most so many batches.

    >>> left = iter([[3, 4], [5, 6], [7, 8]])
    >>> take_run([1, 2], left, samples=5)
    [[1, 2], [3, 4]]
    >>> take_run([5, 6], left, samples=1)
    [[5, 6]]
    """
    run, count = [first], len(first)
    while (
        count + len(run[-1]) <= samples and len(run) != most and (following := next(left, None)) is not None
    ):
        run.append(following)
        count += len(following)
    return run


def in_turn(
    several: Callable[[Sequence[OneOf]], Iterable[Made]], one: Callable[[OneOf], Made], run: Sequence[OneOf]
) -> Iterator[Made]:
    """The batches that `several` makes of a run of keys. Where it fails, each is made by `one`, so that the error is
    raised when the turn of its batch comes: those before it are handed out. An error that no batch has alone is raised
    in place of the last, and at once where the cache was written to meanwhile, which concerns all of them.

    >>> def one(key):
    ...     return 6 // key
    >>> batches = in_turn(lambda run: [one(key) for key in run], one, [3, 0])
    >>> next(batches)
    2
    >>> next(batches)
    Traceback (most recent call last):
    ...
    ZeroDivisionError: ...by zero
    """
    failed: Exception | None = None
    made: Iterable[Made] = ()
    try:
        made = several(run)
    except RewrittenError:
        raise
    except Exception as error:
        failed = error
    if failed is None:
        yield from made
        return
    for key in run[:-1]:
        yield one(key)
    one(run[-1])
    raise failed
