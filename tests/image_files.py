"""Image files by hand: what Pillow does not write, and colour profiles."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

__all__ = ["ADOBE_RGB", "SRGB", "chunk", "cmyk_profile", "lzw", "png", "profile", "tiff"]

SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
"""XYZ of red, green and blue, adapted to D50, as profiles have them."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG file of (H, W, 1 to 4) uint8 or uint16: grey, grey with alpha, RGB or RGBA."""
    height, width, channels = pixels.shape
    bits, colours = 8 * pixels.itemsize, (0, 4, 2, 6)[channels - 1]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(f">u{pixels.itemsize}"))
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def tiff(path: Path, strips: list[bytes], tags: dict[int, tuple[int, ...]], order: str = "<") -> None:
    """A TIFF page of 9 x 6 pixels, uncompressed unless the tags say so; they are given as 32-bit numbers.

    Args:
        path: The file.
        strips: The strips, or planes, as they are stored.
        tags: Tags by number.
        order: The byte order, "<" or ">"; the strips have it already.
    """
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    tags = {256: (9,), 257: (6,), 259: (1,), 273: tuple(offsets), 279: tuple(map(len, strips)), **tags}
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    data = start + struct.pack(f"{order}I", 8 + sum(map(len, strips))) + b"".join(strips)
    entries, long = b"", b""
    after = len(data) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        entries += struct.pack(f"{order}HHI", tag, 4, len(values))
        entries += packed if len(values) == 1 else struct.pack(f"{order}I", after + len(long))
        long += packed if len(values) > 1 else b""
    path.write_bytes(data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + long)


def lzw(data: bytes) -> bytes:
    """LZW of TIFF that never uses its table: it is cleared before its codes grow beyond nine bits."""
    codes = [256]
    for start in range(0, len(data), 250):
        codes += [*data[start : start + 250], 256]
    bits = "".join(f"{code:09b}" for code in [*codes[:-1], 257])
    size = -(-len(bits) // 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def _tag(kind: bytes, data: bytes) -> bytes:
    return kind + bytes(4) + data


def _numbers(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def _profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4."""
    tags = {
        b"desc": _tag(b"desc", struct.pack(">I", 2) + b"x\0" + bytes(78)),
        b"cprt": _tag(b"text", b"x\0"),
        b"wtpt": _tag(b"XYZ ", _numbers((0.9642, 1, 0.8249))),
        **tags,
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02400000, device, space, connection)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _numbers((0.9642, 1, 0.8249))
    return head.ljust(128, b"\0") + table + body


def profile(curve: tuple[int, ...], primaries: tuple[tuple[float, ...], ...] | None = None) -> bytes:
    """The ICC profile of a display.

    Args:
        curve: Linear values from 0 to 65535; or one number, 256 times the exponent.
        primaries: XYZ of red, green and blue; None for a profile of grey.
    """
    curves = _tag(b"curv", struct.pack(f">I{len(curve)}H", len(curve), *curve))
    if primaries is None:
        return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curves})
    tags = {f"{name}XYZ".encode(): _tag(b"XYZ ", _numbers(xyz)) for name, xyz in zip("rgb", primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {f"{name}TRC".encode(): curves for name in "rgb"})


def cmyk_profile() -> bytes:
    """The ICC profile of a printer whose inks are grey: lightness is 100 less the mean of the inks in percent."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    lightness = 255 * (1 - inks.mean(1))
    table = np.stack([lightness, np.full(16, 128), np.full(16, 128)], -1).round().astype(np.uint8).tobytes()
    identity = bytes(range(256))
    lut = struct.pack(">4B", 4, 3, 2, 0) + _numbers((1, 0, 0, 0, 1, 0, 0, 0, 1)) + 4 * identity + table + 3 * identity
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": _tag(b"mft1", lut)})
