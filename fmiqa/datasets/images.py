"""Image files as 8-bit RGB tensors; whatever would lose something on the way is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fmiqa.errors import InputError

__all__ = ["image_size", "read_image"]


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Decode an image file to 8-bit RGB.

    Greyscale, bilevel, palette and fully opaque images with an alpha channel become RGB without loss.
    The stored pixels are taken as they are: colour profiles and orientation tags are not applied.

    Args:
        path: a file that Pillow reads (BMP, PNG, JPEG, TIFF, ...).

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: no such file, damaged or truncated, more than 8 bits a channel, transparent pixels, or a
            colour space other than RGB and grey.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 2), (255, 0, 0)).save(f"{folder}/red.png")
        ...     image = read_image(f"{folder}/red.png")
        >>> image.shape, image[:, 0, 0].tolist()
        (torch.Size([3, 2, 4]), [255, 0, 0])
    """
    try:
        with Image.open(path) as image:
            problem = _refusal(image) or _transparency(image)
            pixels = None if problem else np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's parsers raise whatever they stumble on: OSError, SyntaxError, struct.error
        raise InputError(_unreadable(path, error)) from error
    if pixels is None:
        raise InputError(f"{path}: {problem}")
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The height and width of an image file, from its header; nothing is decoded.

    Raises:
        InputError: no such file, no readable header, or a kind that `read_image` refuses.
    """
    try:
        with Image.open(path) as image:
            problem, (width, height) = _refusal(image), image.size
    except Exception as error:  # as in read_image
        raise InputError(_unreadable(path, error)) from error
    if problem is not None:
        raise InputError(f"{path}: {problem}")
    return height, width


_PLAIN_MODES = ("1", "L", "RGB")
_MODES_WITH_ALPHA = ("P", "LA", "PA", "RGBA")  # a palette may hold transparent colours


def _refusal(image: Image.Image) -> str | None:
    """Why an opened image cannot become 8-bit RGB without loss, as far as its header tells."""
    if _is_deep(image):
        return (
            "more than 8 bits a channel; convert it to 8 bits first "
            "(how to scale is for you to say: the reference and its distorted images alike)"
        )
    if image.mode not in _PLAIN_MODES + _MODES_WITH_ALPHA:
        return f"colour mode {image.mode}, expected RGB or greyscale; convert it to 8-bit RGB first"
    return None


def _is_deep(image: Image.Image) -> bool:
    # Pillow opens colour images of 16 bits as mode "RGB" and drops the lower bits; only the arguments of its
    # decoder tell: a raw mode such as "RGB;16B", or in a PPM a highest value over 255.
    if image.mode.startswith(("I", "F")):
        return True
    for codec, _, _, given in getattr(image, "tile", ()):
        arguments = given if isinstance(given, tuple) else (given,)
        if any(isinstance(a, str) and ";16" in a for a in arguments):
            return True
        if codec.startswith("ppm") and any(isinstance(a, int) and a > 255 for a in arguments):
            return True
    return False


def _transparency(image: Image.Image) -> str | None:
    """What to say of transparent pixels; decodes the image only where it could have such."""
    may_be = image.mode in _MODES_WITH_ALPHA or "transparency" in image.info
    if may_be and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        return "transparent pixels; lay it on the background it was shown on, then save it as RGB"
    return None


def _unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    if not Path(path).is_file():
        return f"{path}: no such file"
    return f"{path}: not a readable image, damaged or truncated ({type(error).__name__}: {error})"
