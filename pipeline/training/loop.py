"""The one training loop and the one evaluation, for teacher, baseline and student alike."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.pipeline.config.settings import Training
from decant.pipeline.errors import DamagedError, DeviceError
from decant.pipeline.objectives import Terms
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import ahead
from decant.pipeline.training.device import to_device
from decant.pipeline.training.epoch_log import append_epoch, keep_epochs
from decant.pipeline.training.loading import (
    BatchedData,
    EpochViews,
    OrderedKeys,
    ShuffledKeys,
    default_workers,
    loader,
)
from decant.pipeline.training.lr_schedule import learning_rate
from decant.pipeline.training.metrics import Metrics, measure
from decant.pipeline.training.running import RunningLoss
from decant.pipeline.views import ViewedData

Criterion = Callable[..., Tensor | Terms]
"""(outputs (B, C), *what the dataset yields after the input, progress=share of the training done) → loss, or loss with
its hard and soft terms.
"""

CHECKPOINT = "checkpoint.pt"


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first of cuda, mps and cpu that is there. Raises DeviceError for one that is not."""
    if name != "auto":
        return _device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1).cpu()  # a name is no device yet
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(f"--device {name}: cannot be used here ({reason}); try auto or cpu") from None
    return device


def train(
    network: nn.Module,
    data: BatchedData,
    criterion: Criterion,
    settings: Training,
    folder: Path,
    *,
    views: EpochViews,
    evaluate_on: Callable[[nn.Module], Metrics],
    device: torch.device,
    lazy: bool = False,
    description: str = "training",
) -> None:
    """Trains `network` in place, from `folder`'s checkpoint when there is one.

    Leaves a checkpoint after every epoch and a line of metrics.jsonl each. Order, views, rate and random
    state are functions of (seed, epoch, step) alone, so that a run that was killed ends with the same weights
    as one that was not (on a CPU, bit for bit).
    """
    network.to(device)
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, settings, device)
    stepped = cast("nn.Module", torch.compile(network, dynamic=False)) if settings.compile else network
    keys = ShuffledKeys(len(data), settings.batch_size, settings.seed, views)
    first = _resume(network, optimizer, folder)
    workers = default_workers(lazy)
    batches = loader(data, keys, workers, pin_memory=device.type == "cuda" and workers > 0)
    beside = device.type == "cuda" and not workers  # a processor has the arithmetic to do already
    with progress(description, settings.epochs * len(keys)) as advance:
        advance(first * len(keys))
        for epoch in range(first, settings.epochs):
            started = time.perf_counter()
            keys.epoch = epoch
            torch.manual_seed(settings.seed + 1_000_003 * epoch)
            running = RunningLoss(epoch + 1, settings.log_every)
            losses = _train_epoch(
                stepped,
                _counted(ahead(batches) if beside else batches, advance),
                criterion,
                optimizer,
                settings,
                epoch,
                len(keys),
                running,
            )
            line: dict[str, Any] = {
                "epoch": epoch + 1,
                **losses,
                "seconds": time.perf_counter() - started,
            }
            line["lr"] = optimizer.param_groups[0]["lr"]
            if running.lines:
                line["running"] = running.lines
            if (epoch + 1) % settings.evaluate_every == 0 or epoch + 1 == settings.epochs:
                line["test"] = evaluate_on(network)
            _save_epoch(folder, network, optimizer, epoch + 1, line)


def make_optimizer(network: nn.Module, settings: Training, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser by name; its fused form where the device has one."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = device.type in ("cpu", "cuda")
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, momentum=settings.momentum, nesterov=settings.nesterov, **common
            )
        case "adam":
            return torch.optim.Adam(parameters, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, **common)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where the recipe says so, else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.inference_mode()
def predict(
    network: nn.Module,
    data: ViewedData,
    device: torch.device,
    precision: str = "float32",
    batch_size: int = 512,
) -> Tensor:
    """(N, C) float32 logits of every sample's view 0, in order, with the network in evaluation mode."""
    network.eval()
    batches = loader(data, OrderedKeys(len(data), batch_size), default_workers(data.data.lazy))
    with autocast(device, precision):
        outputs = [network(to_device(inputs, device)).float().cpu() for inputs, _ in batches]
    return torch.cat(outputs)


def evaluate(
    network: nn.Module,
    data: ViewedData,
    device: torch.device,
    precision: str = "float32",
    teacher_logits: Tensor | None = None,
) -> Metrics:
    """The metrics of a network on data as they are (view 0 of unaugmented settings)."""
    logits = predict(network, data, device, precision)
    return measure(logits, torch.from_numpy(data.data.labels), teacher_logits)


def _train_epoch(
    network: nn.Module,
    batches: Iterator[tuple[Any, ...]],
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    settings: Training,
    epoch: int,
    steps: int,
    running: RunningLoss | None = None,
) -> dict[str, float]:
    """One pass over the batches; the mean `loss` of its samples, and the means of `hard` and `soft` where the criterion
    tells them.
    """
    network.train()
    device = next(network.parameters()).device
    totals, count, started = dict[str, Tensor](), 0, time.perf_counter()
    for step, (inputs, *targets) in enumerate(batches, start=epoch * steps):
        rate = learning_rate(step, steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = to_device(inputs, device, settings.channels_last)
        targets = [value.to(device, non_blocking=True) for value in targets]
        with autocast(device, settings.precision):
            outputs = network(inputs)
        found = criterion(outputs, *targets, progress=step / (settings.epochs * steps))
        terms = found if isinstance(found, Terms) else Terms(found)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        optimizer.step()
        if settings.compile and step == 0:
            waited = time.perf_counter() - started
            print(
                f"torch.compile: the first step took {waited:,.1f} s, which later ones have to make up for",
                flush=True,
            )
        for name, term in zip(("loss", "hard", "soft"), terms, strict=True):
            if term is not None:  # added up on the device: no step waits for the host
                totals[name] = totals.get(name, 0) + term.detach() * len(outputs)
        count += len(outputs)
        if running is not None:
            running.add(terms.total)
    return {name: float(total) / count for name, total in totals.items()}


def _counted(batches: Any, advance: Callable[[int], None]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        yield batch
        advance(1)


def _resume(network: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Loads the checkpoint of `folder` when there is one; the number of epochs that are done. Raises
    DamagedError.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        keep_epochs(folder, 0)
        return 0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        epoch = int(saved["epoch"])
    except Exception as error:  # what is no checkpoint ends in any error of the machine that reads it
        raise DamagedError(
            f"{path}: not a checkpoint of this network ({type(error).__name__}); delete it to begin this "
            "network anew"
        ) from error
    keep_epochs(folder, epoch)
    return epoch


def _save_epoch(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, line: dict[str, Any]
) -> None:
    """The metrics line first, then the checkpoint: a line without its checkpoint is dropped on resuming."""
    append_epoch(folder, line)
    content = io.BytesIO()  # to a file, torch words a full disk as an error of its own
    torch.save(
        {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, content
    )
    write_atomically(folder / CHECKPOINT, content.getbuffer())
