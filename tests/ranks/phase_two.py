"""What ranks do together in phase two, in one job; rank 0 writes what came of it into FOLDER/ranks-N.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decant.cache import Store
from decant.pipeline.config.settings import Training
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.joined_ranks import join_ranks, training_group
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.training.data_parallel import DataParallel
from decant.pipeline.training.group import Group
from tests.helpers.small import CPU, VIEWS, recipe

TOGETHER = (*VIEWS, "student.epochs=3", 'student.parallel="batch"', "student.lr=0.005")
MLP = ("student.network=mlp", "student.batch_size=205")  # 1,437 samples are 7 batches and 2 samples
STUDENTS = {
    "kd": MLP,
    "relations": (*MLP, "student.objective=dist", "student.baseline=false"),
    "weights": (
        *MLP,
        "student.baseline=false",
        'student.class_weights="balanced"',
        "student.accumulate=3",
        "student.clip_norm=1.0",
        "student.optimizer=adamw",
        "student.lr=0.001",
        "student.average=ema",
    ),
    "dropout": (*MLP, "student.baseline=false", "student.network=tests.ranks.phase_two:dropping"),
    "norm": ("student.network=conv", "student.baseline=false", "student.batch_size=359"),
}
"""Students that all ranks train together, by the name of their folder of runs."""
BY_SEEDS = ('student.parallel="seeds"', "student.seeds=2", "student.baseline=false")
SIZES = (1, 2, 3, 7, 8)


class Dropping(nn.Module):
    """Draws random numbers for features, and for whole channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(8 * 36, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = functional.dropout2d(self.convolution(inputs), 0.2, self.training)
        return self.head(functional.dropout(maps.flatten(1), 0.3, self.training))


def dropping(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A network of a user's own, with layers that no step reaches."""
    return Dropping(num_classes)


def plan(folder: Path, ranks: int, name: str, *more: str) -> Plan:
    """Of the students of one name; the cache is given."""
    (cache,) = (folder / "caches").glob("*.h5")
    settings = (*TOGETHER, *STUDENTS[name], f"cache.from={cache}", *more)
    return Plan.of(recipe(*settings), folder / f"ranks-{ranks}" / name, Store(folder / "caches"))


def students(folder: Path, ranks: int, name: str, *more: str) -> dict[str, Any]:
    """The folder and the metrics of each student, by its kind."""
    return {
        result.kind: {"folder": str(result.folder), **result.metrics}
        for result, _ in train_students(plan(folder, ranks, name, *more), CPU)
    }


class Normed(nn.Module):
    """Batch normalisation with a feature and with images, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
        )
        self.norm = nn.BatchNorm1d(3, affine=False)
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.layers(inputs))  # type: ignore[no-any-return]


def normalised(group: Group, size: int) -> list[list[float]]:
    """Gradients and buffers after a step of a network with batch normalisation, of a batch of `size` samples."""
    torch.manual_seed(0)
    network, inputs = Normed(), torch.randn(size, 1, 4, 4, dtype=torch.float64)
    weights = torch.randn(size, 3, dtype=torch.float64)

    def loss(outputs: Tensor, weights: Tensor) -> Tensor:
        return (outputs * weights).sum() + (outputs[0] * outputs[-1]).sum()

    if group.count == 1:
        loss(network(inputs), weights).backward()
    else:
        settings = Training.model_validate({"network": "linear", "epochs": 1})
        rows, parallel = group.rows(size), DataParallel(network, settings, group)
        with parallel.adding_up(True):
            with parallel.forward(size):
                own = parallel.network(inputs[rows])
            outputs, (everyones,) = parallel.whole(own, [weights[rows]], size)
            (loss(outputs, everyones) * parallel.factor(size)).backward()
    found = [parameter.grad for parameter in network.parameters()] + list(network.buffers())
    return [tensor.double().flatten().tolist() for tensor in found if tensor is not None]


def gathered(group: Group) -> list[Any]:
    """Rows of several dtypes and shapes, divided and put together again."""
    found = []
    for size in SIZES:
        whole = [torch.arange(size), torch.arange(6.0 * size).reshape(size, 2, 3), torch.ones(size, 0)]
        parts = group.gather([tensor[group.rows(size)] for tensor in whole], size)
        found.append(
            [
                torch.equal(*pair) and one.dtype == pair[1].dtype
                for one, *pair in zip(whole, whole, parts, strict=True)
            ]
        )
    return found


def carry_out(folder: Path) -> None:
    """All of it."""
    first = plan(folder, 1, "kd")
    job = join_ranks(first, CPU)
    ranks = 1 if job is None else job.size
    found: dict[str, Any] = {name: students(folder, ranks, name) for name in STUDENTS}
    if ranks == 2:
        found["apart"] = students(folder, ranks, "norm", "student.batch_norm_ranks=2")
    by_seeds = Plan.of(
        plan(folder, ranks, "kd", *BY_SEEDS).recipe, folder / f"ranks-{ranks}" / "seeds", first.store
    )
    found["seeds"] = [
        (str(result.folder), made_before) for result, made_before in train_students(by_seeds, CPU)
    ]
    with training_group(job, CPU) as group:
        found["gathered"] = gathered(group)
        found["normalised"] = [normalised(group, size) for size in (3, 8)]
    measured = evaluate_runs(plan(folder, ranks, "kd"), CPU)
    found["evaluated"] = {result.kind: result.metrics for result in measured}
    if group.is_first:
        (folder / f"ranks-{ranks}.json").write_text(json.dumps(found))


def choose(folder: Path) -> None:
    """Measures a network on ranks of which one takes another figure of the same outputs, as another processor may; each
    rank writes what it has got.
    """
    from decant.pipeline.training import evaluation

    planned = plan(folder, 2, "kd")
    job = join_ranks(planned, CPU)
    assert job is not None
    data = planned.splits.test
    network = build_network(specify_network(planned.settings.student.network, data), seed=0)
    measure = evaluation.measure
    evaluation.measure = lambda *of: {**measure(*of), "top1": float(job.rank)}  # type: ignore[assignment, typeddict-item]
    with training_group(job, CPU) as group:
        found = evaluation.evaluate(network, data, CPU, group=group)
    (folder / f"chosen-by-{job.rank}.json").write_text(json.dumps(found))
