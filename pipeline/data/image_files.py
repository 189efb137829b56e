"""The files of an image folder: which are read, to which class each belongs, and which are left out.

Classes, files and labels are those of torchvision's ImageFolder, but for what tools leave behind, which is no image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.data.found_images import HIDDEN, Found, images_below, is_litter
from decant.pipeline.data.part_names import listed, part_names, say_unused
from decant.pipeline.data.samples import Split
from decant.pipeline.data.spelling import hint_of_spelling
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

_LOOSE = "beside the class folders"


@dataclass(frozen=True)
class Part:
    """A part of an image folder."""

    folder: Path
    classes: tuple[str, ...]
    files: list[tuple[Path, int]]
    """Each image with its label: those of a class together, in the order of their paths."""


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


def _class_folders(folder: Path) -> tuple[tuple[str, ...], Found]:
    """The names of the class folders in the order of the alphabet, and what lies beside them."""
    classes, loose = [], Found()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.name.startswith("."):
                loose.leave(folder / entry.name, HIDDEN)
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
