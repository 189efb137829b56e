"""The sections of a recipe, a frozen class each, with the range of every value. Imports nothing heavy."""

from __future__ import annotations

import math
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

from decant.pipeline.config.augmentations import Augmentation, CenterCrop, Transform
from decant.pipeline.config.objectives import KD, Builtin, ClassWeights, Objective
from decant.pipeline.config.sections import Count, Section
from decant.pipeline.config.tasks import Task


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


class TransferSettings(Section):
    """`data.transfer`: samples that the teacher is not trained on; its logits are cached for them, and students
    train on them.
    """

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the training part, held out from the teacher."""
    part: Annotated[str, Field(min_length=1)] | None = None
    """Or a part of its own: the folder of that name beside train/, or what a function of your own returns for it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Which samples the share is."""
    labels: bool = True
    """Whether labels are known there; where not, the teacher alone speaks of them."""

    @model_validator(mode="after")
    def _one_of_two(self) -> TransferSettings:
        if (self.share is None) == (self.part is None):
            raise ValueError("share: give either that, of the training part, or `part`, a part of its own")
        if self.part in ("train", "test", "val"):
            raise ValueError(f"part: {self.part!r} has another use; name a part of its own")
        return self


READ_BY_ITEM = ("hf", "webdataset", "parquet", "npy")
"""Sources in files whose items are read one by one, as those of a user's own dataset are."""


class DataSettings(Section):
    """`[data]`: which images or arrays, and where they lie."""

    name: str
    """A dataset that ships, `imagefolder`, `text`, `webdataset`, `parquet` or `npy` for files in `root`, `hf:NAME` for
    one of Hugging Face's hub (`hf:NAME:CONFIG`), `hf` for what `save_to_disk` wrote into `root`, or
    `package.module:function`.
    """
    root: str = "data"
    """Where downloads are kept, or the image folder itself."""
    pack: Annotated[Literal["auto", "always", "never"], Field(exclude=True)] = "auto"
    """Whether an image folder is decoded once, into a file beside the caches: where it fits, in any case, or
    never. It decides no pixel, so no run is another for it, and resolved recipes leave it out.
    """
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """What turns texts into tokens: the folder of a tokenizer of the transformers library, or its name on the hub."""
    max_length: Count | None = None
    """Tokens that a text is cut at; None is 128."""
    transfer: TransferSettings | None = None
    """What students learn from, where it is not what the teacher learnt from."""
    test: Annotated[str, Field(min_length=1)] | None = None
    """The part that networks are measured on: the folder's name, or what a function of your own is given as `split`.
    None is the first that is there of test, val, valid and validation; `"test"` for a function.
    """
    keys: tuple[str | int, str | int] | None = None
    """Where the input and the label lie in an item of your own dataset: `["image", "label"]` of a dictionary,
    `[0, 1]` of a longer tuple; the columns of `hf` and `parquet`, the endings of `webdataset`. None takes items that
    are (input, label), and columns and endings that can be told.
    """
    axes: Literal["CHW", "HWC"] | None = None
    """The order of the axes of arrays from your own dataset; "HWC" takes grey (H, W) too. None takes (C, H, W), and
    refuses arrays that look like (H, W, C).
    """
    task: Task | None = None
    """What the labels mean. `"binary"`: 0 or 1, of a network with one output; `"multilabel"`: a row of 0 and 1, one
    entry a class; both have a sigmoid for each output, and −1 or NaN is an unknown label. None takes integers for
    `"classification"` and floats for `"regression"`.
    """

    @model_validator(mode="after")
    def _has_tokenizer(self) -> DataSettings:
        if self.name == "text" and self.tokenizer is None:
            raise ValueError("tokenizer: missing; give the folder of one, or its name on the hub")
        for key in ("tokenizer", "max_length"):
            if self.name != "text" and getattr(self, key) is not None:
                raise ValueError(f'{key}: is of texts, name = "text"; leave it out')
        return self

    @model_validator(mode="after")
    def _has_parts(self) -> DataSettings:
        parts = self.name == "imagefolder" or self.name in READ_BY_ITEM or ":" in self.name
        if self.transfer and self.transfer.part and not parts:
            raise ValueError(f"transfer.part: {self.name} has train and test parts alone; set transfer.share")
        return self

    @model_validator(mode="after")
    def _fits_source(self) -> DataSettings:
        own = ":" in self.name or self.name in READ_BY_ITEM
        if self.test is not None and self.name not in ("imagefolder", "text") and not own:
            raise ValueError(f"test: {self.name} has one test part; leave it out")
        taken = ("train", self.transfer.part if self.transfer else None)
        if self.test is not None and self.test in taken:
            raise ValueError(f"test: {self.test!r} is what networks are trained on; name another part")
        for key, files in (("keys", ("hf", "parquet", "webdataset")), ("axes", ("hf", "npy"))):
            if ":" not in self.name and self.name not in files and getattr(self, key) is not None:
                raise ValueError(f"{key}: is of a dataset of your own, package.module:function; leave it out")
        return self


class ViewsSettings(Section):
    """`[views]`: the pixels that teacher and student both see."""

    count: Count | Literal["all"] = 1
    """V: epoch e of a student sees view e mod V. `"all"` is every outcome that pad-crop and flip can have
    (162 for padding 4), each sample drawing one an epoch, as it would before a live teacher.
    """
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Chooses the random crops, flips and colours; another seed gives other views."""
    size: Count | tuple[Count, Count] | None = None
    """Height and width that every image is brought to: one number for a square, `[H, W]` for a rectangle; None leaves
    them as they are. An image keeps its proportions: it is scaled until it covers this, and the middle is taken.
    """
    resize: Count | None = None
    """The shorter side before the centre crop to a square `size`; None is `size` itself."""
    channels: Literal[1, 3] | None = None
    """Channels that every image is brought to: 1 is grey, 3 is RGB. None leaves 3 of image files, and those that other
    data have.
    """
    augment: tuple[Augmentation, ...] = ()
    """The operations that make a view, in this order; none leaves the inputs as they are."""

    @property
    def num_views(self) -> int:
        """V as a number."""
        if self.count == "all":
            return math.prod(operation.num_outcomes or 1 for operation in self.augment)
        return self.count

    @property
    def plain(self) -> ViewsSettings:
        """What an input is measured through: its size where an operation changes it, by the crop in the middle,
        and nothing else.
        """
        sizes = [operation.output_size for operation in reversed(self.augment)]
        size = next((size for size in sizes if size is not None), None)
        crop = () if size is None else (CenterCrop(op="center-crop", size=size),)
        return self.model_copy(update={"augment": crop, "count": 1})

    @model_validator(mode="after")
    def _views_differ(self) -> ViewsSettings:
        if self.count != 1 and not self.augment:
            raise ValueError("count: views without augmentation are all the same; set augment, or count = 1")
        endless = [operation.op for operation in self.augment if operation.num_outcomes is None]
        if self.count == "all" and endless:
            raise ValueError(
                f'count: "all" counts the outcomes of pad-crop and flip; {endless[0]} has too many to count'
            )
        if self.resize is None:
            return self
        if isinstance(self.size, tuple):
            raise ValueError("resize: is of a square `size`; leave it out of a rectangle's")
        if self.size is None or self.resize < self.size:
            raise ValueError("resize: must be at least `size`, which must be given")
        return self


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


LayerNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1, strict=False),
    BeforeValidator(_names),
]
"""Names, or one."""
_LATER = {
    "weights_key": None,
    "classes": None,
    "class_weights": None,
    "sampler": "shuffled",
    "accumulate": 1,
    "freeze": None,
    "cuda_graphs": True,
}
_LATER_OF_STUDENTS = {**_LATER, "weights": None}
"""Settings of training that are left out where they have this value or none."""


class Training(Section):
    """How a network is trained; the same keys in `[teacher]` and `[student]`."""

    network: NetworkField
    """A network that ships, `torchvision:NAME`, `timm:NAME`, `transformers:NAME` or `package.module:function`."""
    epochs: Count
    """Passes over the training part."""
    batch_size: Count = 128
    """Samples in a step."""
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
    """Epochs between measurements on the test part; the last is always measured, none is chosen by it."""
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

    accumulate: Count = 1
    """Batches whose gradients are added up for one step of the optimizer, as if they were one batch, but for batch
    normalisation. The last step of an epoch has those that are left.
    """
    freeze: LayerNames | None = None
    """Names of modules or parameters that are not trained, as `named_modules()` has them, with all that lies inside
    them: `["features.0", "classifier.weight"]`. Their batch normalisation stays in evaluation mode.
    """

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are left out where they change nothing, so that no older run has another name."""
        later = _LATER_OF_STUDENTS if isinstance(self, StudentSettings) else _LATER
        return {
            name: value
            for name, value in handler(self).items()
            if name not in later or not (value is None or value == later[name])
        }

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
    """`[teacher]`: the large network, trained here, given as a file, or pretrained by its library."""

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
        if not (self.epochs or self.weights or args.get("weights") or args.get("pretrained") or own):
            raise ValueError(
                "epochs: 0 leaves the network untrained; give epochs, weights or a pretrained network"
            )
        return self


class EncodingSettings(Section):
    """`[cache.encoding]`: a compact way to store the logits."""

    kind: Literal["dense-u8", "sparse"]
    """ "dense-u8" is a byte for each logit, on a scale of its row; "sparse" is the largest logits of a row, and the
    mass of all others at each temperature that a student may use.
    """
    head: Count | None = None
    """Of sparse: how many logits of a row are kept, at most the number of classes; None is 64."""
    temperatures: (
        Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=16, strict=False)] | None
    ) = None
    """Of sparse: T at which students may learn, in rising order, with 1 among them; None is 1 alone."""

    @model_validator(mode="after")
    def _fits(self) -> EncodingSettings:
        if self.kind == "dense-u8" and (self.head is not None or self.temperatures is not None):
            raise ValueError('head: belongs to kind = "sparse", as temperatures do; leave them out')
        given = self.temperatures
        if given is not None and (list(given) != sorted(set(given)) or 1.0 not in given):
            raise ValueError(f"temperatures: must rise and have 1 among them, found {list(given)}")
        return self


def _encoding_by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class CacheSettings(Section):
    """`[cache]`: how the logits are computed and stored."""

    dtype: Literal["float16", "float32"] = "float16"
    """How the logits are stored; float16 takes half the space."""
    encoding: Annotated[EncodingSettings | None, BeforeValidator(_encoding_by_name)] = None
    """How they are stored in less: "dense-u8", "sparse", or a table as
    `{ kind = "sparse", head = 64, temperatures = [1.0, 4.0] }`. None is every logit in `dtype`.
    """
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in."""
    batch_size: Count = 256
    """Samples in a batch of the teacher's pass; it is no part of the key."""
    from_: Annotated[str | tuple[str, ...] | None, Field(alias="from", min_length=1)] = None
    """A cache file to use as it is, from a colleague say, instead of the one that this recipe's teacher
    makes; or several of the same data, whose teachers then teach together.
    """
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over several teachers: softmaxes (or sigmoids) at the objective's temperature, or logits (always
    the outputs of a regression).
    """
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """What each of several teachers counts in that mean, by its share of the sum; None is all alike."""
    table: Literal["auto", "mapped", "ram", "device"] = "auto"
    """Where a student reads the logits: the mapped file, a copy in memory, or a copy on its device, beside the
    inputs; `auto` is the device where that is a GPU and has the room, a copy in memory of what lies on a network
    mount and fits, else the file.
    """


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

    @model_validator(mode="after")
    def _has_place_of_weights(self) -> StudentSettings:
        if self.weights_key is not None and self.weights is None:
            raise ValueError("weights_key: is a place in the file `weights`, which is missing")
        return self


class Settings(Section):
    """A whole recipe."""

    data: DataSettings
    views: ViewsSettings = ViewsSettings()
    teacher: TeacherSettings
    knowledge: TeacherSettings | None = None
    """A second teacher, with a cache of its own; like the first it is not needed where cache.from is given."""
    cache: CacheSettings = CacheSettings()
    student: StudentSettings

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions and classes that it names, `package.module:name`, each once, and networks of libraries."""
        transforms = [operation.name for operation in self.views.augment if isinstance(operation, Transform)]
        networks = [
            part.network.name for part in (self.teacher, self.knowledge, self.student) if part is not None
        ]
        names = [self.data.name, *transforms, *networks, self.student.objective.name]
        return tuple(dict.fromkeys(name for name in names if ":" in name))

    @property
    def num_teachers(self) -> int:
        """How many caches a student learns from."""
        if self.cache.from_ is None:
            return 1 if self.knowledge is None else 2
        return 1 if isinstance(self.cache.from_, str) else len(self.cache.from_)

    @model_validator(mode="after")
    def _weighed_once(self) -> Settings:
        objective = self.student.objective
        if self.student.class_weights is not None and getattr(objective, "class_weights", None) is not None:
            raise ValueError(
                "student.class_weights: weighs this objective too; leave out its own class_weights"
            )
        return self

    @model_validator(mode="after")
    def _teachers_fit(self) -> Settings:
        weights = self.cache.weights
        if weights is not None and (len(weights) != self.num_teachers or self.num_teachers < 2):
            raise ValueError(
                f"cache.weights: one for each of several teachers, of which there are {self.num_teachers}, "
                f"found {len(weights)}"
            )
        if weights is not None and not sum(weights):
            raise ValueError("cache.weights: at least one must be above 0")
        if self.separate_caches and self.num_teachers != 2:
            raise ValueError(
                f"student.objective: {self.student.objective.name} learns from two teachers, found "
                f"{self.num_teachers}; give a section [knowledge], or cache.from = [TEACHER, KNOWLEDGE]"
            )
        if self.separate_caches and weights is not None:
            raise ValueError("cache.weights: nothing is averaged for this objective; set its alpha and beta")
        return self

    @property
    def separate_caches(self) -> bool:
        """Whether the objective is given the logits of each teacher, and not their mean."""
        return isinstance(self.student.objective, Builtin) and self.student.objective.separate_caches
