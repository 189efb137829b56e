"""Where runs lie and what they leave: `runs/RECIPE/KIND-NETWORK-DIGEST/`, one folder for each distinct
question.

The digest covers the settings that decide a network's weights and the data that it saw. Changed settings are
another folder, so nothing is overwritten and nothing stale is found; the same settings find what was made.
`result.json` is written last and says that a network is finished.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from decant.cache.errors import Difference
from decant.cache.manifest import differences
from decant.pipeline.config.objectives import Own
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import DataSettings, TeacherSettings
from decant.pipeline.errors import DamagedError, NotMadeError
from decant.pipeline.support.files import read_json, write_atomically, write_json
from decant.pipeline.support.plugins import source_sha256
from decant.pipeline.training.metrics import Metrics

Kind = Literal["teacher", "labels", "distilled"]
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
TEST_LOGITS = "test_logits.npy"
RECIPE = "recipe.toml"
_SAID_ONLY = {"evaluate_every", "log_every", "compile"}  # how a run goes that is the same without
_NOT_DECISIVE = {*_SAID_ONLY, "seeds", "seed", "baseline"}  # or counted beside it


@dataclass(frozen=True)
class NetworkSpec:
    """All that it takes to build a network again: its name and arguments, and what goes in and out."""

    name: str
    args: dict[str, Any]
    num_classes: int
    """Or targets, of a regression."""
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        """Name and arguments, but for those of texts, which the tokenizer and the network itself bring."""
        brought = ("vocabulary", "config")
        shown = (f"{name}={value}" for name, value in self.args.items() if name not in brought)
        return " ".join([self.name, *shown])


@dataclass(frozen=True)
class Result:
    """A finished network."""

    kind: Kind
    network: NetworkSpec
    seed: int
    parameters: int
    weights_bytes: int
    weights_sha256: str
    metrics: Metrics
    """On the test part."""
    test_sha256: str
    """The digest of that test part."""
    seconds: float
    """Of training, added up over interruptions."""
    objective: dict[str, Any] | None = None
    cache: str | None = None
    """The key of the cache that a distilled student learnt from."""
    teacher: str | None = None
    """The SHA-256 of the weights of the teacher whose logits the cache holds; None of several."""
    teachers: list[str] | None = None
    """The same of each of several."""
    baseline: str | None = None
    """The folder, beside this one's, of the labels-only students that differ in nothing else."""
    latency_ms: float | None = None
    """Median of one input at batch 1, in evaluation mode."""
    latency_on: str | None = None
    """What that was measured on."""
    classes: list[str] | None = None
    """Their names by label, of a classifier; None of a regression, and of older runs."""
    input_dtype: str | None = None
    """Of what it learnt from, as uint8 of images; None of texts, and of older runs."""
    folder: Path = field(default=Path(), compare=False)

    def save(self) -> None:
        """Writes `result.json`, which makes the network a finished one."""
        content = asdict(self)
        del content["folder"]
        write_json(self.folder / RESULT, content)


def load_result(folder: Path) -> Result | None:
    """The finished network of a folder; None where none is finished. Raises DamagedError."""
    if not (folder / RESULT).is_file():
        return None
    content = read_json(folder / RESULT)
    try:
        network = content["network"]
        for name in ("input_shape", "mean", "std"):
            network[name] = tuple(network[name])
        content["network"] = NetworkSpec(**network)
        return Result(**content, folder=folder)
    except (KeyError, TypeError) as error:
        raise DamagedError(
            f"{folder / RESULT}: not what a finished run writes ({error}); delete it and run the command again"
        ) from None


def results(base: Path, data: DataSettings | None = None) -> Iterator[Result]:
    """Every finished network under a recipe's run folder, teacher first, by name and seed; with `data`, only
    those that learnt from these: one folder may hold runs of several.
    """
    found = [
        load_result(path.parent)
        for path in sorted(base.glob(f"**/{RESULT}"))
        if data is None
        or (_kept_recipe(path.parent) or {}).get("data") == data.model_dump(mode="json", exclude_none=True)
    ]
    finished = [result for result in found if result is not None]
    order = {"teacher": 0, "labels": 1, "distilled": 2}
    yield from sorted(
        finished, key=lambda result: (order[result.kind], str(result.folder.parent), result.seed)
    )


def teacher_folder(
    base: Path, settings: TeacherSettings, views: Mapping[str, Any], data: Mapping[str, Any]
) -> Path:
    """Where the teacher of these settings, views and data lies or will lie."""
    weights = None
    if settings.weights is not None:
        path = Path(settings.weights)
        weights = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    question = {
        "settings": settings.model_dump(mode="json", exclude={*_SAID_ONLY, "weights"}),
        "weights": weights,
        "views": {name: value for name, value in views.items() if name not in ("count", "enumerated")},
        "data": data,
    }
    return base / f"teacher-{plain(settings.network.name)}-{_digest(question)}"


def find_teacher(recipe: Recipe, base: Path, views: Mapping[str, Any], data: Mapping[str, Any]) -> Result:
    """The finished teacher. Raises NotMadeError, naming the command that makes it."""
    folder = teacher_folder(base, recipe.settings.teacher, views, data)
    result = load_result(folder)
    if result is None:
        state = (
            "is not finished" if folder.exists() else "has not been trained with these settings on these data"
        )
        raise NotMadeError(f"{folder}: the teacher {state}; run: {recipe.command('teacher')}")
    return result


def student_folder(base: Path, recipe: Recipe, kind: Kind, question: Mapping[str, Any]) -> Path:
    """Where students of one kind lie, a folder a seed; `question` is what they learn from."""
    settings = recipe.settings.student
    excluded = _NOT_DECISIVE | ({"objective"} if kind == "labels" else set())
    whole = {"settings": settings.model_dump(mode="json", exclude=excluded), **question}
    if kind == "distilled" and isinstance(settings.objective, Own):
        whole["objective_source"] = source_sha256(settings.objective.name)
    learnt = settings.objective.name if kind == "distilled" else "labels"
    return base / f"student-{plain(settings.network.name)}-{plain(learnt)}-{_digest(whole)}"


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """The resolved recipe beside what it made."""
    write_atomically(folder / RECIPE, recipe.to_toml().encode())


def changed_settings(recipe: Recipe, folder: Path, sections: Sequence[str]) -> list[Difference] | None:
    """Settings of `sections` in which the recipe (expected) and the one kept in a run folder (found) differ, but for
    those that decide nothing; None where the folder keeps none.
    """
    kept = _kept_recipe(folder)
    if kept is None:
        return None
    asked = recipe.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    return differences(_deciding(asked), _deciding(kept), sections)


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the settings that decide nothing of what is made."""
    said_only = {
        "teacher": _SAID_ONLY,
        "knowledge": _SAID_ONLY,
        "cache": {"batch_size", "table"},
        "student": _NOT_DECISIVE,
    }
    return {
        section: {name: value for name, value in values.items() if name not in said_only.get(section, ())}
        for section, values in content.items()
    }


def _kept_recipe(folder: Path) -> dict[str, Any] | None:
    """The resolved recipe that is kept in a run folder; None where it is not readable."""
    try:
        return tomllib.loads((folder / RECIPE).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def plain(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._+]+", "-", name).strip("-.")


def _digest(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:8]
