"""What a sweep varies: settings with their values, as `--over` says them. Imports nothing heavy."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decant.cache.io.redaction import redacted
from decant.pipeline.config.recipe import Recipe, overridden
from decant.pipeline.errors import RecipeError
from decant.pipeline.runs.saved_recipe import LOGGING_ONLY

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")
_MOST_COMBINATIONS = 256
"""That are checked before anything runs; a trial of one that cannot be fails, and says why."""
_MOST_VALUES = 1_000
_OF_THE_NETWORK = "student.network."
"""Begins the settings whose types no recipe knows: 8..64 are whole numbers there, 0.0..1.0 are not."""
ENCODING = "cache.encoding"
"""A table of settings that ask for another cache of the same teacher."""
_OF_THE_CACHE = ("cache.from", "cache.ensemble")
_BY_THE_SWEEP = {
    "student.seed": "every trial has the recipe's",
    "student.seeds": "a trial is one student, and sweep.seeds says how many fresh ones end the sweep",
    "student.baseline": "the baseline is swept too, over its own learning rate",
}


@dataclass(frozen=True)
class Choices:
    """A setting with a list of values."""

    path: str
    values: tuple[str, ...]
    """As --set takes them."""

    def __str__(self) -> str:
        return f"{self.path}={','.join(self.shown)}"

    @property
    def shown(self) -> tuple[str, ...]:
        """The values for journals and messages: without secrets, and each another one.

        >>> Choices("cache.from", ("s3://a/x.h5?sig=0f", "s3://a/x.h5?sig=1e", "y.h5")).shown
        ('s3://a/x.h5?sig=***', 's3://a/x.h5?sig=*** (2)', 'y.h5')
        """
        texts = [redacted(value) for value in self.values]
        before = [texts[:place].count(text) for place, text in enumerate(texts)]
        return tuple(
            f"{text} ({count + 1})" if count else text for text, count in zip(texts, before, strict=True)
        )

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to be checked."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A setting with every number between two, both included."""

    path: str
    low: float
    high: float
    log: bool = False
    """Whether every magnitude is drawn as often as any other."""
    whole: bool = False
    """Whether whole numbers alone are drawn."""

    def __str__(self) -> str:
        point = ".0" if self.path.startswith(_OF_THE_NETWORK) and not self.whole else ""
        low, high = (f"{end:g}{point if end.is_integer() else ''}" for end in (self.low, self.high))
        return f"{self.path}={'log:' if self.log else ''}{low}..{high}"

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to be checked: the smallest and the largest."""
        return self.text(self.low), self.text(self.high)

    def text(self, value: float) -> str:
        """A number as --set takes it: to four digits, which a command can repeat."""
        return str(round(value)) if self.whole else f"{value:.4g}"


Setting = Choices | Range


def parse_over(text: str) -> Setting:
    """A setting from `section.key=a,b,c`, `section.key=A..B` or `section.key=log:A..B`. Raises RecipeError.

    >>> parse_over("student.objective.temperature=1,2,4")
    Choices(path='student.objective.temperature', values=('1', '2', '4'))
    >>> parse_over("student.lr=log:0.01..0.3")
    Range(path='student.lr', low=0.01, high=0.3, log=True, whole=False)
    """
    path, equals, said = (part.strip() for part in text.partition("="))
    if not equals or "." not in path:
        raise RecipeError(f"--over {text}: expected section.key=VALUES, as in student.lr=log:0.01..0.3")
    _check_path(path)
    found = _RANGE.fullmatch(said)
    if found is not None:
        return _range(path, found)
    if said.startswith("log:") or re.fullmatch(r"[^\[{\"',]*\.\.[^\[{\"',]*", said):
        raise RecipeError(f"--over {text}: expected two numbers, as in log:0.01..0.3 or 1..8")
    values = [value.strip() for value in _split(said)]
    if not all(values) or len(values) < 2:
        raise RecipeError(
            f"--over {path}: {len(list(filter(None, values)))} value; a choice is of two or more, a,b"
        )
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise RecipeError(f"--over {path}: {twice} is there twice")
    if len(values) > _MOST_VALUES:
        raise RecipeError(f"--over {path}: {len(values):,} values; give a range, as 1..{len(values)}")
    return Choices(path, tuple(values))


def parse_space(over: Sequence[str], recipe: Recipe) -> tuple[Setting, ...]:
    """What is varied, checked against a recipe: every value is one that its setting takes. Raises RecipeError, naming
    what is wrong, before anything runs.
    """
    settings = [parse_over(text) for text in over]
    for setting in settings:
        if setting.path.startswith(ENCODING) and not recipe.settings.data.of_tokens:
            raise _other_cache(setting.path)
        if setting.path.startswith(ENCODING) and isinstance(setting, Range):
            raise RecipeError(
                f"--over {setting}: each value is a cache of its own; give the values, as {setting.path}=a,b,c"
            )
    paths = [setting.path for setting in settings]
    for path in paths:
        if paths.count(path) > 1:
            raise RecipeError(f"--over {path}: is there twice")
    settings.sort(key=lambda setting: setting.path.count("."))  # a table goes before a key of it
    alone = [setting for setting in settings if not _lies_below(setting.path, paths)]
    space = tuple(_as_whole(setting, recipe) if setting in alone else setting for setting in settings)
    for setting in alone:
        for value in setting.ends:
            _check(recipe, (f"{setting.path}={value}",))
    combinations = itertools.product(*(setting.ends for setting in space))
    for values in itertools.islice(combinations, _MOST_COMBINATIONS):
        _check(recipe, overrides_of(space, values))
    return space


def overrides_of(space: Sequence[Setting], values: Sequence[str]) -> tuple[str, ...]:
    """One value of each setting, as --set takes them.

    >>> overrides_of([parse_over("student.lr=0.1,0.2")], ["0.2"])
    ('student.lr=0.2',)
    """
    return tuple(f"{setting.path}={value}" for setting, value in zip(space, values, strict=True))


def grid(space: Sequence[Setting]) -> list[tuple[str, ...]]:
    """Every combination of values. Raises RecipeError for a range, which has no list of them."""
    for setting in space:
        if isinstance(setting, Range):
            raise RecipeError(
                f"--over {setting}: a grid has lists alone; give the values, as {setting.path}=a,b,c"
            )
    return list(itertools.product(*(setting.ends for setting in space)))


def _check_path(path: str) -> None:
    section, key = path.split(".")[0], path.split(".")[1]
    if path in _OF_THE_CACHE or path == ENCODING or path.startswith(f"{ENCODING}."):
        return
    if section != "student":
        raise _other_cache(path)
    if path in _BY_THE_SWEEP:
        raise RecipeError(f"--over {path}: is not varied: {_BY_THE_SWEEP[path]}")
    if key in LOGGING_ONLY:
        raise RecipeError(f"--over {path}: changes nothing that is learned; give it with --set")


def _other_cache(path: str) -> RecipeError:
    section = path.split(".")[0]
    return RecipeError(
        f"--over {path}: settings of [{section}] ask for another cache or change nothing that is learned, and the "
        "trials of a sweep share one; give settings of [student], cache.from or cache.ensemble"
    )


def _range(path: str, found: re.Match[str]) -> Range:
    low, high, log = float(found[2]), float(found[3]), bool(found[1])
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise RecipeError(f"--over {path}: {found[0]}: an empty range; the smaller number goes first")
    if log and low <= 0:
        raise RecipeError(f"--over {path}: {found[0]}: a logarithmic range begins above 0")
    return Range(path, low, high, log, whole=path.startswith(_OF_THE_NETWORK) and _is_integer(found))


def _is_integer(found: re.Match[str]) -> bool:
    """Whether both ends of a range are written without a point."""
    return all(re.fullmatch(r"[-+]?\d+", end) for end in (found[2], found[3]))


def _as_whole(setting: Setting, recipe: Recipe) -> Setting:
    """A range of whole numbers where its setting takes no others."""
    if isinstance(setting, Choices) or setting.whole:
        return setting
    if not (setting.low.is_integer() and setting.high.is_integer()):
        return setting
    try:
        overridden(recipe, [f"{setting.path}={setting.low + 0.25}"])
    except RecipeError:
        return Range(setting.path, setting.low, setting.high, setting.log, whole=True)
    return setting


def _check(recipe: Recipe, overrides: Sequence[str]) -> None:
    try:
        overridden(recipe, overrides)
    except RecipeError as error:
        raise RecipeError(redacted(f"--over {', '.join(overrides)}: {error}")) from None


def _lies_below(path: str, paths: Sequence[str]) -> bool:
    """Whether a setting is a key of a table that is varied too, so that it can be checked with that alone."""
    return any(path.startswith(f"{other}.") for other in paths)


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets and no quotes."""
    depth, quote, start = 0, "", 0
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and not depth:
            yield text[start:index]
            start = index + 1
    yield text[start:]
