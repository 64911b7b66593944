"""Image files opened by Pillow, or refused by name where their headers show what would be lost on the way."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from fmiqa.datasets.colours import profile_transform
from fmiqa.datasets.headers import has_several_images, has_text_after_pixels, stored_bits, tiff_tags
from fmiqa.errors import InputError

__all__ = ["Opened", "check_header", "check_image", "identified", "load", "opened", "orientation", "stored_size"]

_MODES = ("1", "L", "RGB", "P", "LA", "PA", "RGBA")
_OTHER_FORMATS = {
    "EPS": "vector graphics without a size in pixels",
    "WMF": "vector graphics without a size in pixels",
    "PCD": "a Photo CD image, of which Pillow reads a reduced copy",
}
_AVIF = ("AVIF", "which Pillow reads from version 11.3; install a newer one")
_HEIF = (
    "HEIF",
    "which Pillow reads with a plugin; pip install pillow-heif and call pillow_heif.register_heif_opener()",
)
_PLUGINS = {b"avif": _AVIF, **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1"), _HEIF)}
_SEVERAL = (
    "several images in one file (frames of an animation, pages, layers or sizes), expected one; "
    "save the one to be judged as a file of its own"
)
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # LZW, deflate by two numbers, LZMA, Zstandard


class Opened(NamedTuple):
    """An image file whose header shows nothing that would be lost."""

    image: Image.Image  # not decoded, except a PNG whose metadata follow its pixels
    deep: bool  # whether it has 16 bits a channel, which Pillow reduces to 8 where they are coloured


def opened(file: BinaryIO) -> Opened:
    """Open an image file.

    Args:
        file: The file, opened in binary mode.

    Raises:
        InputError: The header shows that something would be lost.
        Exception: Whatever Pillow's parsers stumble on.
    """
    bits = check_header(file)
    image = identified(file)
    if image.format == "PNG" and has_text_after_pixels(file):
        file.seek(0)
        image = identified(file)
        load(image)
    deep = bits is not None and bits > 8
    check_image(image, deep=deep)
    if image.format == "JPEG2000" and bits is not None and bits < 8:
        raise InputError(
            f"{bits} bits a channel, which Pillow does not scale to all of 0 to 255; convert it to 8 bits first"
        )
    return Opened(image, deep)


def check_header(file: BinaryIO) -> int | None:
    """The greatest number of bits a channel, if the file's bytes show nothing that Pillow would leave out.

    Raises:
        InputError: They do.
    """
    bits, tags = stored_bits(file), tiff_tags(file)
    file.seek(0)
    decodable = bits == 16 and (file.read(4) == b"\x89PNG" or (tags is not None and tags.get(262) != 3))
    if bits is not None and bits > 8 and not decodable:
        raise InputError(_deep(bits))
    problem = _tiff_problem(tags or {})
    if problem is not None:
        raise InputError(problem)
    if has_several_images(file):
        raise InputError(_SEVERAL)
    return bits


def check_image(image: Image.Image, *, deep: bool) -> None:
    """Refuse colours, formats and animations that do not become one RGB image.

    Args:
        image: The image, decoded or not.
        deep: Whether its channels have 16 bits.

    Raises:
        InputError: The image is refused; the message says why and what to do.
    """
    if image.format in _OTHER_FORMATS:
        raise InputError(f"{_OTHER_FORMATS[image.format]}; save it as a PNG file of the size to be judged")
    if image.mode.startswith(("I", "F")):
        if not deep:
            raise InputError(_deep())
    elif image.mode == "CMYK" and not deep:
        if "icc_profile" not in image.info:
            raise InputError(
                "colour mode CMYK without a colour profile (ICC), so that its colours are not known; convert it to "
                "8-bit RGB first, with the profile of its printer"
            )
    elif image.mode not in _MODES:
        raise InputError(f"colour mode {image.mode}, expected RGB or greyscale; convert it to 8-bit RGB first")
    if getattr(image, "n_frames", 1) > 1 or len(image.info.get("sizes", ())) > 1:
        raise InputError(_SEVERAL)
    if profile_transform(image) is not None and deep:
        raise InputError(
            "16 bits a channel and a colour profile (ICC) other than sRGB, which is not applied to so many bits; "
            "convert it to sRGB first, at 16 bits"
        )


def identified(file: BinaryIO) -> Image.Image:
    """What `Image.open` does, without its limit on the number of pixels and with the reasons why a format fails.

    The limit is one variable for the whole process (`Image.MAX_IMAGE_PIXELS`), which protects services from
    uploads; it is not for a library to change.
    """
    Image.init()
    file.seek(0)
    prefix = file.read(16)
    reasons = []
    for kind in list(Image.ID):
        factory, accept = Image.OPEN[kind]
        accepted = accept(prefix) if accept else True
        if isinstance(accepted, str):
            reasons.append(accepted)
        elif accepted:
            file.seek(0)
            try:
                # Without a file name, Pillow does not map the file into memory: Pillow 13 maps grey and palette TIFF
                # images that are stored on their side with width and height exchanged.
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # not of this format
                if accept:
                    reasons.append(f"{kind}: {error}")
    plugin, advice = _PLUGINS.get(prefix[8:12] if prefix[4:8] == b"ftyp" else b"", ("", ""))
    if plugin and plugin not in Image.OPEN:
        raise InputError(f"a file of the format {plugin}, {advice}, or save it as a PNG file")
    raise UnidentifiedImageError("; ".join(reasons) or "no known format")


def load(image: Image.Image) -> None:
    """Decode the pixels, however many there are."""
    limit = Image.MAX_IMAGE_PIXELS
    width, height = size = stored_size(image)
    if image.format == "TIFF" and limit is not None and width * height > limit:
        image.im = Image.new(image.mode, size).im  # Pillow applies its limit when it allocates this itself
    image.load()


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before the image is turned; of a TIFF, newer versions of Pillow give those after."""
    if image.format == "TIFF":
        return image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
    return image.size


def orientation(image: Image.Image) -> int:
    """The number of the orientation tag (EXIF, TIFF or XMP), from 1 to 8."""
    try:
        # A PNG's own method decodes the whole image.
        value = Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # damaged metadata say nothing; they do not make the pixels unusable
        return 1
    return int(value) if value in range(1, 9) else 1


def _deep(bits: int | None = None) -> str:
    return (
        f"more than 8 bits a channel{'' if bits is None else f' ({bits})'}, expected 8, or 16 in a PNG or TIFF file of "
        "unsigned integers; convert it to 8 bits first (how to scale is for you to say: the reference and its "
        "distorted images alike)"
    )


def _tiff_problem(tags: Mapping[int, Any]) -> str | None:
    """What Pillow would misread or leave out of a TIFF page of up to 16 bits."""
    formats, bits, extra = tags.get(339, (1,)), tags.get(258, (1,)), tags.get(338, ())
    if max(formats) > 1:
        return "samples that are not unsigned integers; convert it to unsigned integers of 8 or 16 bits first"
    if 0 in extra:
        return f"{len(extra)} channels of unknown meaning beside its colours; save it as RGB or greyscale"
    if max(bits) > 8 and tags.get(262) == 0:
        return "16 bits of grey whose 0 is white, which Pillow does not invert; save it as a 16-bit PNG file"
    if tags.get(317, 1) != 1 and tags.get(259) not in _WITH_PREDICTOR:
        return "a predictor that Pillow does not undo for its compression; save it with another compression"
    if tags.get(254, 0) & 1:
        return "its first page is a reduced copy of another image, as in raw camera files; develop it to a PNG file"
    planes = tags.get(284, 1) == 2
    if planes and max(bits) > 8:
        return "16 bits a channel in planes; save it with PlanarConfiguration 1 (interleaved)"
    if planes and (set(bits) != {8} or tags.get(262) not in (1, 2, 3) or tags.get(266, 1) != 1):
        return "planes that Pillow does not read as they are stored; save it with PlanarConfiguration 1 (interleaved)"
    return None
