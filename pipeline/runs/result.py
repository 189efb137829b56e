"""`result.json`: what a finished network is, and how good.

A run writes it last, so that a folder with a result has a finished network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, GetPydanticSchema, InstanceOf, TypeAdapter

from decant.cache.io.opening import is_file, kind
from decant.pipeline.config.settings import DataSettings
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.errors import DamagedError
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.runs.json_files import read_as, write_json
from decant.pipeline.runs.saved_recipe import has_data
from decant.pipeline.support import trust
from decant.pipeline.support.checked_json import FROM_TABLE, Amount, Whole
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import code_sha256

Kind = Literal["teacher", "labels", "distilled"]
"""A teacher, a student that is trained on labels alone, or one that is distilled from a cache."""
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
"""The file of its weights: see `saved_network.py`."""
_ORDER: tuple[Kind, ...] = ("teacher", "labels", "distilled")


def _has_name(objective: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(objective.get("name"), str):
        raise ValueError("expected a table with a name")
    return objective


@dataclass(frozen=True)
class Result:
    """A finished network."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    kind: Kind
    network: Annotated[NetworkSpec, FROM_TABLE]
    seed: Whole
    parameters: Whole
    weights_bytes: Whole
    weights_sha256: str
    metrics: Annotated[Metrics, GetPydanticSchema(lambda _, handler: handler(dict[str, float]))]
    """On the test split; empty where it was not measured, as of a trial of a sweep."""
    test_sha256: str
    """The digest of that test split; empty where it was not measured."""
    seconds: Amount
    """Of training, all interrupted calls added up."""
    objective: Annotated[dict[str, Any], AfterValidator(_has_name)] | None = None
    cache: str | None = None
    """The key of the cache that a distilled student is trained from."""
    teacher: str | None = None
    """The SHA-256 of the weights of the teacher that the cache is of; None for several teachers."""
    teachers: list[str] | None = None
    """The same for each of several teachers."""
    baseline: str | None = None
    """The name of the folder, beside this one's, of the labels-only students with the same settings."""
    latency_ms: Amount | None = None
    """Median for one input at batch size 1, in evaluation mode."""
    latency_on: str | None = None
    """The device that it was measured on."""
    classes: list[InstanceOf[str]] | None = None
    """Class names by label; None for a regression, and for runs of older versions."""
    input_dtype: str | None = None
    """Of the inputs that it takes, such as uint8 for images; None for texts, and for runs of older versions."""
    network_code: str | None = None
    """The SHA-256 of the code of a network of the user's own; None of others, and for runs of older versions."""
    code: dict[str, str] | None = None
    """The same of every function of the user's own that its recipe names, by name; None where it names none, and for
    runs of older versions. What a run names runs elsewhere only where it is that code: see `support.trust`.
    """
    validation: Annotated[Metrics, GetPydanticSchema(lambda _, handler: handler(dict[str, float]))] | None = (
        None
    )
    """Metrics on the validation part; None where the recipe has none."""
    validation_sha256: str | None = None
    """The digest of that part."""
    kept_epoch: Whole | None = None
    """The epoch whose network this is, where it was chosen by the validation part."""
    folder: Path = field(default=Path(), compare=False)

    @property
    def is_tested(self) -> bool:
        """Whether it was measured on the test part."""
        return bool(self.test_sha256)

    @property
    def any_metrics(self) -> Metrics:
        """Its metrics on the test part, or, while that was not measured, on the validation part."""
        return self.metrics if self.is_tested else self.validation or Metrics()

    @property
    def seeds_folder(self) -> Path:
        """The folder of the networks that differ in the seed alone: of a student the one above its own."""
        return self.folder if self.kind == "teacher" else self.folder.parent

    @property
    def recorded_code(self) -> dict[str, str]:
        """The digest that it recorded of each function of the user's own that it or its recipe names."""
        network = {} if self.network_code is None else {self.network.name: self.network_code}
        return {**(self.code or {}), **network}

    @property
    def has_other_code(self) -> bool:
        """Whether its network is the user's own, and the code of that is not what it was when it was trained."""
        return self.network_code is not None and self.network_code != code_sha256(self.network.name)

    def save(self) -> None:
        """Writes `result.json`, which makes the network a finished one."""
        content = asdict(self)
        del content["folder"]
        for name in ("network_code", "code", "validation", "validation_sha256", "kept_epoch"):
            if content[name] is None:
                del content[name]
        write_json(self.folder / RESULT, content)


_RESULT = TypeAdapter(Annotated[Result, FROM_TABLE])


def load_result(folder: Path) -> Result | None:
    """The finished network of a folder; None if there is none. Raises DamagedError."""
    path = folder / RESULT
    if not path.is_file():
        return None
    found = read_as(
        path, _RESULT, "it is not what a finished run writes: delete it and run the command again"
    )
    result = replace(found, folder=folder)
    trust.named_by_run(folder, [result.network.name], result.recorded_code)
    return result


def find_results(
    base: Path, data: DataSettings | None = None, *, skip_damaged: bool = False
) -> Iterator[Result]:
    """Every finished network below a run folder: teachers, labels-only students, distilled ones, each by folder and
    seed.

    `data` leaves out networks that other data settings made. Raises DamagedError, unless damaged results are skipped.
    """
    loaded = []
    for path in sorted(base.glob(f"**/{RESULT}")):
        if data is not None and not has_data(path.parent, data):
            continue
        if not is_file(path):
            say_once(f"warning: left out: {path}: {kind(path)}, where a file is expected")
            continue
        try:
            loaded.append(load_result(path.parent))
        except OSError as error:
            say_once(f"warning: left out: {error}")
        except DamagedError:
            if not skip_damaged:
                raise
    yield from in_order(result for result in loaded if result is not None)


def in_order(results: Iterable[Result]) -> tuple[Result, ...]:
    """By kind, folder and seed."""
    return tuple(sorted(results, key=lambda one: (_ORDER.index(one.kind), str(one.folder.parent), one.seed)))
