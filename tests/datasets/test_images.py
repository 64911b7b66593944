from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmiqa.datasets.images import image_size, read_image
from fmiqa.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def deep_png(path: Path, channels: int) -> None:
    """A 16-bit PNG by hand, as Pillow writes none in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(RNG.integers(0, 256, 9 * channels * 2, dtype=np.uint8)) for _ in range(6))
    header = struct.pack(">IIBBBBB", 9, 6, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLOUR).save(path)
    assert np.array_equal(read_image(path).permute(1, 2, 0), COLOUR)
    assert image_size(path) == (6, 9)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(GREY).save(path)
    assert np.array_equal(read_image(path), np.stack([GREY] * 3))


def test_bilevel_and_palette(tmp_path: Path) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "bilevel.png")
    assert np.array_equal(read_image(tmp_path / "bilevel.png")[2], (GREY > 99) * 255)
    image = Image.frombytes("P", (9, 6), (GREY // 4).tobytes())
    palette = RNG.integers(0, 256, (64, 3), dtype=np.uint8)
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_image(tmp_path / "palette.png").permute(1, 2, 0), palette[GREY // 4])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_passes_only_where_it_hides_nothing(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png").permute(1, 2, 0), image.convert("RGB"))
    alpha = Image.new("L", image.size, 255)
    alpha.putpixel((3, 3), 254)
    image.putalpha(alpha)
    image.save(tmp_path / "clear.png")
    with pytest.raises(InputError, match=r"clear\.png.*transparent pixels.*save it as RGB"):
        read_image(tmp_path / "clear.png")


def test_transparent_palette_colour(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(8)
    image.save(tmp_path / "clear.png", transparency=int(np.array(image)[0, 0]))
    with pytest.raises(InputError, match="transparent pixels"):
        read_image(tmp_path / "clear.png")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_sixteen_bits_are_refused(tmp_path: Path, channels: int, read: object) -> None:
    deep_png(tmp_path / "deep.png", channels)
    with pytest.raises(InputError, match=r"deep\.png: more than 8 bits.*convert it to 8 bits"):
        read(tmp_path / "deep.png")  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_grey_tiff_is_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match="more than 8 bits"):
        image_size(tmp_path / "deep.tif")


def test_deep_ppm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.ppm").write_bytes(b"P6 9 6 65535\n" + COLOUR.astype(">u2").tobytes())
    with pytest.raises(InputError, match="more than 8 bits"):
        read_image(tmp_path / "deep.ppm")


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_other_colour_spaces_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "other.tif")
    with pytest.raises(InputError, match=rf"other\.tif: colour mode {mode}.*convert it to 8-bit RGB"):
        image_size(tmp_path / "other.tif")


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    for name, words in {
        "missing.png": "no such file",
        "folder.png": "no such file",
        "empty.png": "not a readable image",
        "text.png": "not a readable image",
    }.items():
        for read in (read_image, image_size):
            with pytest.raises(InputError, match=rf"{name}: {words}"):
                read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "tif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"cut\.{suffix}: not a readable image, damaged or truncated"):
        read_image(path)
