"""Image files and arrays → pixels: every kind of image, its scaling, and what is said of a broken one."""

from __future__ import annotations

import errno
import io
import os
import platform
import tracemalloc
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.features
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data import image_decode
from decant.pipeline.data.image_decode import decode, decoder, open_image
from decant.pipeline.data.image_pixels import fit, pixels_of
from decant.pipeline.data.input_arrays import alike, resized, to_array
from decant.pipeline.errors import DataError

PLAIN = ViewsSettings()


def colours(height: int = 6, width: int = 8) -> NDArray[np.uint8]:
    """(H, W, 3) of few colours, so that a palette holds them all."""
    return np.random.default_rng(0).integers(0, 4, (height, width, 3)).astype(np.uint8) * 85


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


# Kinds of images


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tiff", "größe 日本.PNG"])
def test_a_lossless_file_is_its_pixels(name: str, tmp_path: Path) -> None:
    found = decode(saved(tmp_path, Image.fromarray(colours()), name), PLAIN)
    assert np.array_equal(found, colours().transpose(2, 0, 1))
    assert (found.dtype, found.flags["C_CONTIGUOUS"]) == (np.uint8, True)


def test_grey_images_have_three_equal_channels(tmp_path: Path) -> None:
    grey = colours()[..., 0]
    found = decode(saved(tmp_path, Image.fromarray(grey)), PLAIN)
    assert np.array_equal(found, np.stack([grey] * 3))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 5
    found = decode(saved(tmp_path, Image.fromarray(np.concatenate([colours(), alpha], axis=2))), PLAIN)
    assert np.array_equal(found, colours().transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(127, 129), (128, 128), (200, 131), (131, 300), (2048, 2048), (2049, 2048)])
def test_the_pixels_of_small_and_large_images_are_those_of_the_file(size: tuple[int, int]) -> None:
    """Which are taken apart in two ways."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = pixels_of(Image.fromarray(pixels))
    assert np.array_equal(found, pixels.transpose(2, 0, 1))
    assert (found.dtype, found.flags["C_CONTIGUOUS"], found.flags["WRITEABLE"]) == (np.uint8, True, True)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(64))])
def test_a_palette_is_looked_up_transparent_or_not(transparency: Any, tmp_path: Path) -> None:
    palette = Image.fromarray(colours()).quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    found = decode(saved(tmp_path, palette, **options), PLAIN)
    assert np.array_equal(found, colours().transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_its_orientation_says(orientation: int, name: str, tmp_path: Path) -> None:
    """As Pillow's own function turns it, whatever the format; other numbers than 1 to 8 say nothing."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(colours()).resize((24, 16), Image.Resampling.BILINEAR)
    lossless = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, smooth, name, exif=exif, **lossless)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored.convert("RGB")))
    assert expected.shape[:2] == ((24, 16) if 5 <= orientation <= 8 else (16, 24))
    assert np.array_equal(decode(path, PLAIN), expected.transpose(2, 0, 1))
    with Image.open(path) as given:
        assert np.array_equal(to_array(given, PLAIN), expected.transpose(2, 0, 1)), (
            "as a dataset of one's own"
        )


def test_a_damaged_orientation_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(colours()), exif=b"Exif\0\0MM\0*no table")
    assert np.array_equal(decode(path, PLAIN), colours().transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_said(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    for place in range(2):
        options = {"lossless": True} if kind == "WEBP" else {}
        first.save(tmp_path / f"{place}.x", kind, save_all=True, append_images=[second], **options)
        assert decode(tmp_path / f"{place}.x", PLAIN)[:, 0, 0].tolist() == [255, 0, 0]
    assert capsys.readouterr().err.count("several frames") == 1
    decode(saved(tmp_path, first), PLAIN)


def test_a_format_that_another_program_would_interpret_is_no_image(tmp_path: Path) -> None:
    saved(tmp_path, Image.new("RGB", (4, 4)), "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image \(its content is of no image format"):
        decode(tmp_path / "a.jpg", PLAIN)


def test_a_large_file_is_not_brought_into_memory_for_its_begin(tmp_path: Path) -> None:
    """One of holes alone takes no disk, and each of many threads would read it whole."""
    path = tmp_path / "holes.png"
    with open(path, "wb") as file:
        file.truncate(256 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="not a readable image"):
            decode(path, ViewsSettings())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_the_system_refuses_is_not_said_of_the_image(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (4, 4)))

    def failing(number: int) -> IO[bytes]:
        raise OSError(number, os.strerror(number), str(path))

    for number, says in [(errno.EMFILE, "that is the limit of ulimit -n"), (errno.EIO, "the disk, or")]:
        with pytest.raises(DataError) as caught:
            open_image(partial(failing, number), path)
        assert str(caught.value).startswith(f"{path}: cannot be read ({os.strerror(number)}); {says}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_what_a_file_is_instead_of_an_image_is_said(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=says):
        decode(tmp_path / "a.jpg", PLAIN)


def test_an_image_with_more_pixels_than_pillow_allows_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, Image.new("L", (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40 // 3)
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(.*pixels"):
        decode(path, PLAIN)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_one_channel_is_grey_and_three_are_colours(mode: str, tmp_path: Path) -> None:
    given = Image.fromarray(colours()).convert(mode)
    path = saved(tmp_path, given, "a.tiff")
    one, three = (decode(path, ViewsSettings(channels=channels)) for channels in (1, 3))
    assert (one.shape, three.shape) == ((1, 6, 8), (3, 6, 8))
    assert np.array_equal(three, decode(path, PLAIN)), "as without the setting"
    assert np.array_equal(one[0], np.asarray(Image.fromarray(three.transpose(1, 2, 0)).convert("L")))
    for channels, expected in ((1, one), (3, three)):
        assert np.array_equal(to_array(given, ViewsSettings(channels=channels)), expected)
        assert np.array_equal(resized(three[None], ViewsSettings(channels=channels))[0], expected)
    assert np.array_equal(resized(one[None], ViewsSettings(channels=3))[0], np.repeat(one, 3, axis=0))


def test_other_channels_than_grey_and_colours_are_not_brought_to_any() -> None:
    with pytest.raises(ValueError, match="is for grey and RGB images, found 4 channels"):
        resized(np.zeros((2, 4, 3, 3), np.uint8), ViewsSettings(channels=1))


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (40, 3), (3, 40), (5, 7), (10, 14)])
def test_a_rectangle_is_covered_and_the_middle_is_taken(shape: tuple[int, int]) -> None:
    image = Image.fromarray(colours(*shape))
    found = fit(image, ViewsSettings(size=(5, 7)))
    assert found.size == (7, 5)
    scale = max(5 / shape[0], 7 / shape[1])
    width, height = max(7, round(shape[1] * scale)), max(5, round(shape[0] * scale))
    left, top = (width - 7) // 2, (height - 5) // 2
    expected = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 7, top + 5))
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert fit(image, ViewsSettings(size=(6, 6))).size == fit(image, ViewsSettings(size=6)).size


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_whose_channels_come_last_are_refused_unless_that_is_said(dtype: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(dtype)
    if dtype == np.float32:
        with pytest.raises(ValueError, match=r"views\.channels = 1: is for images of uint8, found floats"):
            to_array(array.transpose(2, 0, 1), ViewsSettings(channels=1))
    with pytest.raises(ValueError, match=r"shape \(6, 8, 3\) seems to be \(H, W, C\).*data\.axes = \"HWC\""):
        to_array(array, PLAIN)
    assert np.array_equal(to_array(array, PLAIN, "HWC"), array.transpose(2, 0, 1))
    assert np.array_equal(to_array(array, PLAIN, "CHW"), array)
    for right in (array.transpose(2, 0, 1), array[:4], array[:, :, :2]):
        assert np.array_equal(to_array(right, PLAIN), right)


def test_sixteen_bits_that_become_nearly_black_are_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, high in (("full.png", 65_000), ("dark.png", 4_000), ("again.png", 3_000)):
        Image.fromarray(np.full((4, 4), high, np.uint16)).save(tmp_path / name)
        decode(tmp_path / name, PLAIN)
        assert ("no pixel above 4,000 of 65,535" in capsys.readouterr().err) == (name == "dark.png")


# Broken files


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp", "tiff", "gif"])
def test_a_broken_file_is_named(kind: str, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(whole, kind)
    path = tmp_path / f"broken.{kind}"
    for content in (b"", b"not an image", whole.getvalue()[: len(whole.getvalue()) // 3]):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            decode(path, PLAIN)
        assert str(caught.value).startswith(f"{path}: not a readable image (")
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: cannot be read \(No such file"):
        decode(tmp_path / "none.png", PLAIN)


# Scaling


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (50, 3), (7, 7), (1, 40), (300, 301)])
@pytest.mark.parametrize(("size", "resize"), [(7, None), (7, 9), (1, 1), (16, 16)])
def test_an_image_of_any_shape_is_brought_to_size(
    shape: tuple[int, int], size: int, resize: int | None
) -> None:
    image = Image.fromarray(colours(*shape))
    assert fit(image, ViewsSettings(size=size, resize=resize)).size == (size, size)


def test_the_shorter_side_is_scaled_and_the_middle_taken() -> None:
    image = Image.fromarray(colours(20, 30))
    expected = image.resize((15, 10), Image.Resampling.BILINEAR).crop((3, 1, 11, 9))
    assert np.array_equal(np.asarray(fit(image, ViewsSettings(size=8, resize=10))), np.asarray(expected))


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = Image.fromarray(colours(8, 8))
    assert np.array_equal(np.asarray(fit(image, ViewsSettings(size=8))), colours(8, 8))
    assert fit(image, PLAIN) is image


def test_arrays_are_scaled_as_images_are() -> None:
    views = ViewsSettings(size=5, resize=6)
    batch = np.stack([colours(9, 8).transpose(2, 0, 1), colours(9, 8).transpose(2, 0, 1)[::-1]])
    found = resized(batch, views)
    assert found.shape == (2, 3, 5, 5)
    for ours, image in zip(found, batch, strict=True):
        expected = np.asarray(fit(Image.fromarray(image.transpose(1, 2, 0)), views)).transpose(2, 0, 1)
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_arrays_of_any_channel_count_are_scaled_channel_by_channel(channels: int) -> None:
    views = ViewsSettings(size=4)
    batch = np.random.default_rng(0).integers(0, 256, (3, channels, 9, 1)).astype(np.uint8)
    found = resized(batch, views)
    assert found.shape == (3, channels, 4, 4)
    assert np.array_equal(found[:, :1], resized(batch[:, :1], views))


@pytest.mark.parametrize("name", ["machine", "version", "__version__", "DECODING"])
def test_another_library_or_machine_is_another_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = decoder()
    assert f"Pillow {PIL.__version__}, jpg " in before
    assert decoder() == before
    owner = {"machine": platform, "version": PIL.features}.get(name, image_decode)
    monkeypatch.setattr(owner, name, (lambda *library: "99") if owner is not image_decode else "99")
    assert decoder() != before


# Whatever a person's dataset gives


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_an_image_in_memory_is_grey_or_rgb(mode: str, channels: int) -> None:
    given = Image.fromarray(colours()).convert(mode)
    found = to_array(given, PLAIN)
    expected = np.asarray(given.convert("L" if channels == 1 else "RGB")).reshape(6, 8, channels)
    assert np.array_equal(found, expected.transpose(2, 0, 1))
    assert found.max() > 200, "not the palette's places, nor 0 and 1"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_float32_of_any_shape_and_never_scaled(dtype: Any) -> None:
    values = np.linspace(-1, 1, 48).reshape(3, 4, 4).astype(dtype)
    for given in (values, torch.from_numpy(values)):
        found = to_array(given, ViewsSettings(size=2))
        assert found.dtype == np.float32
        assert np.array_equal(found, values.astype(np.float32))


def test_uint8_arrays_and_tensors_are_images() -> None:
    pixels = colours().transpose(2, 0, 1)
    for given in (pixels, torch.from_numpy(pixels)):
        assert np.array_equal(to_array(given, PLAIN), pixels)
        assert to_array(given, ViewsSettings(size=4)).shape == (3, 4, 4)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, "U1"])
def test_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="inputs must be images, uint8 or float arrays, found"):
        to_array(np.zeros((3, 4, 4), dtype), PLAIN)


def test_inputs_unlike_the_first_are_named_with_both_shapes() -> None:
    first = np.zeros((3, 4, 4), np.uint8)
    assert alike(first.copy(), first, "b.png") is not first
    with pytest.raises(DataError) as caught:
        alike(np.zeros((3, 5, 4), np.uint8), first, "b.png")
    assert str(caught.value).startswith("b.png: uint8 (3, 5, 4), where the first is uint8 (3, 4, 4)")
    assert "views.size" in str(caught.value)
    with pytest.raises(DataError, match="float32"):
        alike(first.astype(np.float32), first, "b.png")


def test_sixteen_bits_become_eight_and_are_not_cut_off(tmp_path: Path) -> None:
    deep = np.arange(900, dtype=np.uint16).reshape(30, 30) * 72
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(decode(tmp_path / "deep.png", ViewsSettings())[0], deep >> 8)
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(DataError, match=r"floats\.tiff: .*floats"):
        decode(tmp_path / "floats.tiff", ViewsSettings())
