"""Image files and arrays → pixels: every kind of image, its scaling, and what is said of a broken one."""

from __future__ import annotations

import io
import platform
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data import image_decode
from decant.pipeline.data.image_decode import alike, decode, decoder, fit, resized, to_array
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


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(64))])
def test_a_palette_is_looked_up_transparent_or_not(transparency: Any, tmp_path: Path) -> None:
    palette = Image.fromarray(colours()).quantize(64)
    options = {} if transparency is None else {"transparency": transparency}
    found = decode(saved(tmp_path, palette, **options), PLAIN)
    assert np.array_equal(found, colours().transpose(2, 0, 1))


def test_a_cameras_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    found = decode(saved(tmp_path, Image.fromarray(colours()), exif=exif), PLAIN)
    assert np.array_equal(found, colours().transpose(2, 0, 1))


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
    with pytest.raises(DataError, match=r"none\.png: not a readable image"):
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


@pytest.mark.parametrize("name", ["machine", "version", "__version__"])
def test_another_library_or_machine_is_another_decoder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = decoder()
    assert f"Pillow {PIL.__version__}, jpg " in before
    assert decoder() == before
    owner = {"machine": platform, "version": PIL.features, "__version__": image_decode}[name]
    monkeypatch.setattr(owner, name, "99" if name == "__version__" else lambda *library: "99")
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
