"""What each encoding of a cache costs in bytes and in error, on simulated logits: `make bench-encodings`.

A row's probabilities fall as Zipf's law has them, in a random order, times noise. Students are far (zeros), noisy (the
teacher and much noise) and near (little noise). The error is that of what a student learns from: the mean of KL(p‖q)
against the teacher's own, the gradient of a row p − q in root mean square, and the angle of the gradients' sum.

- "evenly": the mass of what is not stored is spread over it, as a recipe's student sees a sparse cache.
- "tail": it is one output more, as `sparse_kd` has it.
- "dropped": the stored ones are scaled to 1. "draws": outputs that are drawn without replacement.
- "replaced": 50 draws with replacement from p, a share of 1/50 each: Anshumann et al., "Sparse Logit Sampling" (2025).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decant.cache import Dense, Encoding, Quantised, Sparse, SparseRows

Table = NDArray[np.float64]
STUDENTS = {"far": (0.0, 0.0), "noisy": (1.0, 2.0), "near": (1.0, 0.3)}
"""How much of the teacher's logits a student has, and how much noise."""


@dataclass(frozen=True)
class Row:
    """One encoding against one student."""

    outputs: int
    temperature: float
    encoding: str
    row_bytes: int
    student: str
    kl: float
    """Relative error of the mean KL."""
    gradient: float
    """Root mean square error of a row's gradient, as a share of the gradient."""
    angle: float
    """Degrees between the sums of the gradients."""


def simulated(rows: int, outputs: int, random: np.random.Generator) -> Table:
    """Teacher logits (B, C): −1.3·log(rank) in an order of each row's own, and noise."""
    ranks = np.argsort(random.random((rows, outputs)), axis=1) + 1
    return -1.3 * np.log(ranks) + 0.3 * random.standard_normal((rows, outputs))


Target = tuple[Table, Table]
"""What a student learns from: (B, C) what takes the place of p in the gradient p − q, and (B,) the loss."""


def measure(outputs: int, temperature: float, rows: int, seed: int) -> Iterator[Row]:
    """Every encoding against every student."""
    random = np.random.default_rng(seed)
    teacher = simulated(rows, outputs, random)
    p = _softmax(teacher / temperature)
    students = {
        name: _softmax((share * teacher + noise * random.standard_normal(teacher.shape)) / temperature)
        for name, (share, noise) in STUDENTS.items()
    }
    for name, row_bytes, learn in _ways(teacher, outputs, temperature, random):
        for student, q in students.items():
            yield Row(outputs, temperature, name, row_bytes, student, *_errors(p, learn(q), q))


def _ways(
    teacher: Table, outputs: int, temperature: float, random: np.random.Generator
) -> Iterator[tuple[str, int, Callable[[Table], Target]]]:
    """(name, bytes of a row, q → target) of each way to store the teacher and learn from that."""
    declared = tuple(sorted({1.0, temperature}))
    p = _softmax(teacher / temperature)

    def dense(encoding: Encoding) -> Callable[[Table], Target]:
        rows = encoding.encode(teacher, np.arange(len(teacher)), 0)
        stored = _softmax(encoding.decode(rows, outputs, temperature).astype("f8") / temperature)
        return lambda q: (stored, _kl(stored, q))

    for name, encoding in (("float16", Dense("float16")), ("dense-u8", Quantised())):
        yield name, encoding.row_bytes(outputs), dense(encoding)
    for head in (8, 16, 64):
        if head < outputs:
            one = Sparse(head, declared)
            yield f"sparse {head}, evenly", one.row_bytes(outputs), dense(one)
            yield f"sparse {head}, tail", one.row_bytes(outputs), _with_tail(one, teacher, temperature)
            yield f"sparse {head}, dropped", 4 * head, _dropped(one, teacher, temperature)
    for draws in (16, 32, 64):
        if draws < outputs:
            drawn = Sparse(0, declared, draws=draws)
            yield f"draws {draws}", drawn.row_bytes(outputs), _drawn(drawn, teacher, temperature)
    counts = random.multinomial(50, p) / 50
    ids = int(np.count_nonzero(counts, axis=1).mean().round())
    yield f"replaced 50 ({ids} ids)", 3 * ids, lambda q: (counts, (counts * _log_ratio(p, q)).sum(axis=1))


def _rows(encoding: Sparse, teacher: Table) -> SparseRows:
    return encoding.rows(encoding.encode(teacher, np.arange(len(teacher)), 0))


def _with_tail(encoding: Sparse, teacher: Table, temperature: float) -> Callable[[Table], Target]:
    rows = _rows(encoding, teacher)
    stored, ids = np.exp(encoding.log_shares(rows, temperature)), rows.ids.astype(int)
    rest = np.exp(rows.log_tail[:, encoding.temperatures.index(temperature), None].astype("f8"))

    def learn(q: Table) -> Target:
        other = q.copy()
        np.put_along_axis(other, ids, 0, axis=1)
        mass = other.sum(axis=1, keepdims=True)
        target = other * (rest / mass)
        np.put_along_axis(target, ids, stored, axis=1)
        of_stored = (stored * np.log(stored / np.take_along_axis(q, ids, axis=1))).sum(axis=1)
        return target, of_stored + (rest * np.log(rest / mass))[:, 0]

    return learn


def _dropped(encoding: Sparse, teacher: Table, temperature: float) -> Callable[[Table], Target]:
    rows, target = _rows(encoding, teacher), np.zeros_like(teacher)
    np.put_along_axis(target, rows.ids.astype(int), np.exp(encoding.log_shares(rows, temperature)), axis=1)
    target /= target.sum(axis=1, keepdims=True)
    return lambda q: (target, _kl(target, q))


def _drawn(encoding: Sparse, teacher: Table, temperature: float) -> Callable[[Table], Target]:
    rows, target = _rows(encoding, teacher), np.zeros_like(teacher)
    ids = rows.ids.astype(int)
    weights, log_p = np.exp(encoding.log_estimates(rows, temperature)), encoding.log_shares(rows, temperature)
    np.put_along_axis(target, ids, weights, axis=1)
    return lambda q: (target, (weights * (log_p - np.log(np.take_along_axis(q, ids, axis=1)))).sum(axis=1))


def _errors(p: Table, learnt: Target, q: Table) -> tuple[float, float, float]:
    target, loss = learnt
    true, found = p - q, target - q * target.sum(axis=1, keepdims=True)
    gradient = np.sqrt(np.square(found - true).sum(1).mean() / np.square(true).sum(1).mean())
    whole, other = true.sum(0), found.sum(0)
    cosine = whole @ other / (np.linalg.norm(whole) * np.linalg.norm(other))
    return (
        float(loss.mean() / _kl(p, q).mean() - 1),
        float(gradient),
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _softmax(logits: Table) -> Table:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _kl(p: Table, q: Table) -> Table:
    return np.asarray((p * _log_ratio(p, q)).sum(axis=1))


def _log_ratio(p: Table, q: Table) -> Table:
    return np.asarray(np.log(np.maximum(p, 1e-300) / q))


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encodings", description=__doc__)
    parser.add_argument("--outputs", type=int, nargs="+", default=[100, 1000, 20_000])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| C | T | encoding | bytes a row | far: KL · gradient · angle | noisy | near |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for outputs in options.outputs:
        for temperature in options.temperatures:
            found = list(measure(outputs, temperature, options.rows, options.seed))
            for name in dict.fromkeys(row.encoding for row in found):
                rows = [row for row in found if row.encoding == name]
                cells = " | ".join(f"{row.kl:+.1%} · {row.gradient:.1%} · {row.angle:.1f}°" for row in rows)
                print(f"| {outputs:,} | {temperature:g} | {name} | {rows[0].row_bytes:,} | {cells} |")


if __name__ == "__main__":
    main()
