"""Where the texts of a recipe come from: one corpus, or a file, folder or split for each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.corpus.sources import ENDINGS, Source
from decant.pipeline.data.part_names import listed
from decant.pipeline.errors import DataError
from decant.pipeline.phases.language.named_parts import TRAIN, Named, named_parts
from decant.pipeline.support.notices import say_once

Part: TypeAlias = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
PYTHON_TOPICS = "python-topics"
_TEST_SHARE = 0.1


class Texts(NamedTuple):
    """What the parts of a recipe are read from."""

    own: Mapping[Part, Source]
    """The texts of the training part, and of each other part that has texts of its own."""
    shares: Mapping[Part, float]
    """Of the other parts, the shares of the training part's documents."""


def texts_of(settings: DataSettings) -> Texts:
    """The texts of each part. Where `root` has a part called train, or as `data.train` says, what networks are measured
    on is a part too, `test` unless `data.test` names another; else it is a share of the documents. Parts that nothing
    uses are said.

    Raises DataError, naming the setting, where there are none.
    """
    if settings.root == PYTHON_TOPICS:
        return Texts({"train": _python_topics()}, _shares(settings, {"train"}))
    validation = settings.validation.part if settings.validation else None
    test = settings.test
    found = named_parts(settings.root, settings.train, (validation, test))
    if test is None and settings.test_share is None and "test" in found.parts and settings.train != "test":
        test = "test"
    train = settings.train or (TRAIN if TRAIN in found.parts else None)
    wanted: dict[Part, str | None] = {"train": train, "validation": validation, "test": test}
    _require(settings.root, found, wanted)
    own: dict[Part, Source] = {part: found.parts[name] for part, name in wanted.items() if name is not None}
    own.setdefault("train", settings.root)
    _say_unused(settings.root, found, wanted)
    return Texts(own, _shares(settings, set(own)))


def _shares(settings: DataSettings, own: set[Part]) -> dict[Part, float]:
    shares: dict[Part, float] = {}
    if "test" not in own:
        shares["test"] = settings.test_share or _TEST_SHARE
    if settings.validation is not None and settings.validation.share is not None:
        shares["validation"] = settings.validation.share
    return shares


def _require(root: str, found: Named, wanted: Mapping[Part, str | None]) -> None:
    """Raises DataError for a part that is not there, and where one would have to be the training part."""
    there = ", ".join(sorted(found.parts)) or "none"
    train = wanted["train"]
    if train is None and found.is_dataset:
        raise DataError(
            f"data.root: {root}: has the parts {there}, and none called {TRAIN}: name what networks learn from, as "
            f"data.train = {min(found.parts, key=lambda name: (TRAIN not in name, name), default='NAME')!r}"
        )
    for part, name in wanted.items():
        if name is None or (train in found.parts and name in found.parts):
            continue
        both = name if part == "train" else f"{train or TRAIN} and {name}"
        files = ", ".join(f"{name}{ending}" for ending in ENDINGS)
        of_files = "" if found.is_dataset else f". A part is a file ({files}) or a folder in it"
        raise DataError(
            f"data.{part}: {root}: has no part{'s' if both != name else ''} {both}; it has {there}{of_files}"
        )


def _say_unused(root: str, found: Named, wanted: Mapping[Part, str | None]) -> None:
    unused = sorted({*found.parts} - {*wanted.values()})
    if unused:
        one = next((name for name in unused if name.startswith(("val", "dev"))), unused[0])
        setting = "data.validation" if one.startswith(("val", "dev")) else "data.test"
        measured = wanted["test"] or "a share of it"
        say_once(
            f"{root}: {listed(unused)} {'is' if len(unused) == 1 else 'are'} not used: networks learn from "
            f"{wanted['train']} and are measured on {measured} ({setting} = {one!r} uses that)"
        )
    if found.left_out:
        say_once(
            f"{root}: {listed(found.left_out)} {'is' if len(found.left_out) == 1 else 'are'} left out: another file or "
            "folder of the same name is that part"
        )


def _python_topics() -> list[str]:
    """The reference texts that come with Python, which `help("topics")` lists."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            f"data.root: {PYTHON_TOPICS}: this Python comes without pydoc_data; name a file or folder of texts"
        ) from None
    return [topics[name] for name in sorted(topics)]
