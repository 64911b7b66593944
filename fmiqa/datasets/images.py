"""Image files as 8-bit RGB tensors; whatever would lose something on the way is refused by name."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fmiqa.datasets.headers import has_several_images, has_text_after_pixels, stored_bits, tiff_tags
from fmiqa.errors import InputError

__all__ = ["image_size", "read_image"]


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Decode an image file to 8-bit RGB.

    Greyscale, bilevel, palette and fully opaque images with an alpha channel become RGB without loss.
    The image is turned as its orientation tag (EXIF, TIFF or XMP) says, as viewers show it. Colour profiles are
    not applied. Images of any size are read; Pillow's limit on the number of pixels does not apply.

    Args:
        path: A file that Pillow reads (BMP, PNG, JPEG, TIFF, ...).

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: No such file, damaged or truncated, more than 8 bits a channel, several images (animation frames,
            pages, layers), transparent pixels, or a colour space other than RGB and grey.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 2), (255, 0, 0)).save(f"{folder}/red.png")
        ...     image = read_image(f"{folder}/red.png")
        >>> image.shape, image[:, 0, 0].tolist()
        (torch.Size([3, 2, 4]), [255, 0, 0])
    """
    try:
        with open(path, "rb") as file:
            image = _opened(file)
            _load(image)
            _refuse(_colour_problem(image) or _transparency(image))
            if image.format != "TIFF":  # which Pillow turns itself
                turn = _TURNS.get(_orientation(image))
                image = image if turn is None else image.transpose(turn)
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow's parsers raise whatever they stumble on: OSError, SyntaxError, struct.error
        raise InputError(f"{path}: {_explanation(path, error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The height and width of the image that `read_image` returns, from the file's header.

    No pixels are decoded, except those of a PNG file whose metadata follow its pixels.

    Raises:
        InputError: No such file, no readable header, or a kind that `read_image` refuses.
    """
    try:
        with open(path, "rb") as file:
            image = _opened(file)
            if image.format == "PNG" and has_text_after_pixels(file):
                file.seek(0)
                image = _opened(file)
                _load(image)
            width, height = _stored_size(image)
            turned = _orientation(image) >= 5
    except Exception as error:  # as in read_image
        raise InputError(f"{path}: {_explanation(path, error)}") from error
    return (width, height) if turned else (height, width)


_PLAIN_MODES = ("1", "L", "RGB")
_MODES_WITH_ALPHA = ("P", "LA", "PA", "RGBA")  # a palette may hold transparent colours
_OTHER_FORMATS = {
    "EPS": "vector graphics without a size in pixels",
    "WMF": "vector graphics without a size in pixels",
    "PCD": "a Photo CD image, of which Pillow reads a reduced copy",
}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _RefusalError(Exception):
    """A whole image that cannot become 8-bit RGB without loss; the message says why and what to do."""


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise _RefusalError(problem)


def _opened(file: BinaryIO) -> Image.Image:
    """The image, not decoded yet, if its header shows nothing that would be lost."""
    bits = stored_bits(file)
    _refuse(_deep(bits) if bits is not None and bits > 8 else None)
    _refuse(_tiff_problem(tiff_tags(file) or {}))
    several = has_several_images(file)
    image = _identified(file)
    _refuse(_colour_problem(image))
    if image.format == "JPEG2000" and bits is not None and bits < 8:
        _refuse(f"{bits} bits a channel, which Pillow does not scale to all of 0 to 255; convert it to 8 bits first")
    if image.format in _OTHER_FORMATS:
        _refuse(f"{_OTHER_FORMATS[image.format]}; save it as a PNG file of the size to be judged")
    if several or getattr(image, "n_frames", 1) > 1 or len(image.info.get("sizes", ())) > 1:
        _refuse(
            "several images in one file (frames of an animation, pages, layers or sizes), expected one; "
            "save the one to be judged as a file of its own"
        )
    return image


def _identified(file: BinaryIO) -> Image.Image:
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
    raise UnidentifiedImageError("; ".join(reasons) or "no known format")


def _load(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    width, height = size = _stored_size(image)
    if image.format == "TIFF" and limit is not None and width * height > limit:
        image.im = Image.new(image.mode, size).im  # Pillow applies its limit when it allocates this itself
    image.load()


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height before the image is turned; of a TIFF, newer versions of Pillow give those after."""
    if image.format == "TIFF":
        return image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
    return image.size


def _orientation(image: Image.Image) -> int:
    try:
        # A PNG's own method decodes the whole image.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # damaged metadata say nothing; they do not make the pixels unusable
        return 1
    return value if value in _TURNS else 1


def _deep(bits: int | None = None) -> str:
    return (
        f"more than 8 bits a channel{'' if bits is None else f' ({bits})'}; convert it to 8 bits first "
        "(how to scale is for you to say: the reference and its distorted images alike)"
    )


def _colour_problem(image: Image.Image) -> str | None:
    if image.mode.startswith(("I", "F")):
        return _deep()
    if image.mode not in _PLAIN_MODES + _MODES_WITH_ALPHA:
        return f"colour mode {image.mode}, expected RGB or greyscale; convert it to 8-bit RGB first"
    return None


def _tiff_problem(tags: Mapping[int, Any]) -> str | None:
    """What Pillow would misread or leave out of a TIFF page of 8 bits."""
    formats, bits, extra = tags.get(339, (1,)), tags.get(258, (1,)), tags.get(338, ())
    if max(formats) > 1:
        return "samples that are not unsigned integers; convert it to unsigned 8 bits first"
    if 0 in extra:
        return f"{len(extra)} channels of unknown meaning beside its colours; save it as RGB or greyscale"
    if tags.get(254, 0) & 1:
        return "its first page is a reduced copy of another image, as in raw camera files; develop it to a PNG file"
    planes = tags.get(284, 1) == 2
    if planes and (set(bits) != {8} or tags.get(262) not in (1, 2, 3) or tags.get(266, 1) != 1):
        return "planes that Pillow does not read as they are stored; save it with PlanarConfiguration 1 (interleaved)"
    return None


def _transparency(image: Image.Image) -> str | None:
    """What to say of transparent pixels; `image` is decoded."""
    if image.mode not in _MODES_WITH_ALPHA and "transparency" not in image.info:
        return None
    alpha = (image if image.mode == "RGBA" else image.convert("RGBA")).getchannel("A")
    if alpha.getextrema() != (255, 255):
        return "transparent pixels; lay it on the background it was shown on, then save it as RGB"
    return None


def _explanation(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, _RefusalError):
        return str(error)
    if not Path(path).is_file():
        return "no such file"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if isinstance(error, Image.DecompressionBombError):
        return f"Pillow limits the size of images of this format ({error}); save it as a PNG or TIFF file"
    if isinstance(error, MemoryError):
        return "its pixels do not fit into memory, or its header is damaged"
    if isinstance(error, UnidentifiedImageError):
        return f"not a readable image: damaged, or of a kind that Pillow does not read ({error})"
    return f"not a readable image, damaged or truncated ({type(error).__name__}: {error})"
