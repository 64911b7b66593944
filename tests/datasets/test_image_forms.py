"""Every row of the table of files in docs/guide/images.md: such a file has the pixels that the row says."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import pytest
import torch
from image_files import ADOBE_RGB, SRGB, chunk, cmyk_profile, lzw, png, profile, tiff
from PIL import Image, features

import fmiqa
from fmiqa.datasets.images import image_size
from fmiqa.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
DEEP_GREY = RNG.integers(0, 65536, (6, 9, 1), dtype=np.uint16)
DEEP_ALPHA = RNG.integers(0, 65536, (6, 9, 1), dtype=np.uint16)
RGB16 = {258: (16, 16, 16), 262: (2,), 277: (3,)}


class Form(NamedTuple):
    """A file, and the pixels (H, W, 3) that it has, or words of the error."""

    write: Callable[[Path], object]
    expected: Callable[[Path], np.ndarray] | np.ndarray | str
    off: int = 0  # levels that conversion by LittleCMS, in 15 bits and by tables, may be off
    background: str | tuple[int, int, int] | None = None
    needs: str | None = None  # Pillow's name of a decoder, or its version


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> Callable[[Path], object]:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return lambda path: image.save(path, kind, **options)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def page(data: bytes, tags: dict[int, tuple[int, ...]], order: str = "<") -> Callable[[Path], object]:
    return lambda path: tiff(path, [data], tags, order)


def as_pillow(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def thrice(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.reshape(6, 9, 1), 3, -1)


def depth(values: np.ndarray) -> np.ndarray:
    """16-bit values as float32, each rounded once."""
    return (values.astype(np.float64) / 65535).astype(np.float32)


def iccp(content: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(content))


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(values: np.ndarray) -> np.ndarray:
    """Linear values as sRGB of 8 bits."""
    values = values.clip(0, 1)
    return np.rint(255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055))


def from_adobe_rgb(pixels: np.ndarray) -> np.ndarray:
    xyz = (pixels / 255) ** (563 / 256) @ np.array(ADOBE_RGB)
    return encoded(xyz @ np.linalg.inv(np.array(SRGB)))


def of_inks(cmyk: np.ndarray) -> np.ndarray:
    """What `cmyk_profile` says: from inks to lightness, luminance and grey."""
    lightness = 100 * (1 - cmyk.mean(-1) / 255)
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return thrice(encoded(luminance))


def laid(colours: np.ndarray, alpha: np.ndarray, behind: tuple[int, int, int], most: int) -> np.ndarray:
    share = alpha.reshape(6, 9, 1) / most
    return np.rint(share * colours + (1 - share) * np.array(behind) * (most / 255))


SRGB_CURVE = tuple(int(value) for value in np.rint(65535 * linear(np.linspace(0, 1, 1024))))
SRGB_PROFILE = profile(SRGB_CURVE, SRGB)
ADOBE_PROFILE, GREY_PROFILE = profile((563,), ADOBE_RGB), profile((461,))  # exponents 2.2 and 1.8
RGBA = np.dstack([COLOUR, ALPHA])
CLEAR_GREY = GREY.copy()
CLEAR_GREY[GREY[0, 0] == CLEAR_GREY] = GREY[0, 0]
DIFFERENCES = np.diff(DEEP, axis=1, prepend=np.zeros((6, 1, 3), np.uint16))  # modulo 65536, as the predictor is
PALETTE = RNG.integers(0, 256, (64, 3), dtype=np.uint8)
INKS = np.stack([np.full((6, 9), value, np.uint8) for value in (40, 40, 40, 90)], -1)
ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6


def palette() -> Image.Image:
    image = Image.frombytes("P", (9, 6), (GREY // 4).tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


def pages() -> dict[str, object]:
    return {"save_all": True, "append_images": [Image.fromarray(np.roll(COLOUR, 1))]}


FORMS = {
    "RGB": Form(saved(COLOUR, "BMP"), COLOUR),
    "grey": Form(saved(GREY, "PNG"), thrice(GREY)),
    "bilevel": Form(saved(GREY > 99, "PNG"), thrice((GREY > 99) * np.uint8(255))),
    "palette": Form(saved(palette(), "PNG"), PALETTE[GREY // 4]),
    "JPEG": Form(saved(COLOUR, "JPEG"), as_pillow),
    "WebP": Form(saved(COLOUR, "WEBP", lossless=True), COLOUR, needs="webp"),
    "AVIF of 8 bits": Form(saved(COLOUR, "AVIF"), as_pillow, needs="avif"),
    "planar TIFF of 8 bits": Form(
        lambda path: tiff(
            path, [COLOUR[..., i].tobytes() for i in range(3)], {258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,)}
        ),
        COLOUR,
    ),
    "16-bit RGB PNG": Form(written(png(DEEP)), depth(DEEP)),
    "16-bit grey PNG": Form(written(png(DEEP_GREY)), depth(thrice(DEEP_GREY))),
    "16-bit RGB TIFF": Form(page(DEEP.astype(">u2").tobytes(), RGB16, ">"), depth(DEEP)),
    "16-bit RGB TIFF, deflate, with a predictor": Form(
        page(zlib.compress(DIFFERENCES.astype("<u2").tobytes()), {**RGB16, 259: (8,), 317: (2,)}), depth(DEEP)
    ),
    "16-bit RGB TIFF, LZW": Form(page(lzw(DEEP.astype("<u2").tobytes()), {**RGB16, 259: (5,)}), depth(DEEP)),
    "16-bit grey TIFF": Form(
        page(DEEP_GREY.astype("<u2").tobytes(), {258: (16,), 262: (1,), 277: (1,)}), depth(thrice(DEEP_GREY))
    ),
    "orientation tag": Form(written(png(DEEP, chunk(b"eXIf", ORIENTED.tobytes()[6:]))), depth(np.rot90(DEEP, -1))),
    "sRGB profile": Form(saved(COLOUR, "PNG", icc_profile=SRGB_PROFILE), COLOUR),
    "sRGB profile, 16 bits": Form(written(png(DEEP, iccp(SRGB_PROFILE))), depth(DEEP)),
    "other RGB profile": Form(saved(COLOUR, "TIFF", icc_profile=ADOBE_PROFILE), from_adobe_rgb(COLOUR), off=1),
    "grey profile": Form(
        saved(GREY, "PNG", icc_profile=GREY_PROFILE), encoded(thrice(GREY / 255) ** (461 / 256)), off=1
    ),
    "CMYK or YCCK JPEG with a profile": Form(
        saved(Image.frombytes("CMYK", (9, 6), INKS.tobytes()), "JPEG", quality=100, icc_profile=cmyk_profile()),
        of_inks(INKS),
        off=2,
    ),
    "CMYK TIFF with a profile": Form(
        saved(Image.frombytes("CMYK", (9, 6), INKS.tobytes()), "TIFF", icc_profile=cmyk_profile()),
        of_inks(INKS),
        off=1,
    ),
    "alpha channel, all pixels opaque": Form(saved(np.dstack([COLOUR, 0 * ALPHA + 255]), "PNG"), COLOUR),
    "transparent pixels, with `background`": Form(
        saved(RGBA, "PNG"), laid(COLOUR, ALPHA, (16, 128, 255), 255), background="#1080ff"
    ),
    "transparent colour, with `background`": Form(
        saved(GREY, "PNG", transparency=int(GREY[0, 0])),
        np.where(thrice(GREY[0, 0] == GREY), 255, thrice(GREY)),
        background="white",
    ),
    "16-bit transparent pixels, with `background`": Form(
        written(png(np.dstack([DEEP, DEEP_ALPHA]))),
        depth(laid(DEEP, DEEP_ALPHA, (16, 128, 255), 65535)),
        background=(16, 128, 255),
    ),
    "transparent pixels, without `background`": Form(saved(RGBA, "PNG"), 'transparent pixels.*background="white"'),
    "transparent TIFF with colours multiplied by alpha": Form(
        page(RGBA.tobytes(), {258: (8, 8, 8, 8), 262: (2,), 277: (4,), 338: (1,)}),
        "multiplied by alpha; save it with straight alpha",
        background="white",
    ),
    "10 and 12 bits, 32 bits, floating point": Form(
        saved(GREY.astype(np.float32), "TIFF"), "more than 8 bits a channel.*convert it"
    ),
    "16 bits in a file other than PNG and TIFF": Form(
        written(b"P6 9 6 65535\n" + DEEP.astype(">u2").tobytes()), "more than 8 bits a channel.*PNG or TIFF"
    ),
    "16 bits with a profile other than sRGB": Form(
        written(png(DEEP, iccp(ADOBE_PROFILE))), "16 bits a channel and a colour profile.*convert it to sRGB"
    ),
    "16-bit TIFF in planes": Form(
        lambda path: tiff(path, [DEEP[..., i].tobytes() for i in range(3)], {**RGB16, 284: (2,)}),
        "16 bits a channel in planes; save it",
    ),
    "16-bit grey TIFF whose 0 is white": Form(
        page(DEEP_GREY.tobytes(), {258: (16,), 262: (0,), 277: (1,)}), "0 is white.*save it as a 16-bit PNG"
    ),
    "damaged profile": Form(
        saved(COLOUR, "PNG", icc_profile=SRGB_PROFILE[:100]), r"colour profile \(ICC\) that is damaged.*remove it"
    ),
    "profile of other colours than the pixels": Form(
        saved(COLOUR, "PNG", icc_profile=GREY_PROFILE), "of GRAY colours, while its pixels are RGB; remove"
    ),
    "CMYK without a profile": Form(saved(Image.new("CMYK", (9, 6)), "JPEG"), "CMYK without a colour profile.*convert"),
    "YCbCr TIFF, uncompressed": Form(
        saved(Image.new("YCbCr", (9, 6)), "TIFF"), "colour mode YCbCr.*convert it", needs="10"
    ),
    "Lab TIFF": Form(saved(Image.new("LAB", (9, 6)), "TIFF"), "colour mode LAB.*convert it"),
    "animation": Form(saved(COLOUR, "GIF", **pages()), "several images in one file.*save the one to be judged"),
    "several pages": Form(saved(COLOUR, "TIFF", **pages()), "several images in one file.*save the one to be judged"),
    "signed or unknown TIFF channels": Form(
        page(GREY.tobytes(), {258: (8,), 262: (1,), 277: (1,), 339: (2,)}), "not unsigned integers; convert it"
    ),
    "vector graphics": Form(saved(COLOUR, "EPS"), "vector graphics.*save it as a PNG"),
    "damaged or truncated": Form(written(png(DEEP)[:200]), "not a readable image, damaged or truncated"),
}
HEIF = {"HEIF of 8 bits, pillow-heif registered", "HEIF without pillow-heif"}  # each has a test of its own


def test_every_form_of_the_table_has_a_case() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "images.md").read_text("utf-8")
    table = re.search(r"\| form \|.*?\n\n", text, re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:] if line]
    assert {name for name, *_ in rows} == {*FORMS, *HEIF}
    for name, _, result in rows:
        if name in FORMS and result in ("uint8", "float32", "refused"):
            expected = FORMS[name].expected
            refused, deep = isinstance(expected, str), getattr(expected, "dtype", None) == np.float32
            assert result == ("refused" if refused else "float32" if deep else "uint8"), name


def write(form: Form, path: Path) -> None:
    version = form.needs is not None and form.needs.isdecimal()
    if version and int(PIL.__version__.partition(".")[0]) < int(form.needs or 0):
        pytest.skip(f"Pillow before {form.needs} does not read what it writes itself")
    if not version and form.needs is not None and not features.check(form.needs):
        pytest.skip(f"Pillow without {form.needs}")
    form.write(path)


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str, tmp_path: Path) -> None:
    form, path = FORMS[name], tmp_path / "picture"
    write(form, path)
    if isinstance(form.expected, str):
        with pytest.raises(InputError, match=rf"picture: .*{form.expected}"):
            fmiqa.read_image(path, background=form.background)
        return
    expected = form.expected(path) if callable(form.expected) else form.expected
    image = fmiqa.read_image(path, background=form.background)
    assert image_size(path) == tuple(image.shape[1:]) == expected.shape[:2]
    assert image.is_contiguous()
    assert image.dtype == (torch.float32 if expected.dtype == np.float32 else torch.uint8)
    pixels = image.permute(1, 2, 0).numpy()
    if form.off:
        assert np.abs(pixels.astype(int) - expected).max() <= form.off
    else:
        assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("name", FORMS)
def test_a_pillow_image_follows_the_rules_for_files(name: str, tmp_path: Path) -> None:
    form, path = FORMS[name], tmp_path / "picture"
    write(form, path)
    try:
        image = Image.open(path)
    except OSError:
        pytest.skip("Pillow does not open it")
    with image:
        if image.mode == "I":
            pytest.skip("older versions of Pillow read 16 bits as 32")
        reduced = name.startswith(("16", "sRGB profile, 16", "orientation")) and image.mode[:1] != "I"
        if isinstance(form.expected, str) or reduced:
            with pytest.raises(InputError, match=r"the PIL image(: | cannot be decoded)"):
                fmiqa.to_tensor(image, background=form.background)
        else:
            if not image.mode.startswith("I"):
                image.load()
            tensor = fmiqa.to_tensor(image, background=form.background)
            assert torch.equal(tensor, fmiqa.read_image(path, background=form.background))


def test_heif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    for registry in ("OPEN", "EXTENSION", "SAVE", "SAVE_ALL", "MIME"):
        monkeypatch.setattr(Image, registry, dict(getattr(Image, registry)))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    path = tmp_path / "picture.heic"
    image = heif.from_pillow(Image.fromarray(COLOUR.repeat(8, 0).repeat(8, 1)))
    image.save(path, quality=-1)
    with pytest.raises(InputError, match=r"picture\.heic: a file of the format HEIF, .*pip install pillow-heif"):
        fmiqa.read_image(path)
    heif.register_heif_opener()
    try:
        as_pillow(path)
    except OSError:
        pytest.skip("this version of the plugin is not for this version of Pillow")
    assert np.array_equal(fmiqa.read_image(path).permute(1, 2, 0), as_pillow(path))
    assert image_size(path) == (48, 72)


def test_heif_without_its_plugin_is_named(tmp_path: Path) -> None:
    if "HEIF" in Image.OPEN:
        pytest.skip("the plugin is registered")
    (tmp_path / "photo.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(64))
    for read in (fmiqa.read_image, image_size):
        with pytest.raises(InputError, match=r"photo\.heic: .*HEIF.*pip install pillow-heif.*or save it as a PNG"):
            read(tmp_path / "photo.heic")


def test_grey_with_alpha_and_a_transparent_colour_of_sixteen_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.dstack([DEEP_GREY, DEEP_ALPHA])))
    expected = depth(laid(thrice(DEEP_GREY), DEEP_ALPHA, (255, 0, 255), 65535))
    assert np.array_equal(fmiqa.read_image(tmp_path / "a.png", background="fuchsia").permute(1, 2, 0), expected)
    (tmp_path / "b.png").write_bytes(png(DEEP, chunk(b"tRNS", DEEP[2, 3].astype(">u2").tobytes())))
    white = DEEP.copy()
    white[2, 3] = 65535
    assert np.array_equal(fmiqa.read_image(tmp_path / "b.png", background="white").permute(1, 2, 0), depth(white))
    with pytest.raises(InputError, match="transparent pixels"):
        fmiqa.read_image(tmp_path / "b.png")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_sixteen_bits_on_its_side(tmp_path: Path, channels: int, order: str) -> None:
    pixels = np.dstack([DEEP, np.full((6, 9), 65535, np.uint16)])[..., :channels]
    tags = {258: (16,) * channels, 262: (1 if channels == 1 else 2,), 277: (channels,), 274: (6,)}
    tags |= {338: (2,)} if channels == 4 else {}
    tiff(tmp_path / "a.tif", [pixels.astype(f"{order}u2").tobytes()], tags, order)
    expected = depth(np.rot90(DEEP if channels > 1 else thrice(DEEP[..., :1]), -1))
    assert np.array_equal(fmiqa.read_image(tmp_path / "a.tif").permute(1, 2, 0), expected)
    assert image_size(tmp_path / "a.tif") == (9, 6)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_profiles_of_images_with_alpha(tmp_path: Path, mode: str) -> None:
    content = GREY_PROFILE if mode == "LA" else ADOBE_PROFILE
    image = Image.fromarray(COLOUR).convert("L" if mode == "LA" else "P" if mode == "P" else "RGB")
    image.save(tmp_path / "opaque.png", icc_profile=content)
    opaque = fmiqa.read_image(tmp_path / "opaque.png").permute(1, 2, 0).numpy()
    if mode == "P":
        first = image.getpixel((0, 0))
        image.save(tmp_path / "clear.png", icc_profile=content, transparency=first)
        alpha = np.where(np.array(image) == first, 0, 255)
    else:
        image.putalpha(Image.fromarray(ALPHA))
        image.save(tmp_path / "clear.png", icc_profile=content)
        alpha = ALPHA
    clear = fmiqa.read_image(tmp_path / "clear.png", background=(16, 128, 255)).permute(1, 2, 0)
    assert np.array_equal(clear, laid(opaque, alpha, (16, 128, 255), 255))


def test_a_grey_image_may_have_a_profile_of_rgb(tmp_path: Path) -> None:
    saved(GREY, "JPEG", icc_profile=SRGB_PROFILE)(tmp_path / "a.jpg")
    saved(GREY, "JPEG")(tmp_path / "b.jpg")
    assert torch.equal(fmiqa.read_image(tmp_path / "a.jpg"), fmiqa.read_image(tmp_path / "b.jpg"))


@pytest.mark.parametrize("background", ["no such colour", "#10203040", (1, 2), (1, 2, 256), (0.5, 0, 0), 3])
def test_a_background_that_is_no_colour(tmp_path: Path, background: object) -> None:
    with pytest.raises(InputError, match=r"background=.* is no opaque colour; give a name such as 'white'"):
        fmiqa.read_image(tmp_path / "missing.png", background=background)  # type: ignore[arg-type]


def test_arrays() -> None:
    for pixels, expected in (
        (COLOUR, COLOUR),
        (COLOUR[::-1, ::-1], COLOUR[::-1, ::-1]),
        (GREY, thrice(GREY)),
        (GREY[..., None], thrice(GREY)),
        (DEEP, depth(DEEP)),
        (DEEP.astype(">u2"), depth(DEEP)),
        (COLOUR / 255, (COLOUR / 255).astype(np.float32)),
        ((COLOUR / 255).astype(np.float16), (COLOUR / 255).astype(np.float16).astype(np.float32)),
    ):
        image = fmiqa.to_tensor(pixels)
        assert image.is_contiguous()
        assert image.dtype == (torch.uint8 if expected.dtype == np.uint8 else torch.float32)
        assert np.array_equal(image.permute(1, 2, 0), expected)
    batch = fmiqa.to_tensor(np.stack([COLOUR, COLOUR[::-1]]))
    assert torch.equal(batch, torch.stack([fmiqa.to_tensor(COLOUR), fmiqa.to_tensor(COLOUR[::-1])]))
    before = COLOUR.copy()
    fmiqa.to_tensor(COLOUR).zero_()
    assert np.array_equal(COLOUR, before)


def test_arrays_with_alpha_are_laid_on_the_background() -> None:
    expected = laid(COLOUR, ALPHA, (255, 128, 0), 255)
    assert np.array_equal(fmiqa.to_tensor(RGBA, background=(255, 128, 0)).permute(1, 2, 0), expected)
    floats = fmiqa.to_tensor(RGBA / 255, background=(255, 128, 0)).permute(1, 2, 0)
    # The other one is rounded to a level of 1 / 255; 1e-6 is for float32.
    assert np.abs(255 * floats.numpy() - expected).max() <= 0.5 + 1e-4
    deep = np.dstack([DEEP, DEEP_ALPHA])[None].astype(">u2")
    expected = depth(laid(DEEP, DEEP_ALPHA, (255, 128, 0), 65535))
    assert np.array_equal(fmiqa.to_tensor(deep, background=(255, 128, 0))[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (COLOUR.transpose(2, 0, 1), r"\(3, 6, 9\) of uint8.*channels come first.*from_numpy"),
        (COLOUR[0, :2].T[..., None][None, None], r"\(1, 1, 3, 2, 1\)"),
        (np.zeros((6, 9, 2), np.uint8), r"\(6, 9, 2\).*takes NumPy arrays \(H, W, 3\)"),
        (RGBA, r"\(6, 9, 4\).*background=\"white\""),
        (np.array([[0.25, 1.004]]), r"values from 0\.25 to 1\.004; floats lie in \[0, 1\]: divide"),
        (COLOUR / 255 - 1, r"floats lie in"),
        (np.full((2, 2, 3), np.nan), r"nan to nan; floats lie in"),
        (GREY > 99, r"of bool; expected uint8, uint16 or floats.*truth values"),
        (COLOUR.astype(np.int32), r"of int32; expected uint8.*astype\(np\.uint8\)"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
        (torch.zeros(3, 6, 9), r"got torch\.Tensor; it is a tensor already.*\(N, 3, H, W\)"),
        ("photo.png", r"got builtins\.str; fmiqa\.read_image reads files"),
        (Path("photo.png"), r"fmiqa\.read_image reads files"),
        ([[1, 2]], r"got builtins\.list; fmiqa\.to_tensor takes"),
        (None, r"got builtins\.NoneType"),
        (Image.new("F", (4, 4)), "the PIL image: more than 8 bits"),
        (Image.new("I", (4, 4)), "the PIL image: more than 8 bits"),
        (Image.new("HSV", (4, 4)), "the PIL image: colour mode HSV"),
    ],
)
def test_what_to_tensor_refuses(image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fmiqa.to_tensor(image)  # type: ignore[arg-type]


def test_a_pillow_image_of_a_frame_that_was_copied() -> None:
    content = io.BytesIO()
    frames = [palette(), palette().rotate(180)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    with Image.open(content) as image:
        with pytest.raises(InputError, match="several images"):
            fmiqa.to_tensor(image)
        image.seek(1)
        assert np.array_equal(fmiqa.to_tensor(image.copy()).permute(1, 2, 0), PALETTE[GREY // 4][::-1, ::-1])
