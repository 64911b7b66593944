"""Image files of 16 bits a channel in full depth.

Pillow reads grey ones whole. Of colours it keeps one byte of the two, the high one by the file's byte order. Read as if
the byte order were the other one, the file gives the low bytes.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from fmiqa.datasets.opening import identified, load
from fmiqa.errors import InputError

__all__ = ["deep_colours"]

_FOREIGN = ";16B" if sys.byteorder == "little" else ";16L"
_LOW = {";16B": ";16L", ";16L": ";16B", ";16N": _FOREIGN}  # libtiff gives N, the processor's own byte order


def deep_colours(file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels of a PNG or TIFF file of 16 bits a channel.

    Args:
        file: The file, opened in binary mode.

    Returns:
        (H, W, 3) uint16; and alpha, (H, W) uint16, or None where the image has none.

    Raises:
        InputError: The pixels are stored in another way than grey, grey with alpha, RGB and RGBA.
    """
    image = identified(file)
    raw, clear = _raw_mode(image), image.info.get("transparency")
    if image.mode.startswith("I"):
        load(image)
        pixels = np.array(image).astype(np.uint16)[..., None]
    elif raw == "LA;16B":
        pixels = _joined(*np.split(_decoded(image, "RGBA")[..., [0, 2, 1, 3]], 2, -1))
    elif raw[:-4] in ("RGB", "RGBA") and raw[-4:] in _LOW:
        high = _decoded(image, raw)
        pixels = _joined(high, _decoded(identified(file), raw[:-4] + _LOW[raw[-4:]]))
    else:
        raise InputError(
            f"16 bits a channel in a form that Pillow does not read whole ({raw or image.mode}); save it as a 16-bit "
            "PNG file"
        )
    channels = pixels.shape[-1]
    colours = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, -1)
    if channels in (2, 4):
        return colours, pixels[..., -1]
    opaque = None if clear is None else (colours != np.array(clear)).any(-1)
    return colours, None if opaque is None else np.where(opaque, 65535, 0).astype(np.uint16)


def _raw_mode(image: Image.Image) -> str:
    """How the pixels are stored, in Pillow's words."""
    tile: Any = image.tile[0]  # type: ignore[attr-defined]
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0])


def _decoded(image: Any, raw: str) -> np.ndarray:
    """The pixels of an image that is not decoded yet, as if they were stored like this."""
    tiles = []
    for tile in image.tile:
        args = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
        tiles.append(tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args))
    image.tile = tiles
    load(image)
    return np.array(image)


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    joined: np.ndarray = high.astype(np.uint16) << 8 | low
    return joined
