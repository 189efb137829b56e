"""The files of an image folder: which are read, to which class each belongs, and which are left out.

Classes, files and labels are those of torchvision's ImageFolder, but for what tools leave behind, which is no image.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.data.samples import Split
from decant.pipeline.data.spelling import hint_of_spelling
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

FORMATS = (
    *(
        "JPEG",
        "PNG",
        "WEBP",
        "GIF",
        "BMP",
        "TIFF",
        "PPM",
        "AVIF",
        "JPEG2000",
        "DIB",
        "TGA",
        "ICO",
        "QOI",
        "PCX",
    ),
    *("SGI", "DDS", "ICNS", "CUR", "PSD", "SUN", "MSP", "IM", "XBM", "XPM"),
)
"""The formats that are decoded. Of those that Pillow knows, the ones that another program interprets (EPS), that it
only identifies (HDF5, MPEG) and that hold measurements (FITS) are not among them.
"""

TEST_NAMES = ("test", "val", "valid", "validation")
"""The folders that networks are measured on, the first that is there."""

_LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "lost+found",
    ".ds_store",
}
_LITTER_BEGINS = (
    "._",
    ".ipynb_checkpoints",
    ".git",
    ".dvc",
    ".directory",
    ".trash",
    ".nfs",
    ".fseventsd",
    ".spotlight",
)
_HIDDEN, _LOOSE, _CIRCLE = "hidden", "beside the class folders", "links to a folder that they lie in"
_MOST_NAMED = 5


@dataclass
class Found:
    """The images below a folder, and the files that are none, by the reason."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """A message for each folder that cannot be read, and each image that is a link which leads nowhere."""

    def require_readable(self) -> None:
        """Raises DataError, naming the first of what is unreadable, and how many there are."""
        if self.unreadable:
            more = len(self.unreadable) - 1
            raise DataError(self.unreadable[0] + (f"; and {more:,} more like it" if more else ""))

    def leave(self, path: Path, reason: str) -> None:
        """Counts a file among those that are left out."""
        self.left_out.setdefault(reason, []).append(path)

    @property
    def num_left_out(self) -> int:
        return sum(map(len, self.left_out.values()))

    def say_left_out(self, folder: Path) -> None:
        """Says once how many files of a folder are no images to be read, with their endings and an example of each."""
        if not self.left_out:
            return
        by_number = sorted(self.left_out.items(), key=lambda item: (-len(item[1]), item[0]))
        words = [
            f"{len(paths):,} {reason} ({os.path.relpath(min(paths), folder)}{', …' if len(paths) > 1 else ''})"
            for reason, paths in by_number[:_MOST_NAMED]
        ]
        words += [f"{len(by_number) - _MOST_NAMED} more endings"] if len(by_number) > _MOST_NAMED else []
        whole = self.num_left_out + len(self.images)
        say_once(f"{folder}: left out {self.num_left_out:,} of {whole:,} files: {'; '.join(words)}")


@dataclass(frozen=True)
class Part:
    """A part of an image folder."""

    folder: Path
    classes: tuple[str, ...]
    files: list[tuple[Path, int]]
    """Each image with its label: those of a class together, in the order of their paths."""


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow decodes. From here on it does not warn of large images, which are
    refused before they are decoded.
    """
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The endings, in small letters, that Pillow has registered for these formats.

    >>> {".jpg", ".jfif", ".png", ".webp"} <= image_suffixes(), ".eps" in image_suffixes()
    (True, False)
    """
    formats = {*readable_formats(), "MPO"}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def images_below(folder: Path) -> Found:
    """The images in a folder and all folders in it, in the order of their paths; links are followed."""
    found = Found()
    _walk(folder, found, frozenset())
    found.images.sort(key=lambda path: path.parts)  # as paths compare, but quicker
    found.unreadable.sort()
    return found


def list_part(settings: DataSettings, split: Split) -> Part:
    """The classes and images of a part. Says what is left out. Raises DataError where there are no images, a link or
    folder cannot be read, or the classes cannot be right.
    """
    folder = part_folder(settings, split)
    classes, loose = _class_folders(folder)
    if split == "test":
        _require_the_same_classes(settings, folder, classes)
    by_class = [images_below(folder / name) for name in classes]
    for found in by_class:
        found.require_readable()
    whole = Found([path for found in by_class for path in found.images])
    for found in (loose, *by_class):
        for reason, paths in found.left_out.items():
            whole.left_out.setdefault(reason, []).extend(paths)
    whole.say_left_out(folder)
    if not whole.images:
        raise DataError(
            f"{folder}: no images in class folders (CLASS/NAME.jpg and the like){_instead(whole)}"
        )
    _require_images(folder, split, dict(zip(classes, by_class, strict=True)))
    if split == "train" and len(classes) == 1:
        raise DataError(
            f"{folder}: has one class, {classes[0]}, so there is nothing to learn{_deeper(folder, classes)}"
        )
    _say_order_of_numbers(settings, classes)
    files = [(path, label) for label, found in enumerate(by_class) for path in found.images]
    return Part(folder, classes, files)


def part_folder(settings: DataSettings, split: Split) -> Path:
    """The folder of a part; of several that could be the test part the first, which is said. Raises DataError."""
    root = Path(settings.root)
    names = part_names(settings, split)
    there = [name for name in names if (root / name).is_dir()]
    if there:
        say_unused(root, there)
        return root / there[0]
    if not root.is_dir():
        where = "" if root.is_absolute() else f" (looked for in {Path.cwd()}, the current folder)"
        raise DataError(f"data.root: no such folder: {root}{where}")
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_litter(entry.name))
    inner = next((name for name in folders if any((root / name / part).is_dir() for part in names)), None)
    hint = f"; {root / inner} has it: set data.root to that" if inner else f"; it has {listed(folders)}"
    raise DataError(f"{root}: has no folder {' or '.join(names)}{hint if folders else ''}")


def part_names(settings: DataSettings, split: Split) -> tuple[str, ...]:
    """The names that a part may have, the first that is there being taken."""
    if split != "test":
        return (split,)
    if settings.test is not None:
        return (settings.test,)
    others = [own.part for own in (settings.transfer, settings.validation) if own is not None]
    return tuple(name for name in TEST_NAMES if name not in others)


def say_unused(root: Path, there: Sequence[str]) -> None:
    """Says once which of several test parts networks are measured on, and that the others are not used."""
    if len(there) > 1:
        say_once(
            f"{root}: networks are measured on {there[0]}; {listed(there[1:])} {'is' if len(there) == 2 else 'are'} "
            f'not used (data.test = "{there[1]}" measures on that)'
        )


def is_litter(name: str) -> bool:
    """Whether a file or folder is one that systems and tools leave behind.

    >>> [is_litter(name) for name in ("Thumbs.db", "._a.jpg", "__MACOSX", "a.jpg")]
    [True, True, True, False]
    """
    small = name.lower()
    return small in _LITTER or small.startswith(_LITTER_BEGINS)


def listed(names: Iterable[str]) -> str:
    """Names in a message: the first of many.

    >>> listed("abcdefgh")
    'a, b, c, d, e, … (8)'
    """
    names = list(names)
    more = f", … ({len(names):,})" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _walk(folder: Path, found: Found, around: frozenset[tuple[int, int]]) -> None:
    """Adds what lies below `folder`, which lies in the folders `around`, each its device and inode. What vanishes
    meanwhile, or cannot be read, is noted, and the rest is read.
    """
    try:
        status = folder.stat()
        around = around | {(status.st_dev, status.st_ino)}
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_litter(entry.name):
                    _take(folder / entry.name, entry, found, around)
    except OSError as error:
        found.unreadable.append(f"{error.filename or folder}: cannot be read ({error.strerror})")


def _take(path: Path, entry: os.DirEntry[str], found: Found, around: frozenset[tuple[int, int]]) -> None:
    """Adds one entry of a folder, and what lies below it if it is a folder itself."""
    try:
        if entry.name.startswith("."):
            found.leave(path, _HIDDEN)
        elif entry.is_dir():
            inner = path.stat()
            if (inner.st_dev, inner.st_ino) in around:
                found.leave(path, _CIRCLE)
            else:
                _walk(path, found, around)
        else:
            _add(path, entry, found)
    except OSError as error:
        found.unreadable.append(f"{error.filename or path}: cannot be read ({error.strerror})")


def _add(path: Path, entry: os.DirEntry[str], found: Found) -> None:
    """Adds a file; one that is a link with an image's ending, and nothing at its end, is noted."""
    suffix = path.suffix.lower()
    if suffix not in image_suffixes():
        found.leave(path, suffix or "without an ending")
    elif entry.is_file():
        found.images.append(path)
    elif entry.is_symlink() and not path.exists():
        found.unreadable.append(f"{path}: a link that leads nowhere, to {os.readlink(path)}")
    else:
        found.leave(path, "that are no regular files")


def _class_folders(folder: Path) -> tuple[tuple[str, ...], Found]:
    """The names of the class folders in the order of the alphabet, and what lies beside them."""
    classes, loose = [], Found()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.name.startswith("."):
                loose.leave(folder / entry.name, _HIDDEN)
            elif entry.is_dir():
                classes.append(entry.name)
            else:
                loose.leave(folder / entry.name, _LOOSE)
    return tuple(sorted(classes)), loose


def _say_order_of_numbers(settings: DataSettings, classes: Sequence[str]) -> None:
    """Says once that class folders whose names are numbers are in the order of text, where that is another one."""
    if not all(name.isascii() and name.isdecimal() for name in classes):
        return
    label = next((label for label, name in enumerate(classes[1:]) if int(name) < int(classes[label])), None)
    if label is not None:
        say_once(
            f"{settings.root}: the names of the classes are numbers in the order of text, as of torchvision: "
            f"{listed(classes)}: the label of {classes[label]} is {label}; names of one length, as 01, have one order",
            about=f"order of numbers in {settings.root}",
        )


def _require_the_same_classes(settings: DataSettings, folder: Path, classes: tuple[str, ...]) -> None:
    """Raises DataError where the class folders of the test part are not those of the training part."""
    train = Path(settings.root) / "train"
    if not train.is_dir():
        return
    of_train, _ = _class_folders(train)
    missing, more = sorted({*of_train} - {*classes}), sorted({*classes} - {*of_train})
    if not missing and not more:
        return
    words = [f"{folder} has no folder for {listed(missing)}, which {train} has"] if missing else []
    words += [f"{train} has no folder for {listed(more)}, which {folder} has"] if more else []
    hint = "; an empty folder is a class of which nothing is measured" if missing and not more else ""
    hint = hint or hint_of_spelling(missing, more)
    raise DataError(
        f"{settings.name}: the train and test parts have different classes: {'; '.join(words)}{hint}"
        f"{_deeper(folder, classes) if len(classes) == 1 else ''}"
    )


def _require_images(folder: Path, split: Split, by_class: dict[str, Found]) -> None:
    """Raises DataError where a class of the training part has no image, or no class whose files are all left out.
    Says once which classes of another part have none.
    """
    without = {name: found for name, found in by_class.items() if not found.images}
    refused = {name: found for name, found in without.items() if split == "train" or found.left_out}
    if refused:
        name, found = next(iter(refused.items()))
        others = f", nor of {listed(list(refused)[1:])}" if len(refused) > 1 else ""
        reason = f"{found.num_left_out:,} files, {_endings(found)}" if found.left_out else "no file"
        raise DataError(
            f"{folder}: has no image of class {name}{others}: its folder has {reason}; add images that Pillow reads, "
            "or remove the folder"
        )
    if without:
        ending = ", of which nothing is measured" if split == "test" else ""
        say_once(f"warning: {folder}: has no image of {listed(without)}{ending}")


def _endings(found: Found) -> str:
    return " and ".join(f"{len(paths):,} {reason}" for reason, paths in sorted(found.left_out.items()))


def _instead(found: Found) -> str:
    """The end of a message: what there is where there are no images."""
    return f"; it has {found.num_left_out:,} files, {_endings(found)}" if found.left_out else ""


def _deeper(folder: Path, classes: Sequence[str]) -> str:
    """The end of a message: the folders in the one class folder, if they may be the classes."""
    inner = folder / classes[0]
    folders = sorted(
        entry.name for entry in os.scandir(inner) if entry.is_dir() and not is_litter(entry.name)
    )
    if not folders:
        return ""
    return (
        f"; {inner} has the folders {listed(folders)}: if these are the classes, move them up into {folder}"
    )
