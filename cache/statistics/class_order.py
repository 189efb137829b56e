"""Whether a teacher has its classes in another order than the labels have: it names classes by those of others.

Folders that are sorted by their names, and numbers that are sorted as texts (0, 1, 10, 2), give such orders. Top-1 is
then above chance wherever a class or two have kept their places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHARE, _FEWEST = 0.8, 4  # samples of a class that a teacher names by one other class
_SHOWN = 3


def doubt_class_order(
    logits: NDArray[np.floating], labels: NDArray[np.integer], names: object = None
) -> str | None:
    """What is doubtful about logits (B, C) and labels (B,), in words with the class names, where the teacher exchanges
    classes; else None.

    >>> labels = np.arange(30) % 3
    >>> doubt_class_order(np.eye(3)[labels][:, [1, 0, 2]], labels, ["ash", "elm", "oak"])
    'the teacher names 2 classes by those of others: 0 (ash) as 1 (elm), 1 (elm) as 0 (ash): ...[1, 0, 2]...'
    """
    exchanged = exchanged_classes(logits, labels)
    if not exchanged:
        return None
    known = names if isinstance(names, list | tuple) else ()

    def name(number: int) -> str:
        return f"{number} ({known[number]})" if number < len(known) else str(number)

    shown = [f"{name(label)} as {name(answer)}" for label, answer in sorted(exchanged.items())]
    more = f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else ""
    columns = [exchanged.get(number, number) for number in range(logits.shape[1])]
    given = f", {columns}," if len(columns) <= 20 else ""
    return (
        f"the teacher names {len(shown):,} classes by those of others: {', '.join(shown[:_SHOWN])}{more}: a sign of "
        f"classes in another order than those of the labels: take its columns in that order{given} as teacher.classes "
        "and --classes do; or of rows that belong to other samples"
    )


def exchanged_classes(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[int, int]:
    """{class: the teacher's answer to it} of classes that logits (B, C) exchange among each other, by labels (B,).
    Samples with label −1 are left out.

    A class is exchanged where at least 4 in 5 of its samples, and at least 4, are answered by one other class, which
    is exchanged too; no two classes have the same answer. A teacher that has its classes in another order than the
    labels gives such answers; one that confuses classes does not.

    >>> labels = np.arange(30) % 3
    >>> exchanged_classes(np.eye(3)[labels][:, [1, 0, 2]], labels)
    {0: 1, 1: 0}
    """
    answers = logits.argmax(axis=1)
    known = (labels >= 0) & (labels < logits.shape[1])
    pairs, counts = np.unique(np.stack([labels[known], answers[known]]), axis=1, return_counts=True)
    sizes = np.bincount(labels[known], minlength=logits.shape[1])
    named = {
        int(label): int(answer)
        for (label, answer), count in zip(pairs.T.tolist(), counts.tolist(), strict=True)
        if label != answer and count >= max(_FEWEST, _SHARE * sizes[label])
    }
    while set(named) != set(named.values()) or len(set(named.values())) < len(named):
        kept = {
            label: answer
            for label, answer in named.items()
            if answer in named and label in named.values() and list(named.values()).count(answer) == 1
        }
        if len(kept) == len(named):
            return {}
        named = kept
    return named
