"""What a recipe of a language model may say, beside what each section checks by itself. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from decant.pipeline.config.cache_settings import CacheSettings
from decant.pipeline.config.data_settings import TOKENS, DataSettings
from decant.pipeline.config.objectives import BUILTIN, name_of
from decant.pipeline.config.sections import Section
from decant.pipeline.config.server_settings import SERVED
from decant.pipeline.config.training_settings import StudentSettings, TeacherSettings
from decant.pipeline.config.views_settings import ViewsSettings

CUT = "cut"
"""The name of a student that is made of some layers of its teacher."""
_OF_SAMPLES = {
    "class_weights": None,
    "sampler": (None, "shuffled"),
    "label_smoothing": 0.0,
    "batch_norm_ranks": None,
    "compile": False,
}
_TEMPERED = {name_of(kind) for kind in BUILTIN if "temperature" in kind.model_fields}
_OF_FILES = ("weights", "weights_key")


class Sections(Protocol):
    """The sections of a whole recipe, as `Settings` has them."""

    @property
    def data(self) -> DataSettings: ...

    @property
    def views(self) -> ViewsSettings: ...

    @property
    def teacher(self) -> TeacherSettings: ...

    @property
    def knowledge(self) -> TeacherSettings | None: ...

    @property
    def cache(self) -> CacheSettings: ...

    @property
    def student(self) -> StudentSettings: ...


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a recipe; of one of a language model with its own default for the objective, whose temperature is
    1: sparse rows know the teacher's softmax at the temperatures that are declared alone. A teacher behind a server
    needs no name of a network.

    >>> with_defaults({"data": {"name": "tokens"}, "student": {}})["student"]
    {'objective': {'name': 'kd', 'temperature': 1.0}}
    """
    data, teacher, student = (content.get(name) for name in ("data", "teacher", "student"))
    if not isinstance(data, dict) or data.get("name") != TOKENS:
        return dict(content)
    if isinstance(teacher, dict) and teacher.get("server") is not None and "network" not in teacher:
        content = {**content, "teacher": {**teacher, "network": SERVED}}
    if not isinstance(student, dict):
        return dict(content)
    objective = student.get("objective", {"name": "kd"})
    if isinstance(objective, dict) and objective.get("name") in _TEMPERED:
        objective = {"name": objective["name"], "temperature": 1.0, **objective}
    return {**content, "student": {**student, "objective": objective}}


def misfits(settings: Sections) -> Iterator[str]:
    """What a recipe says that is not for language models, or, of any other, is for them alone."""
    of_tokens = settings.data.of_tokens
    encoding = settings.cache.encoding
    sections = {"teacher": settings.teacher, "knowledge": settings.knowledge, "student": settings.student}
    if not of_tokens:
        only = 'is of a language model, data.name = "tokens"; leave it out'
        if encoding is not None and (encoding.kind in ("dense", "hidden") or encoding.views is not None):
            yield f"cache.encoding.{'views' if encoding.kind == 'sparse' else 'kind'}: {only}"
        if settings.cache.tokens_per_batch is not None:
            yield f"cache.tokens_per_batch: {only}"
        for name, section in sections.items():
            for key in ("tokens_per_batch", "server"):
                if getattr(section, key, None) is not None:
                    yield f"{name}.{key}: {only}"
        return
    instead = "is not of language models; leave it out"
    # A seed alone changes nothing.
    if settings.views.model_copy(update={"seed": 0}) != type(settings.views)():
        yield f"views: {instead}"
    if settings.knowledge is not None:
        yield f"knowledge: {instead}"
    if settings.cache.weights is not None or isinstance(settings.cache.from_, tuple):
        yield "cache.weights: a language model has one teacher; leave it out, and name one file in cache.from"
    for name, section in sections.items():
        for key, plain in _OF_SAMPLES.items() if section is not None else ():
            value = getattr(section, key)
            if value not in (plain if isinstance(plain, tuple) else (plain,)):
                yield f"{name}.{key}: {instead}"
        yield from _in_samples(name, section)
        for key in _OF_FILES:
            if getattr(section, key, None) is not None:
                yield (
                    f'{name}.{key}: a language model with its weights is network = "transformers:FOLDER"; leave it out'
                )
    yield from _in_samples("cache", settings.cache)
    if settings.teacher.classes is not None:
        yield f"teacher.classes: {instead}"
    yield from _misfits_of_served(settings)
    yield from _misfits_of_networks(settings)


def _misfits_of_served(settings: Sections) -> Iterator[str]:
    """What does not fit a teacher behind a server."""
    teacher, encoding = settings.teacher, settings.cache.encoding
    if teacher.server is None:
        if teacher.network.name == SERVED:
            yield f'teacher.network: "{SERVED}" is a model of teacher.server, which is missing'
        return
    if teacher.network.name != SERVED or teacher.network.args:
        yield "teacher.network: the teacher is the model of teacher.server; leave one of both out"
    if teacher.epochs:
        yield "teacher.epochs: the teacher is behind a server, and cannot be trained here; leave it out"
    if settings.data.tokenizer is None:
        yield "data.tokenizer: missing, and a server gives none; give the folder of the served model's, or its name"
    if settings.cache.precision != "float32":
        yield "cache.precision: a teacher behind a server computes in what its server does; leave it out"
    known = "of a teacher behind a server the likeliest tokens are known, and no others"
    if encoding is not None and encoding.kind != "sparse":
        yield f'cache.encoding.kind: {known}; set "sparse", or leave it out'
    if encoding is not None and encoding.draws is not None:
        yield f"cache.encoding.draws: {known}; leave it out"
    if encoding is not None and encoding.temperatures not in (None, (1.0,)):
        yield (
            "cache.encoding.temperatures: a server tells probabilities at T = 1, from which those of all other tokens "
            "together at another temperature do not follow; leave it out"
        )


def _in_samples(name: str, section: Section | None) -> Iterator[str]:
    """A batch size, which nothing of a language model would look at."""
    usual = None if section is None else type(section).model_fields["batch_size"].default
    if getattr(section, "batch_size", None) != usual:
        yield f"{name}.batch_size: counts samples, and a batch of a language model is tokens_per_batch; leave it out"


def _misfits_of_networks(settings: Sections) -> Iterator[str]:
    teacher, student = settings.teacher.network, settings.student.network
    for name, network in (("teacher", teacher), ("student", student)):
        if ":" in network.name and not network.name.startswith("transformers:"):
            yield (
                f"{name}.network: a language model is transformers:NAME, or a kind of the transformers library, as "
                f'{{ name = "llama", hidden_size = 64 }}; found {network.name!r}'
            )
    if teacher.name == CUT:
        yield 'teacher.network: "cut" is a student, of layers of its teacher'
    if student.name == CUT and settings.teacher.server is not None:
        yield (
            'student.network: "cut" is made of its teacher\'s layers, which are behind a server; give '
            "transformers:NAME, or a kind with fresh weights"
        )
    layers = student.args.get("layers")
    if student.name == CUT and not (
        isinstance(layers, list) and layers and all(type(layer) is int and layer >= 0 for layer in layers)
    ):
        yield f"student.network.layers: expected numbers of the teacher's layers from 0, as [0, 2], found {layers!r}"
    if settings.data.tokenizer is None and not teacher.name.startswith("transformers:"):
        yield (
            'data.tokenizer: missing, and a teacher with fresh weights has none; give a folder, "bytes", or '
            '"bpe:SIZE"'
        )
