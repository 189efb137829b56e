"""What a loss of sparse rows costs beside a plain cross-entropy, and what it costs to encode a teacher's rows: `make
bench-losses`.

Each loss goes from hidden states and the last layer's weights to their gradients: `plain` is torch's cross-entropy of
labels; `fused` is `fused_kd`; `hidden` is that against a teacher's hidden states, of the same width; `gather` is
`sparse_kd` of all logits; `dense` is the KL with all C teacher logits. Times are of this process on the processor, so
that others on the machine count little; losses take turns, and each figure is the median of their ratios to `plain` in
the same turn. Memory is the peak of a process of its own, less that of one that computes nothing; Linux alone tells
it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.memory import peak_memory
from decant.cache import Sparse
from decant.objectives import HiddenTargets, SparseTargets, fused_kd, sparse_kd

LOSSES = ("plain", "fused", "hidden", "gather", "dense")


def losses(positions: int, outputs: int, width: int, kept: int) -> dict[str, Callable[[], None]]:
    """By name: a step from hidden states (Q, d) and weights (C, d) to the gradients of both."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(positions, width), torch.randn(outputs, width) / width**0.5
    labels = torch.randint(outputs, (positions,))
    ids = torch.arange(kept).mul(outputs // kept) + torch.arange(positions)[:, None] % (outputs // kept)
    log_probs = torch.log_softmax(torch.randn(positions, kept), dim=1) - 0.2
    targets = SparseTargets.of(ids, log_probs, num_outputs=outputs)

    teacher = HiddenTargets.of(hidden.flip(0), weight)

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            given = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
            loss(*given).backward()  # type: ignore[no-untyped-call]

        return run

    def dense(states: Tensor, layer: Tensor) -> Tensor:
        logits = states @ layer.t()
        teacher = torch.zeros_like(logits).scatter(1, ids, log_probs).log_softmax(dim=1)
        kl = functional.kl_div(logits.log_softmax(dim=1), teacher, reduction="batchmean", log_target=True)
        return 0.5 * kl + 0.5 * functional.cross_entropy(logits, labels)

    return {
        "plain": step(lambda states, layer: functional.cross_entropy(states @ layer.t(), labels)),
        "fused": step(lambda states, layer: fused_kd(states, layer, targets, labels, 0.5).total),
        "hidden": step(lambda states, layer: fused_kd(states, layer, teacher, labels, 0.5).total),
        "gather": step(lambda states, layer: sparse_kd(states @ layer.t(), targets, labels, 0.5).total),
        "dense": step(dense),
    }


def seconds(steps: dict[str, Callable[[], None]], turns: int) -> dict[str, list[float]]:
    """Processor seconds of each step in each turn, after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:
                found[name].append(time.process_time() - started)
    return found


def encoding_seconds(outputs: int, encoding: Sparse, rows: int = 64) -> float:
    """Processor seconds to encode a row of Zipf-like logits, the least of five times."""
    random = np.random.default_rng(0)
    ranks = np.argsort(random.random((rows, outputs)), axis=1) + 1
    logits = (-1.3 * np.log(ranks) + 0.3 * random.standard_normal((rows, outputs))).astype("f4")
    times = []
    for _ in range(6):
        started = time.process_time()
        encoding.encode(logits, np.arange(rows), 0)
        times.append((time.process_time() - started) / rows)
    return min(times[1:])


def _peak(name: str, sizes: list[int]) -> int:
    """Peak bytes of a process that runs one loss once, or "nothing"."""
    command = [sys.executable, "-m", "benchmarks.losses", "--alone", name, "--sizes", *map(str, sizes)]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs=4, default=[2048, 49_152, 576, 64], metavar=("Q", "C", "d", "k")
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--alone", choices=["nothing", *LOSSES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = losses(*options.sizes)
    if options.alone is not None:
        if options.alone != "nothing":
            steps[options.alone]()
        print(peak_memory())  # ru_maxrss is of the parent too
        return
    times = seconds(steps, options.turns)
    nothing = _peak("nothing", options.sizes)
    positions, outputs, width, kept = options.sizes
    print(
        f"{positions:,} positions, C = {outputs:,}, d = {width:,}, k = {kept}, {torch.get_num_threads()} threads\n"
    )
    print("| loss | seconds | of plain | peak MiB |")
    print("| --- | --- | --- | --- |")
    for name in LOSSES:
        ratio = np.median(np.divide(times[name], times["plain"]))
        peak = (_peak(name, options.sizes) - nothing) / 2**20
        print(f"| {name} | {np.median(times[name]):.2f} | {ratio:.2f} | {peak:,.0f} |")
    print()
    for encoding in (Sparse(kept), Sparse(0, draws=kept // 2)):
        print(f"to encode a row as {encoding.name}: {1e3 * encoding_seconds(outputs, encoding):.2f} ms")


if __name__ == "__main__":
    main()
