"""What each encoding of a cache costs in bytes and in error, on simulated logits: `make bench-encodings`.

A row's probabilities fall as Zipf's law has them, in a random order, times noise. Students are far (zeros), noisy (the
teacher and much noise) and near (little noise). The error is that of what a student learns from: the mean of KL(p‖q)
against the teacher's own, the gradient of a row p − q in root mean square, and the angle of the gradients' sum.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decant.cache import Dense, Encoding, Quantised, Sparse

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


def measure(outputs: int, temperature: float, rows: int, seed: int) -> Iterator[Row]:
    """Every encoding against every student."""
    random = np.random.default_rng(seed)
    teacher = simulated(rows, outputs, random)
    p = _softmax(teacher / temperature)
    heads = [head for head in (8, 16, 64) if head < outputs]
    declared = tuple(sorted({1.0, temperature}))
    encodings: dict[str, Encoding] = {"float16": Dense("float16"), "dense-u8": Quantised()}
    encodings |= {f"sparse {head}": Sparse(head, declared) for head in heads}
    students = {
        name: share * teacher + noise * random.standard_normal(teacher.shape)
        for name, (share, noise) in STUDENTS.items()
    }
    for name, encoding in encodings.items():
        encoded = encoding.encode(teacher, np.arange(rows), 0)
        stored = _softmax(encoding.decode(encoded, outputs, temperature).astype("f8") / temperature)
        for student, logits in students.items():
            q = _softmax(logits / temperature)
            yield Row(
                outputs, temperature, name, encoding.row_bytes(outputs), student, *_errors(p, stored, q)
            )


def _errors(p: Table, stored: Table, q: Table) -> tuple[float, float, float]:
    true, found = p - q, stored - q
    gradient = np.sqrt(np.square(found - true).sum(1).mean() / np.square(true).sum(1).mean())
    whole, other = true.sum(0), found.sum(0)
    cosine = whole @ other / (np.linalg.norm(whole) * np.linalg.norm(other))
    return (
        float(_kl(stored, q).mean() / _kl(p, q).mean() - 1),
        float(gradient),
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _softmax(logits: Table) -> Table:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _kl(p: Table, q: Table) -> Table:
    return np.asarray((p * np.log(np.maximum(p, 1e-300) / q)).sum(axis=1))


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
