"""A picture of a few hundred bytes takes no more memory than any other: what its header declares is looked at first."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.image_decode import decode
from decant.pipeline.data.image_pixels import fit
from decant.pipeline.data.input_arrays import to_array
from decant.pipeline.errors import DataError
from tests.helpers.memory import MIB, peak_mib

MOST = 500  # MiB of a picture, whatever it says of itself
SQUARE = ViewsSettings(size=224)


def png(
    width: int, height: int, *, rows: int = 0, colour: int = 0, depth: int = 8, chunks: bytes = b""
) -> bytes:
    """A PNG that declares these sides, and holds `rows` black rows."""
    line = bytes(1 + (width * depth * (3 if colour == 2 else 1) + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compressobj(9)
    packed = b"".join(pixels.compress(line) for _ in range(rows)) + pixels.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def saved(form: str, mode: str = "RGB", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (16, 16), 1).save(content, form, **options)
    return content.getvalue()


def declares(content: bytes, place: int, code: str, *sides: int) -> bytes:
    """The file with other sides in its header."""
    packed = struct.pack(code, *sides)
    return content[:place] + packed + content[place + len(packed) :]


LINES = {"tall": (2, 100_000), "wide": (100_000, 2), "long": (100_000, 70)}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(
    "views", [SQUARE, ViewsSettings(size=224, resize=256), ViewsSettings(size=(32, 224))]
)
def test_a_line_of_pixels_is_not_scaled_before_it_is_cropped(
    name: str, views: ViewsSettings, tmp_path: Path
) -> None:
    width, height = LINES[name]
    path = tmp_path / "line.png"
    path.write_bytes(png(width, height, rows=height, depth=1))
    assert path.stat().st_size < 2000
    found: list[Any] = []
    assert peak_mib(lambda: found.append(decode(path, views))) < MOST
    assert found[0].shape == (3, 32, 224) if isinstance(views.size, tuple) else (3, 224, 224)


def test_what_is_cropped_is_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels of scaling first, as far as a float's digits go."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 301, 3)).astype(np.uint8)
    for views in (ViewsSettings(size=24), ViewsSettings(size=24, resize=31), ViewsSettings(size=(20, 33))):
        for image in (Image.fromarray(pixels), Image.fromarray(pixels.transpose(1, 0, 2).copy())):
            whole = np.asarray(fit(image, views)).astype(int)
            with monkeypatch.context() as patched:
                patched.setattr("decant.pipeline.data.image_pixels.MOST_PIXELS", 1000)
                alone = np.asarray(fit(image, views)).astype(int)
            assert whole.shape == alone.shape
            assert abs(whole - alone).max() <= 2


def test_a_pil_image_of_the_users_own_is_cropped_too() -> None:
    line = Image.new("L", (2, 100_000))
    assert peak_mib(lambda: to_array(line, SQUARE)) < MOST


DECLARED: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: png(20_000, 20_000),
    "PNG of 1 bit": lambda: png(12_000, 12_000, rows=12_000, depth=1),
    "PNG of 16 bits": lambda: png(12_000, 12_000, rows=100, depth=16),
    "PNG of one pixel a line": lambda: png(1, 80_000_000),
    "BMP": lambda: declares(saved("BMP"), 18, "<ii", 30_000, 30_000),
    "GIF": lambda: declares(saved("GIF", "P"), 6, "<HH", 65_535, 65_535),
    "TGA": lambda: declares(saved("TGA", compression="tga_rle"), 12, "<HH", 65_535, 65_535),
    "PPM": lambda: saved("PPM").replace(b"16 16", b"70000 70000"),
    "PCX": lambda: declares(saved("PCX"), 8, "<HH", 65_534, 65_534),
    "SGI": lambda: declares(saved("SGI"), 6, ">HH", 65_535, 65_535),
    "DDS": lambda: declares(saved("DDS"), 12, "<II", 70_000, 70_000),
    "QOI": lambda: declares(b"qoif" + bytes(10) + bytes(64), 4, ">II", 70_000, 70_000),
    "JPEG": lambda: saved("JPEG").replace(struct.pack(">HH", 16, 16), struct.pack(">HH", 65_500, 65_500)),
    "JPEG2000": lambda: saved("JPEG2000").replace(
        struct.pack(">II", 16, 16), struct.pack(">II", 70_000, 70_000)
    ),
    "TIFF": lambda: (
        saved("TIFF")
        .replace(struct.pack("<HHIHH", 256, 4, 1, 16, 0), struct.pack("<HHII", 256, 4, 1, 70_000))
        .replace(struct.pack("<HHIHH", 257, 4, 1, 16, 0), struct.pack("<HHII", 257, 4, 1, 70_000))
    ),
    "WEBP": lambda: (
        saved("WEBP", lossless=True)[:21]
        + struct.pack("<I", 16_383 | 16_383 << 14)
        + saved("WEBP", lossless=True)[25:]
    ),
    "XBM": lambda: b"#define a_width 70000\n#define a_height 70000\nstatic char a_bits[] = { 0x00 };\n",
    "a text chunk": lambda: png(
        16, 16, rows=16, chunks=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * MIB), 9))
    ),
    "a colour profile": lambda: png(
        16, 16, rows=16, chunks=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * MIB), 9))
    ),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_a_header_declares_is_looked_at_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(DECLARED[name]())
    assert path.stat().st_size < 2 << 20

    def read() -> None:
        with pytest.raises(
            DataError, match=r"image\.png: (.* pixels, and at most|not a readable image|out of mem)"
        ):
            decode(path, SQUARE)

    assert peak_mib(read) < MOST
