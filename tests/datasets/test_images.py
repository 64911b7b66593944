from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_files import png, tiff
from PIL import Image, PngImagePlugin, features

from fmiqa.datasets.images import image_size, read_image
from fmiqa.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


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


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
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


def planes_of(pixels: np.ndarray) -> list[bytes]:
    return [pixels[..., channel].tobytes() for channel in range(3)]


PLANAR = {258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,)}


def test_planar_tiff(tmp_path: Path) -> None:
    tiff(tmp_path / "planar.tif", planes_of(COLOUR), PLANAR)
    assert np.array_equal(read_image(tmp_path / "planar.tif").permute(1, 2, 0), COLOUR)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (PLANAR | {266: (2,)}, "planes that Pillow does not read"),  # bits in the other order
        ({258: (8,), 262: (0,), 277: (1,), 284: (2,)}, "planes that Pillow does not read"),  # 0 is white
        ({258: (8,), 262: (1,), 277: (1,), 339: (2,)}, "not unsigned integers"),
        ({258: (8,), 262: (1,), 277: (1,), 254: (1,)}, "a reduced copy"),
        ({258: (8, 8, 8, 8), 262: (2,), 277: (4,), 338: (0,)}, "1 channels of unknown meaning"),
        ({258: (16, 16, 16), 262: (2,), 277: (3,), 284: (2,)}, "16 bits a channel in planes"),
        ({258: (16,), 262: (1,), 277: (1,), 339: (3,)}, "not unsigned integers"),
        ({258: (16,), 262: (0,), 277: (1,)}, "16 bits of grey whose 0 is white"),
        ({258: (8,), 262: (1,), 277: (1,), 259: (32773,), 317: (2,)}, "a predictor that Pillow does not undo"),
    ],
)
def test_tiff_that_pillow_would_misread(tmp_path: Path, tags: dict[int, tuple[int, ...]], words: str) -> None:
    tiff(tmp_path / "odd.tif", planes_of(COLOUR) if tags[277] == (3,) else [bytes(108 * tags[277][0])], tags)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=rf"odd\.tif: .*{words}"):
            read(tmp_path / "odd.tif")


def patched(path: Path, old: bytes, new: bytes) -> bytes:
    content = path.read_bytes()
    assert old in content
    return content.replace(old, new, 1)


def deep_files(folder: Path) -> dict[str, bytes]:
    """Files of more than 8 bits a channel, or their headers, in the formats that Pillow opens and some beside."""
    picture = folder / "picture"
    tiff(folder / "12.tif", [bytes(81)], {258: (12,), 262: (1,), 277: (1,)})
    colours = tuple(range(0, 65536, 86))[:768]
    tiff(folder / "palette.tif", [bytes(54)], {258: (8,), 262: (3,), 277: (1,), 320: colours})
    files = {name: (folder / name).read_bytes() for name in ("12.tif", "palette.tif")}
    files["big.tif"] = struct.pack("<4sHHQQ", b"II+\0", 8, 0, 16, 1) + struct.pack("<HHQQQ", 258, 3, 1, 12, 0)
    files["deep.sgi"] = struct.pack(">hBBHHHH", 474, 1, 2, 3, 9, 6, 3) + bytes(500)
    files["plain.ppm"] = b"P3\n# a comment\n9 6\n1023\n" + b"1000 " * 162
    files["deep.pgm"] = b"P5 9 6 4095\n" + bytes(108)
    files["float.pfm"] = b"PF\n9 6\n-1.0\n" + bytes(648)
    files["deep.psd"] = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 6, 9, 16, 3) + bytes(400)
    bc6h = struct.pack("<4sI", b"DDS ", 124) + bytes(68) + struct.pack("<2I4s", 32, 4, b"DX10") + bytes(40)
    files["bc6h.dds"] = bc6h + struct.pack("<5I", 95, 3, 0, 1, 0) + bytes(64)
    masks = struct.pack("<4sI", b"DDS ", 124) + bytes(68)
    files["ten.dds"] = masks + struct.pack("<8I", 32, 0x40, 0, 32, 0x3FF, 0xFFC00, 0x3FF00000, 0) + bytes(64)
    files["half.exr"] = b"\x76\x2f\x31\x01" + bytes(64)
    files["radiance.hdr"] = b"#?RADIANCE\n\n-Y 6 +X 9\n" + bytes(216)
    cards = ["SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 9", "NAXIS2  = 6", "END"]
    files["deep.fits"] = "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)
    Image.fromarray(COLOUR).save(picture, "JPEG")
    for start in (b"\xff\xc0\0\x11\x08", b"\xff\xc2\0\x11\x08"):
        if start in picture.read_bytes():
            files["twelve.jpg"] = patched(picture, start, start[:-1] + b"\x0c")
    content = png(COLOUR.astype(np.uint16))
    files["deep.ico"] = struct.pack("<3H4B2H2I", 0, 1, 1, 9, 6, 0, 0, 1, 48, len(content), 22) + content
    if features.check("jpg_2000"):
        Image.fromarray(COLOUR).save(picture, "JPEG2000")
        eight = b"\0\x03" + b"\x07\x01\x01" * 3  # three components of 8 bits
        files["deep.jp2"] = patched(picture, eight, eight.replace(b"\x07", b"\x0f"))
        files["deep.j2k"] = files["deep.jp2"][files["deep.jp2"].index(b"\xff\x4f\xff\x51") :]
    if features.check("avif"):
        Image.fromarray(COLOUR).save(picture, "AVIF")
        files["ten.avif"] = patched(picture, b"\x03\x08\x08\x08", b"\x03\x0a\x0a\x0a")
        at = picture.read_bytes().index(b"av1C") + 6
        twelve = bytearray(patched(picture, b"pixi", b"free"))
        twelve[at] |= 0x60
        files["twelve.avif"] = bytes(twelve)
    return files


def test_more_than_eight_bits_in_any_form(tmp_path: Path) -> None:
    files = deep_files(tmp_path)
    assert "twelve.jpg" in files
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_image, image_size):
            with pytest.raises(InputError, match=rf"{name}: more than 8 bits a channel"):
                read(tmp_path / name)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
def test_jpeg_2000_of_fewer_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.jp2")
    assert np.array_equal(read_image(tmp_path / "a.jp2").permute(1, 2, 0), COLOUR)
    eight = b"\0\x03" + b"\x07\x01\x01" * 3
    (tmp_path / "b.jp2").write_bytes(patched(tmp_path / "a.jp2", eight, eight.replace(b"\x07", b"\x03")))
    with pytest.raises(InputError, match=r"b\.jp2: 4 bits a channel, .* convert it to 8 bits"):
        image_size(tmp_path / "b.jp2")


def skip_unless_pillow_reads(path: Path) -> None:
    """Pillow 9.4 writes an MPO that it cannot read, and calls its own uncompressed YCbCr TIFF truncated."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        pytest.skip(f"Pillow does not read what it wrote itself: {error}")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_frames_and_pages(tmp_path: Path, kind: str) -> None:
    if kind in ("WEBP", "AVIF") and not features.check(kind.lower()):
        pytest.skip(f"Pillow without {kind}")
    frames = [Image.fromarray(np.roll(COLOUR, shift)) for shift in range(3)]
    frames[0].save(tmp_path / "three", kind, save_all=True, append_images=frames[1:])
    skip_unless_pillow_reads(tmp_path / "three")
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"three: several images in one file .*expected one.*of its own"):
            read(tmp_path / "three")
    frames[0].save(tmp_path / "one", kind, save_all=True)
    assert read_image(tmp_path / "one").shape == (3, 6, 9)


def test_a_default_image_with_one_frame_is_two(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(COLOUR, shift)) for shift in range(2)]
    frames[0].save(tmp_path / "two.png", save_all=True, default_image=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several images"):
        read_image(tmp_path / "two.png")


def test_several_images_that_pillow_does_not_count(tmp_path: Path) -> None:
    square = Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    square.save(tmp_path / "one.ico", sizes=[(32, 32)])
    assert np.array_equal(read_image(tmp_path / "one.ico").permute(1, 2, 0), square)
    square.save(tmp_path / "two.ico", sizes=[(16, 16), (32, 32)])
    square.save(tmp_path / "sizes.icns")
    page = b"P6 9 6 255\n" + COLOUR.tobytes()
    (tmp_path / "two.ppm").write_bytes(page + page)
    (tmp_path / "two.pbm").write_bytes(b"P4 9 6\n" + bytes(12) + b"P4 9 6\n" + bytes(12))
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 3", "NAXIS1  = 9", "NAXIS2  = 6", "NAXIS3  = 3", "END"]
    cube = "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)
    (tmp_path / "cube.fits").write_bytes(cube)
    square.save(tmp_path / "faces.dds")
    faces = bytearray((tmp_path / "faces.dds").read_bytes())
    faces[112:116] = struct.pack("<I", 0xFE00)
    assert read_image(tmp_path / "faces.dds").shape == (3, 32, 32)
    (tmp_path / "faces.dds").write_bytes(faces)
    for name in ("two.ico", "sizes.icns", "two.ppm", "two.pbm", "cube.fits", "faces.dds"):
        with pytest.raises(InputError, match=rf"{name}: several images"):
            image_size(tmp_path / name)
    (tmp_path / "one.ppm").write_bytes(page + b"\n")
    assert np.array_equal(read_image(tmp_path / "one.ppm").permute(1, 2, 0), COLOUR)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "TIFF deflate"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_orientation_tags(tmp_path: Path, kind: str, orientation: int, mode: str) -> None:
    path = tmp_path / "turned"
    image = Image.fromarray(COLOUR).convert(mode)
    tag = Image.Exif()
    tag[0x0112] = orientation
    if kind.startswith("TIFF"):
        if orientation not in range(1, 9):
            pytest.skip("libtiff writes no such tag")
        compression = "tiff_deflate" if kind.endswith("deflate") else "raw"
        image.save(path, "TIFF", tiffinfo={0x0112: orientation}, compression=compression)
        stored = image.convert("RGB")
    else:
        if kind in ("WEBP", "AVIF") and not features.check(kind.lower()):
            pytest.skip(f"Pillow without {kind}")
        options = {"lossless": True} if kind == "WEBP" else {}
        image.save(path, kind, exif=tag, **options)
        stored = Image.open(path).convert("RGB")  # Pillow itself turns only TIFF
    expected = TURNS.get(orientation, lambda x: x)(np.array(stored))
    assert np.array_equal(read_image(path).permute(1, 2, 0), expected)
    assert image_size(path) == expected.shape[:2]


def test_orientation_after_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(COLOUR).save(path)
    exif = b"eXIf" + tag.tobytes()[6:]
    chunk = struct.pack(">I", len(exif) - 4) + exif + struct.pack(">I", zlib.crc32(exif))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])
    assert np.array_equal(read_image(path).permute(1, 2, 0), np.rot90(COLOUR, -1))
    assert image_size(path) == (9, 6)


def test_orientation_in_xmp(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>')
    Image.fromarray(COLOUR).save(tmp_path / "xmp.png", pnginfo=text)
    assert np.array_equal(read_image(tmp_path / "xmp.png").permute(1, 2, 0), np.rot90(COLOUR))
    assert image_size(tmp_path / "xmp.png") == (9, 6)


def test_damaged_metadata_leave_the_pixels(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "odd.png", exif=b"Exif\0\0no such thing")
    assert np.array_equal(read_image(tmp_path / "odd.png").permute(1, 2, 0), COLOUR)
    assert image_size(tmp_path / "odd.png") == (6, 9)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "TIFF deflate", "GIF", "PPM"])
def test_pillows_limit_of_pixels_does_not_apply(
    tmp_path: Path, kind: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    if (kind == "GIF" and mode == "RGB") or (kind == "PPM" and mode == "P"):
        pytest.skip("the format has no such mode")
    options = {"compression": "tiff_deflate"} if kind.endswith("deflate") else {}
    image.save(tmp_path / "large", kind.split()[0], **options)
    for limit in (20, 40):  # beyond twice the limit Pillow raises an error, below that it warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert image_size(tmp_path / "large") == (6, 9)
            assert np.array_equal(read_image(tmp_path / "large").permute(1, 2, 0), image.convert("RGB"))
        assert limit == Image.MAX_IMAGE_PIXELS


def test_a_large_tiff_on_its_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "side.tif", tiffinfo={0x0112: 6})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert np.array_equal(read_image(tmp_path / "side.tif").permute(1, 2, 0), np.rot90(COLOUR, -1))


def test_the_size_of_two_hundred_megapixels(tmp_path: Path) -> None:
    (tmp_path / "large.pbm").write_bytes(b"P4 16320 12240\n")
    assert image_size(tmp_path / "large.pbm") == (12240, 16320)


def test_files_are_read_in_threads(tmp_path: Path) -> None:
    images = [RNG.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(8)]
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{i}.{'tif' if i % 2 else 'png'}")
    paths = [tmp_path / f"{i}.{'tif' if i % 2 else 'png'}" for i in range(8)] * 8
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(read_image, paths))
    assert all(np.array_equal(read[i].permute(1, 2, 0), images[i % 8]) for i in range(64))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("CMYK", "colour mode CMYK"),
        ("YCbCr", "colour mode YCbCr"),
        ("LAB", "colour mode LAB"),
        ("I", "more than 8 bits"),
        ("F", "more than 8 bits"),
    ],
)
def test_modes_that_would_lose(tmp_path: Path, mode: str, words: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "other.tif")
    skip_unless_pillow_reads(tmp_path / "other.tif")
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=rf"other\.tif: {words}"):
            read(tmp_path / "other.tif")


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_outside_a_palette(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "clear.png", transparency=image.getpixel((0, 0)))
    with pytest.raises(InputError, match="transparent pixels"):
        read_image(tmp_path / "clear.png")


def test_vector_graphics_are_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "drawing.eps")
    with pytest.raises(InputError, match=r"drawing\.eps: vector graphics.*save it as a PNG"):
        image_size(tmp_path / "drawing.eps")
