"""The images below a folder: by their endings, whatever the folders; what is left out is counted."""

from __future__ import annotations

import functools
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

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
HIDDEN = "hidden"
"""Why a file is left out whose name begins with a point."""
_CIRCLE = "links to a folder that they lie in"
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


def is_litter(name: str) -> bool:
    """Whether a file or folder is one that systems and tools leave behind.

    >>> [is_litter(name) for name in ("Thumbs.db", "._a.jpg", "__MACOSX", "a.jpg")]
    [True, True, True, False]
    """
    small = name.lower()
    return small in _LITTER or small.startswith(_LITTER_BEGINS)


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
            found.leave(path, HIDDEN)
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
