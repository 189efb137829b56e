"""Where the texts of a recipe come from: one corpus, or a file, folder or split for each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.corpus.sources import ENDINGS, Source
from decant.pipeline.data.hugging_face import is_hugging_face, load_parts
from decant.pipeline.errors import DataError

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
    """The texts of each part. Where `root` has a part called train, what networks are measured on is a part too, `test`
    unless `data.test` names another; else it is a share of the documents.

    Raises DataError, naming the setting, where there are none.
    """
    named = _named_parts(settings)
    own: dict[Part, Source] = {"train": named.get("train", settings.root)}
    if settings.root == PYTHON_TOPICS:
        own["train"] = _python_topics()
    test = settings.test or ("test" if "test" in named and settings.test_share is None else None)
    validation = settings.validation
    wanted: dict[Part, str | None] = {"test": test, "validation": validation.part if validation else None}
    for part, name in wanted.items():
        if name is None:
            continue
        if "train" not in named or name not in named:
            there = ", ".join(sorted(named)) or "none"
            raise DataError(
                f"data.{part}: {settings.root}: has no parts train and {name}, which are files "
                f"({', '.join(f'{name}{ending}' for ending in ENDINGS)}) or folders of it; it has {there}"
            )
        own[part] = named[name]
    shares: dict[Part, float] = {}
    if "test" not in own:
        shares["test"] = settings.test_share or _TEST_SHARE
    if validation is not None and validation.share is not None:
        shares["validation"] = validation.share
    return Texts(own, shares)


def _named_parts(settings: DataSettings) -> Mapping[str, Source]:
    """The parts that `root` has by name; none where it is one corpus."""
    root = settings.root
    if is_hugging_face(root) and not Path(root).exists():
        return dict(load_parts(root, "data.root"))
    folder = Path(root)
    if not folder.is_dir():
        return {}
    found: dict[str, Source] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and (path.is_dir() or path.suffix in ENDINGS):
            found.setdefault(path.stem if path.suffix in ENDINGS else path.name, path)
    return found if "train" in found else {}


def _python_topics() -> list[str]:
    """The reference texts that come with Python, which `help("topics")` lists."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            f"data.root: {PYTHON_TOPICS}: this Python comes without pydoc_data; name a file or folder of texts"
        ) from None
    return [topics[name] for name in sorted(topics)]
