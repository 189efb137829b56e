"""How a network is trained: the sections `[teacher]` and `[student]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from decant.pipeline.config.objectives import KD, ClassWeights, Objective
from decant.pipeline.config.sections import Count, Section
from decant.pipeline.config.server_settings import ServerSettings


class Network(BaseModel):
    """A network's name and its builder's arguments: `"resnet20"`, or `{ name = "conv", width = 8 }`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str

    @property
    def args(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.args.items())])


def _network(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


NetworkField = Annotated[Network, BeforeValidator(_network)]


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


LayerNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1, strict=False),
    BeforeValidator(_names),
]
"""Names, or one."""
_LATER = {
    "tokens_per_batch": None,
    "weights_key": None,
    "classes": None,
    "class_weights": None,
    "sampler": "shuffled",
    "accumulate": 1,
    "freeze": None,
    "cuda_graphs": True,
    "keep": "last",
    "patience": None,
    "average": None,
    "ema_decay": None,
    "swa_start": None,
    "batch_norm_ranks": None,
}
_LATER_OF_TEACHERS = {**_LATER, "server": None}
_LATER_OF_STUDENTS = {**_LATER, "weights": None}
"""Settings of training that are left out where they have this value or none."""


class Training(Section):
    """How a network is trained; the same keys in `[teacher]` and `[student]`."""

    network: NetworkField
    """A network that ships, `torchvision:NAME`, `timm:NAME`, `transformers:NAME` or `package.module:function`. Of a
    language model: `transformers:NAME` for one with its weights, from a folder, a .gguf file or the hub; a kind of the
    transformers library with fresh weights, as `{ name = "llama", hidden_size = 64, num_hidden_layers = 2 }`; or of a
    student `{ name = "cut", layers = [0, 2] }` for those layers of its teacher.
    """
    epochs: Count
    """Passes over the training part."""
    batch_size: Count = 128
    """Samples in a step."""
    tokens_per_batch: Count | None = None
    """Of a language model, in place of it: tokens in a step, with padding; None is 4,096."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """The optimizer of torch.optim."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """The learning rate that the schedule starts from; its peak for "one-cycle"."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD; Adam and AdamW do not use it."""
    nesterov: bool = False
    """Whether SGD uses Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """The `weight_decay` of the optimizer."""
    schedule: Literal["constant", "step", "cosine", "one-cycle"] = "cosine"
    """How the learning rate changes from step to step."""
    milestones: tuple[Count, ...] = ()
    """Epochs after which a step schedule multiplies the rate by `gamma`."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What a step schedule multiplies the rate by."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the rate rises linearly to `lr`; may be a fraction."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the cross-entropy with labels."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """The largest norm of all gradients together; None does not clip."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network computes in: float32, bfloat16 autocast, or float16 autocast with a gradient scaler."""
    channels_last: bool = True
    """Whether images and weights use the channels-last memory format."""
    compile: bool = False
    """torch.compile for the steps of training: a long first step, which is said, and shorter ones after it."""
    cuda_graphs: bool = True
    """Whether a GPU records a step and replays it, where network and loss are ones that ship and every step is like the
    others; a CPU never does.
    """
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the initial weights and the order of the samples."""
    evaluate_every: Count = 1
    """Epochs between measurements on the validation part, or, where there is none, on the test part, by which no epoch
    is chosen. The last is always measured.
    """
    log_every: Count | None = None
    """Steps between the mean losses that are printed, and kept in metrics.jsonl; None leaves them out."""
    class_weights: ClassWeights | None = None
    """How much a sample counts in the loss, by its class: a number for each class, or "balanced", which is N / (C · n)
    for a class with n of N samples. In a student's loss samples without a label count by the teacher's softmax.
    """
    sampler: Literal["shuffled", "balanced"] | None = None
    """"shuffled" (None is the same) has every sample once an epoch; "balanced" draws as many with replacement, every
    class as often as any other.
    """

    checkpoint_minutes: Annotated[float, Field(gt=0, exclude=True)] = 10.0
    """Minutes after which a checkpoint is written within an epoch, besides the one after each. It decides no weight, so
    resolved recipes leave it out.
    """
    checkpoint_steps: Annotated[Count | None, Field(exclude=True)] = None
    """Steps of the optimizer after which one is written too; None goes by time alone."""
    accumulate: Count = 1
    """Batches whose gradients are added up for one step of the optimizer, as if they were one batch, but for batch
    normalisation. The last step of an epoch has those that are left.
    """
    freeze: LayerNames | None = None
    """Names of modules or parameters that are not trained, as `named_modules()` has them, with all that lies inside
    them: `["features.0", "classifier.weight"]`. Their batch normalisation stays in evaluation mode.
    """
    keep: Literal["last", "best"] = "last"
    """Which epoch's network is kept: the last, or the best by the metric of the validation part, which must be given
    as `data.validation`.
    """
    patience: Count | None = None
    """Epochs without a better metric of the validation part after which the training ends; None trains all epochs."""
    average: Literal["ema", "swa"] | None = None
    """Weights that are averaged over the training, and measured and kept in place of the last ones: "ema" is a mean in
    which older steps count ever less, "swa" the mean of the epochs from `swa_start` on. Running statistics of batch
    normalisation are averaged as weights are.
    """
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """How much of "ema" stays at each step; less over the first steps. None is 0.999."""
    swa_start: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of the epochs after which "swa" begins; None is 0.75."""
    batch_norm_ranks: Annotated[int, Field(ge=2)] | None = None
    """Where several ranks train one network: None takes the statistics of batch normalisation over the whole batch,
    whatever the number of ranks, which costs two messages a layer. A number has each of so many ranks take those of its
    own samples, as plain DistributedDataParallel does; the weights are others, and the job must have so many ranks.
    """

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are left out where they change nothing, so that no older run has another name."""
        later = _LATER_OF_STUDENTS if isinstance(self, StudentSettings) else _LATER_OF_TEACHERS
        return {
            name: value
            for name, value in handler(self).items()
            if name not in later or not (value is None or value == later[name])
        }

    @property
    def chooses(self) -> bool:
        """Whether the validation part decides the weights that come of it."""
        return self.keep == "best" or self.patience is not None

    @model_validator(mode="after")
    def _averages(self) -> Training:
        for key, kind in (("ema_decay", "ema"), ("swa_start", "swa")):
            if getattr(self, key) is not None and self.average != kind:
                raise ValueError(f'{key}: is of average = "{kind}"; leave it out')
        return self

    @model_validator(mode="after")
    def _something_counts(self) -> Training:
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights: at least one must be above 0")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Training:
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError('milestones: belong to schedule = "step", which needs at least one')
        if any(milestone >= self.epochs for milestone in self.milestones):
            raise ValueError(
                f"milestones: must lie below epochs = {self.epochs}, found {list(self.milestones)}"
            )
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs: must lie below epochs = {self.epochs}, found {self.warmup_epochs}"
            )
        if self.warmup_epochs and self.schedule == "one-cycle":
            raise ValueError('warmup_epochs: schedule = "one-cycle" brings its own; leave this out')
        if self.milestones and self.warmup_epochs > min(self.milestones):
            raise ValueError(f"warmup_epochs: must end before the first milestone, {min(self.milestones)}")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum > 0):
            raise ValueError('nesterov: needs optimizer = "sgd" with momentum above 0')
        return self


OutputName = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
"""An output of a network: its column number from 0, or the name of its class."""


class TeacherSettings(Training):
    """`[teacher]`: the large network, trained here, given as a file, pretrained by its library, or behind a server."""

    server: ServerSettings | None = None
    """Of a language model: the server that has it, a table, in place of `network`."""
    weights: str | None = None
    """A file of weights to begin with: safetensors, torch.save, TorchScript, a Lightning checkpoint, an index of
    shards, or a folder of one of these. The state dict in it is found by names and shapes; averaged weights are
    preferred to raw ones. A last layer of another number of classes begins anew where `epochs` are given, and is
    refused where not. Inputs are normalised by the data's own statistics, unless `network` has the `mean` and `std`
    that the weights were trained with.
    """
    weights_key: Annotated[str, Field(min_length=1)] | None = None
    """Where in `weights` the state dict lies, as a dotted path: `"model"`, `"model_ema"`, `"model.student"`, or `"."`
    for the top. None looks for it.
    """
    epochs: Annotated[int, Field(ge=0, lt=2**31), WithJsonSchema({"type": "integer", "minimum": 0})] = 0
    """0 takes the network as its weights are."""
    at_chance: Annotated[Literal["warn", "accept"], Field(exclude=True)] = "warn"
    """Whether it is said that the teacher's top-1 is no better than chance: of one that is taken as it is on the test
    part, of any in its cache. It decides no weight, so resolved recipes leave it out.
    """
    classes: Annotated[tuple[OutputName, ...], Field(min_length=1)] | None = None
    """Which outputs of a teacher of other classes are kept, one for each class of the data, in their order: column
    numbers from 0, or the names that its library, its file or the folder of its file knows. The cache has these
    alone. None keeps all, which must then be the data's classes.
    """

    @model_validator(mode="after")
    def _keeps_each_class_once(self) -> TeacherSettings:
        if self.classes is None:
            return self
        if len({type(name) for name in self.classes}) > 1:
            raise ValueError("classes: must be column numbers, or names, not both")
        often = Counter(self.classes)
        twice = next((name for name in self.classes if often[name] > 1), None)
        if twice is not None:
            raise ValueError(
                f"classes: {twice!r} is there twice; each class of the data has an output of its own"
            )
        return self

    @model_validator(mode="after")
    def _has_place_of_weights(self) -> TeacherSettings:
        if self.weights_key is not None and self.weights is None:
            raise ValueError("weights_key: is a place in the file `weights`, which is missing")
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> TeacherSettings:
        name, args = self.network.name, self.network.args
        own = ":" in name and not name.startswith(("torchvision:", "timm:"))  # may well bring its weights
        if not (
            self.server or self.epochs or self.weights or args.get("weights") or args.get("pretrained") or own
        ):
            raise ValueError(
                "epochs: 0 leaves the network untrained; give epochs, weights or a pretrained network"
            )
        return self


class StudentSettings(Training):
    """`[student]`: the small network, trained on labels alone and from the cache."""

    objective: Objective = KD(name="kd")
    """The loss of distilled students."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """What students of both kinds begin with: a file as `teacher.weights` takes it, the folder of a finished run, or
    "teacher" for this recipe's own, whose network must then be the same but for its last layer.
    """
    weights_key: Annotated[str, Field(min_length=1)] | None = None
    """Where in `weights` the state dict lies, as `teacher.weights_key` says it."""
    seeds: Annotated[Count, Field(lt=100_000)] = 1
    """How many students of each kind, with seeds `seed`, `seed` + 1, …"""
    baseline: bool = True
    """Whether the same student is trained on labels alone too, to see what distillation gained."""
    parallel: Annotated[Literal["auto", "seeds", "batch"], Field(exclude=True)] = "auto"
    """What several ranks do: "seeds" has each train whole students, "batch" has all train one student after the other,
    each rank its samples of every batch. "auto" is "seeds" where there are at least as many students as ranks. It
    decides no weight but for rounding, so resolved recipes leave it out.
    """

    @model_validator(mode="after")
    def _has_ranks_of_batches(self) -> StudentSettings:
        if self.batch_norm_ranks is not None and self.parallel == "seeds":
            raise ValueError(
                'parallel: "seeds" has one rank a student; leave out batch_norm_ranks, or set "batch"'
            )
        return self

    @model_validator(mode="after")
    def _has_place_of_weights(self) -> StudentSettings:
        if self.weights_key is not None and self.weights is None:
            raise ValueError("weights_key: is a place in the file `weights`, which is missing")
        return self
