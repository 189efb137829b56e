"""A language model's student: its steps from a cache against those on labels, its epoch against a live teacher's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from benchmarks.caching import synchronize
from benchmarks.conditions import Conditions
from benchmarks.language_models import SMALL, Shape, device_here, llama, random_texts, untrained
from benchmarks.language_phase_one import forward
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import medians
from decant import LogitCache, language
from decant.pipeline.config.objectives import KD
from decant.pipeline.config.settings import Training
from decant.pipeline.language import criteria
from decant.pipeline.language.batches import probe
from decant.pipeline.language.blocks import computed_tokens
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.training import CausalCall, TokenBatches, TokenInputs, blocks_of
from decant.pipeline.training.loading import BatchedData
from decant.pipeline.training.loop import batches_of, train_epoch
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.step import Batch, Criterion, Step
from decant.pipeline.training.token_keys import TokenKeys

_OUTPUTS = 32_768
_STUDENT = Shape(width=256, layers=4, heads=4, groups=2, outputs=_OUTPUTS)
_TEACHER = Shape(width=512, layers=8, heads=8, groups=4, outputs=_OUTPUTS)
_KD = KD(name="kd", temperature=1.0)
Changed = Callable[[Iterable[Batch]], Iterator[Batch]]
"""What becomes of the batches of an epoch before they are learnt from."""

_WAITED = 0.01
"""Of an epoch: what is not noticed."""


def against_labels(conditions: Conditions) -> Iterator[Measurement]:
    """Row 29: of each kind of cache what a step costs, and for what share of the time batches are waited for."""
    student = Student.of(conditions, conditions.choose(4_096, 256))
    repetitions = conditions.choose(7, 1)
    for kind in ("sparse", "hidden"):
        cache = student.cache(kind)
        cached = student.epoch(TokenBatches(student.samples, cache), criteria.from_cache(_KD, cache))
        labels = student.epoch(TokenBatches(student.samples), criteria.from_labels)
        seconds, others = medians(cached, labels, repetitions=repetitions)
        what = f"a student's steps from a `{kind}` cache, {student.what}"
        details = {"seconds": seconds, "against_seconds": others, "repetitions": repetitions}
        yield Measurement(
            29, what, "the same student's steps on labels", seconds / others, Unit.TIME,
            1.05 if kind == "sparse" else None, details=details,
        )  # fmt: skip
        yield Measurement(
            29, f"waiting for batches in {what}", "all of these steps", sum(cached.waited) / sum(cached.taken),
            Unit.PART, _WAITED, details=details,
        )  # fmt: skip


def against_live(conditions: Conditions) -> Iterator[Measurement]:
    """Row 30: how much longer a live teacher's epoch takes, of what the parts alone say that it must."""
    student = Student.of(conditions, conditions.choose(2_048, 256))
    reader, hidden = student.reader, student.cache("hidden")
    cache = student.cache("sparse")
    distil = criteria.from_cache(_KD, cache)
    repetitions = conditions.choose(3, 1)
    live, cached, forwards, steps = medians(
        student.epoch(TokenBatches(student.samples), criteria.from_cache(_KD, hidden), _Live(reader)),
        student.epoch(TokenBatches(student.samples, cache), distil),
        forward(reader, student.samples, student.budget),
        student.epoch(TokenBatches(student.samples, cache), distil, _InMemory(student.device)),
        repetitions=repetitions,
    )
    gain, possible = live / cached, (forwards + steps) / steps
    yield Measurement(
        30, f"live teacher's epoch ({student.teacher}) / cached epoch, {student.what}",
        "(teacher forward + student step) / student step, in memory",
        gain / possible, Unit.SHARE, 0.95, note=f"{gain:.2f} of {possible:.2f}",
        details={"seconds": live, "cached_seconds": cached, "forward_seconds": forwards,
                 "step_seconds": steps, "repetitions": repetitions},
    )  # fmt: skip


@dataclass(frozen=True)
class Student:
    """A student's shape, its teacher, and the samples that it learns from."""

    conditions: Conditions
    samples: language.TokenSamples
    shape: Shape
    teacher: Shape
    reader: CausalModel
    """The teacher."""
    budget: int
    """Tokens of a batch, with padding."""
    device: torch.device

    @classmethod
    def of(cls, conditions: Conditions, tokens: int) -> Student:
        """Of about so many tokens, 16 times as many on a GPU. Raises LeftOut."""
        device = device_here()
        times = 16 if device.type == "cuda" and not conditions.quick else 1
        teacher = conditions.choose(_TEACHER, SMALL)
        network = llama(conditions, teacher).to(device)
        samples = random_texts(conditions, times * tokens, 128)
        reader = CausalModel(network, teacher.outputs)
        reader.prepare(probe(samples))
        shape = conditions.choose(_STUDENT, SMALL)
        return cls(conditions, samples, shape, teacher, reader, times * conditions.choose(512, 128), device)

    @property
    def what(self) -> str:
        """For the table."""
        count, precision = int(self.samples.lengths.sum()), self.settings.precision
        return (
            f"{self.shape}, {count:,} tokens in batches of {self.budget:,}, {precision} on {self.device.type}"
        )

    @property
    def settings(self) -> Training:
        """Of its training."""
        content = {"network": "llama", "epochs": 1, "optimizer": "adamw", "lr": 1e-4, "clip_norm": 1.0}
        precision = "bfloat16" if self.device.type == "cuda" else "float32"
        return Training.model_validate({**content, "precision": precision, "tokens_per_batch": self.budget})

    def cache(self, kind: str) -> LogitCache:
        """What the teacher says of the samples; found where it was made before."""
        count = int(self.samples.lengths.sum())
        with untrained():
            return language.cache_logits(
                self.reader.network,
                self.samples,
                self.conditions.folder / f"language-{kind}-{count}.h5",
                encoding="hidden" if kind == "hidden" else None,
                num_outputs=self.teacher.outputs,
                device=self.device,
                show_progress=False,
            )

    def epoch(self, data: BatchedData, criterion: Criterion, changed: Changed | None = None) -> Epoch:
        """The product's own epoch, with its order of batches and its loader; what that gives may be `changed`."""
        network = llama(self.conditions, self.shape).to(self.device)
        call = CausalCall(network, self.samples, self.shape.outputs)
        stepper = Stepper(network, make_optimizer(network, self.settings, self.device), self.settings)
        step = Step(network, criterion, stepper, self.settings, call=call, setting="tokens_per_batch")
        keys = TokenKeys(computed_tokens(self.samples), self.samples.num_positions, self.budget, 0)
        return Epoch(step, data, keys, self.device, changed)


@dataclass
class Epoch:
    """Trains for one epoch at each call."""

    step: Step
    data: BatchedData
    keys: TokenKeys
    device: torch.device
    changed: Changed | None = None
    taken: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Seconds of each epoch, and those of them in which the next batch was not there yet."""

    def __call__(self) -> float:
        """Its seconds."""
        loaded = batches_of(self.data, self.keys, lazy=False, device=self.device)()
        batches = _Waited(loaded if self.changed is None else self.changed(loaded))
        synchronize(self.device)
        started = time.perf_counter()
        train_epoch(self.step, iter(batches), self.step.settings, 0, self.keys)
        synchronize(self.device)
        self.taken.append(time.perf_counter() - started)
        self.waited.append(batches.seconds)
        return self.taken[-1]


class _Waited:
    """The same batches; counts the seconds in which they are waited for."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches, self.seconds = batches, 0.0

    def __iter__(self) -> Iterator[Batch]:
        source = iter(self._batches)
        while True:
            started = time.perf_counter()
            found = next(source, None)
            self.seconds += time.perf_counter() - started
            if found is None:
                return
            yield found


class _Live:
    """The teacher runs on every batch: its hidden states stand for those that a cache has."""

    def __init__(self, reader: CausalModel) -> None:
        self._reader = reader

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """(inputs, labels (Q,)) → (inputs, labels (Q,), hidden states (Q, d)), on the teacher's device."""
        for inputs, labels in batches:
            moved = _moved(inputs, self._reader.device)
            with torch.no_grad():
                states = self._reader.states_at(blocks_of(moved), moved["places"])
            yield moved, labels, states


class _InMemory:
    """The batches of the first epoch, again and again: they lie on a device from then on."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._held = device, list[Batch]()

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Those of the first call; of later ones none is made."""
        if self._held:
            yield from self._held
            return
        for inputs, *targets in batches:
            self._held.append((_moved(inputs, self._device), *(value.to(self._device) for value in targets)))
            yield self._held[-1]


def _moved(inputs: TokenInputs, device: torch.device) -> TokenInputs:
    for name, value in inputs.items():
        inputs[name] = value.to(device, non_blocking=True)
    return inputs
