"""What the headers of image files say about bit depth and number of images, where Pillow does not tell or not say all.

Pillow reduces some images of more than 8 bits a channel to 8 bits without a word (colour PNG and TIFF, SGI, JPEG 2000,
AVIF, DDS), and reads the first of several images without a word where it knows of no frames (ICO, FITS, DDS, PPM).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

from PIL import TiffImagePlugin

__all__ = ["has_several_images", "has_text_after_pixels", "stored_bits", "tiff_tags"]

T = TypeVar("T")
_TIFF = rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0"


def stored_bits(file: BinaryIO) -> int | None:
    """The greatest number of bits that the file stores for a channel.

    Args:
        file: An image file, opened in binary mode; its position is moved.

    Returns:
        None where the header is damaged or of a format that this module does not know; so it is for formats of at
        most 8 bits (GIF, WebP, BMP, TGA, ...).

    Example:
        >>> import io
        >>> stored_bits(io.BytesIO(b"P5 640 480 65535 "))
        16
    """
    return _said(file, _BITS)


def has_several_images(file: BinaryIO) -> bool:
    """Whether the file holds several images in a way that Pillow does not report as frames.

    Args:
        file: An image file, opened in binary mode; its position is moved.
    """
    return bool(_said(file, _SEVERAL))


def tiff_tags(file: BinaryIO) -> Mapping[int, Any] | None:
    """The tags of the first page of a TIFF file; None where it is none, or damaged.

    Args:
        file: An image file, opened in binary mode; its position is moved.
    """
    return _said(file, {_TIFF: _read_tags})


def has_text_after_pixels(file: BinaryIO) -> bool:
    """Whether a PNG file has metadata after its pixels, which Pillow reads with the pixels only."""
    file.seek(0)
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return False
    pixels = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            return True
        pixels = pixels or kind == b"IDAT"
        file.seek(length + 4, 1)
    return False


def _said(file: BinaryIO, readers: Mapping[bytes, Callable[[BinaryIO], T]]) -> T | None:
    """What the reader for the file's signature makes of it; None where there is none, or the header is damaged."""
    file.seek(0)
    start = file.read(16)
    for signature, read in readers.items():
        if re.match(signature, start, re.DOTALL):
            try:
                return read(file)
            except (struct.error, LookupError, StopIteration, TypeError, ValueError, SyntaxError, OSError):
                return None  # damage is for Pillow to judge
    return None


def _at(file: BinaryIO, offset: int, form: str) -> tuple[Any, ...]:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _png_bits(file: BinaryIO, offset: int = 0) -> int:
    (bits,) = _at(file, offset + 24, "B")
    return int(bits)


def _icon_bits(file: BinaryIO) -> int | None:
    """Of the PNG file that the first entry of an icon may be."""
    (offset,) = _at(file, 18, "<I")
    file.seek(offset)
    return _png_bits(file, offset) if file.read(4) == b"\x89PNG" else None


def _jpeg_bits(file: BinaryIO) -> int | None:
    file.seek(2)
    while True:
        escape, marker = struct.unpack("2B", file.read(2))
        while marker == 0xFF:  # padding
            (marker,) = file.read(1)
        if escape != 0xFF:
            return None
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these stand alone
            continue
        length, bits = struct.unpack(">HB", file.read(3))
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # start of a frame
            return int(bits)
        file.seek(length - 3, 1)


def _read_tags(file: BinaryIO) -> Mapping[int, Any]:
    file.seek(0)
    header = file.read(8)
    if 43 in header[2:4]:  # BigTIFF
        header += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _tiff_bits(file: BinaryIO) -> int:
    tags = _read_tags(file)
    bits = tags.get(258, (1,))  # BitsPerSample
    # The colours of a palette have 16 bits: either an 8-bit value and its copy, or an 8-bit value and 0.
    deep = any(colour & 0xFF not in (0, colour >> 8) for colour in tags.get(320, ()))
    return 16 if deep else max(bits) if isinstance(bits, tuple) else int(bits)


def _jpeg2000_bits(file: BinaryIO) -> int:
    boxes = {kind: (start, end) for kind, start, end in _boxes(file, 0)}
    start = boxes[b"jp2c"][0] if boxes else 0
    inner = {kind: begin for kind, begin, _ in _boxes(file, *boxes[b"jp2h"])} if b"jp2h" in boxes else {}
    if b"pclr" in inner:
        (columns,) = _at(file, inner[b"pclr"] + 2, "B")
        return max((int(bits) & 0x7F) + 1 for bits in _at(file, inner[b"pclr"] + 3, f"{columns}B"))
    return _codestream_bits(file, start)


def _codestream_bits(file: BinaryIO, start: int = 0) -> int:
    (components,) = _at(file, start + 40, ">H")
    return max((int(bits) & 0x7F) + 1 for bits in _at(file, start + 42, f"{3 * components}B")[::3])


def _avif_bits(file: BinaryIO) -> int | None:
    """Of all images, alpha channels and gain maps in the file."""
    found: list[int] = []
    for kind, start, _ in _descend(file, (b"meta", b"iprp", b"ipco")):
        if kind == b"pixi":
            (channels,) = _at(file, start + 4, "B")
            found += _at(file, start + 5, f"{channels}B")
        elif kind == b"av1C":
            (flags,) = _at(file, start + 2, "B")
            found.append(8 if not flags & 0x40 else 12 if flags & 0x20 else 10)
    return max(found, default=None)


def _descend(file: BinaryIO, path: tuple[bytes, ...]) -> Iterator[tuple[bytes, int, int]]:
    found = list(_boxes(file, 0))
    for wanted in path:
        start, end = [(start, end) for kind, start, end in found if kind == wanted][0]  # noqa: RUF015
        found = list(_boxes(file, start + 4 * (wanted == b"meta"), end))  # a version and flags come first in meta
    yield from found


def _boxes(file: BinaryIO, start: int, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box of an ISO base media or JPEG 2000 file."""
    if end is None:
        end = file.seek(0, 2)
    while start + 8 <= end:
        length, kind = struct.unpack(">I4s", _read(file, start, 8))
        content = start + 8
        if length == 1:
            (length,) = _at(file, content, ">Q")
            content += 8
        elif length == 0:  # to the end of the file
            length = end - start
        if length < content - start or start + length > end:
            return
        yield kind, content, start + length
        start += length


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_NETPBM = re.compile(rb"P([1-6])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)(?:" + _GAP + rb"(\d+))?")


def _netpbm_bits(file: BinaryIO) -> int | None:
    found = _NETPBM.match(_read(file, 0, 1 << 16))
    if found is None or found[1] in b"14":
        return None
    return int(found[4]).bit_length()


def _netpbm_several(file: BinaryIO) -> bool:
    """Whether another image follows the pixels of a binary PBM, PGM or PPM file."""
    found = _NETPBM.match(_read(file, 0, 1 << 16))
    if found is None or found[1] not in b"456":
        return False
    bitmap = found[1] == b"4"
    width, height = int(found[2]), int(found[3])
    row = (width + 7) // 8 if bitmap else width * (3 if found[1] == b"6" else 1) * (2 if int(found[4]) > 255 else 1)
    pixels = (found.end(3) if bitmap else found.end(4)) + 1
    return bool(re.match(rb"\s*P[1-6]\s", _read(file, pixels + row * height, 64)))


def _dds_bits(file: BinaryIO) -> int | None:
    flags, kind = _at(file, 80, "<I4s")
    if flags & 0x40:  # uncompressed, with a mask for each channel
        return max(bin(mask).count("1") for mask in _at(file, 92, "<4I"))
    half_floats = (94, 95, 96)  # DXGI_FORMAT_BC6H_*
    return 16 if kind == b"DX10" and _at(file, 128, "<I")[0] in half_floats else None


def _dds_several(file: BinaryIO) -> bool:
    """Whether it is a cube map, a volume or an array; smaller copies of one image do not count."""
    (capabilities,), (kind,) = _at(file, 112, "<I"), _at(file, 84, "4s")
    return bool(capabilities & 0x200200) or (kind == b"DX10" and _at(file, 140, "<I")[0] > 1)


def _fits_several(file: BinaryIO) -> bool:
    """Whether the first array has more than two axes."""
    cards = re.findall(rb"NAXIS([1-9]\d*) *= *(\d+)", _read(file, 0, 10 * 2880).partition(b"END     ")[0])
    return any(int(axis) > 2 and int(length) > 1 for axis, length in cards)


_BITS: dict[bytes, Callable[[BinaryIO], int | None]] = {
    rb"\x89PNG\r\n\x1a\n": _png_bits,
    rb"\xff\xd8\xff": _jpeg_bits,
    _TIFF: _tiff_bits,
    rb"\x01\xda[\0\1]": lambda file: 8 * _at(file, 3, "B")[0],  # SGI: bytes a channel
    rb"\0\0\0\x0cjP  \r\n\x87\n": _jpeg2000_bits,
    rb"\xff\x4f\xff\x51": _codestream_bits,
    rb"....ftyp": _avif_bits,
    rb"P[1-6]": _netpbm_bits,
    rb"P[Ff]\s": lambda _: 32,  # PFM
    rb"8BPS": lambda file: _at(file, 22, ">H")[0],  # PSD
    rb"DDS ": _dds_bits,
    rb"\0\0[\1\2]\0": _icon_bits,
    rb"\x76\x2f\x31\x01": lambda _: 16,  # OpenEXR: 16 or 32
    rb"#\?(?:RADIANCE|RGBE)": lambda _: 16,  # Radiance HDR, a shared exponent
}

_SEVERAL: dict[bytes, Callable[[BinaryIO], bool]] = {
    rb"\0\0[\1\2]\0": lambda file: _at(file, 4, "<H")[0] > 1,  # icons and cursors
    rb"P[456]": _netpbm_several,
    rb"DDS ": _dds_several,
    rb"SIMPLE": _fits_several,
}
