"""Pictures as RGB tensors, from image files, Pillow and NumPy; whatever would lose something is refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fmiqa.datasets.colours import Background, background_colour, colours_of, laid_on, profile_transform
from fmiqa.datasets.deep import deep_colours
from fmiqa.datasets.opening import check_header, check_image, load, opened, orientation, stored_size
from fmiqa.errors import InputError

__all__ = ["Background", "image_size", "is_converted", "read_image", "to_tensor"]

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
_ADVICE = "fmiqa.to_tensor takes NumPy arrays (H, W, 3), (H, W) or (N, H, W, 3), and PIL images"


def read_image(path: str | os.PathLike[str], *, background: Background | None = None) -> Tensor:
    """Decode an image file to an RGB tensor, as viewers show it, without loss or by a stated rule.

    Greyscale, bilevel and palette images become RGB. The image is turned as its orientation tag (EXIF, TIFF or XMP)
    says. A colour profile (ICC) is applied, which leaves those in sRGB as they are. PNG and TIFF files of 16 bits a
    channel keep them. Images of any size are read; Pillow's limit on the number of pixels does not apply.
    `docs/guide/images.md` has the rule for each form of file.

    Args:
        path: A file that Pillow reads (BMP, PNG, JPEG, TIFF, WebP, ...).
        background: What transparent pixels are laid on: a colour's name, `#rrggbb`, or (red, green, blue) from 0 to
            255, in sRGB. Without it, images with transparent pixels are refused.

    Returns:
        (3, H, W): uint8; of a file of 16 bits a channel float32 in [0, 1].

    Raises:
        InputError: No such file, damaged or truncated, a depth other than 8 and 16 bits, several images (animation
            frames, pages, layers), transparent pixels without a background, or colours that are not known.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGBA", (4, 2), (255, 0, 0, 51)).save(f"{folder}/red.png")
        ...     image = read_image(f"{folder}/red.png", background="white")
        >>> image.shape, image[:, 0, 0].tolist()
        (torch.Size([3, 2, 4]), [255, 204, 204])
    """
    behind = background_colour(background)
    try:
        with open(path, "rb") as file:
            pixels = _file_pixels(file, behind)
    except Exception as error:  # Pillow's parsers raise whatever they stumble on: OSError, SyntaxError, struct.error
        raise InputError(f"{path}: {_explanation(path, error)}") from error
    return _tensor(pixels)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The height and width of the image that `read_image` returns, from the file's header.

    No pixels are decoded, except those of a PNG file whose metadata follow its pixels.

    Raises:
        InputError: No such file, no readable header, or a kind that `read_image` refuses.
    """
    try:
        with open(path, "rb") as file:
            image = opened(file).image
            width, height = stored_size(image)
            turned = orientation(image) >= 5
    except Exception as error:  # as in read_image
        raise InputError(f"{path}: {_explanation(path, error)}") from error
    return (width, height) if turned else (height, width)


def is_converted(path: str | os.PathLike[str]) -> bool:
    """Whether a colour profile changes the pixels of a file; False for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return profile_transform(opened(file).image) is not None
    except Exception:  # as in read_image
        return False


def to_tensor(image: Image.Image | np.ndarray, *, background: Background | None = None) -> Tensor:
    """A picture of Pillow or NumPy as an RGB tensor, by the rules of `read_image`.

    Args:
        image: A PIL image; or an array (H, W, 3), (H, W) or (H, W, 1) grey, (H, W, 4) with a `background`, or a batch
            of such, (N, H, W, channels). Arrays are sRGB, of uint8, uint16 (0 to 65535) or floats in [0, 1].
        background: What transparent pixels are laid on, as for `read_image`.

    Returns:
        (3, H, W), or (N, 3, H, W) of a batch, in memory of its own: uint8 of 8 bits a channel, otherwise float32 in
        [0, 1].

    Raises:
        InputError: Another type, shape, dtype or range, or an image that `read_image` would refuse.

    Example:
        >>> pixels = np.zeros((2, 4, 3), dtype=np.uint16)
        >>> pixels[..., 0] = 13107
        >>> image = to_tensor(pixels)
        >>> image.shape, image.dtype, round(image[0, 0, 0].item(), 6)
        (torch.Size([3, 2, 4]), torch.float32, 0.2)
    """
    behind = background_colour(background)
    if isinstance(image, Image.Image):
        try:
            return _tensor(_picture_pixels(image, behind))
        except InputError as error:
            raise InputError(f"the PIL image: {error}") from error
        except Exception as error:  # as in read_image
            raise InputError(f"the PIL image cannot be decoded ({type(error).__name__}: {error})") from error
    if not isinstance(image, np.ndarray):
        kind = f"{type(image).__module__.partition('.')[0]}.{type(image).__name__}"
        if isinstance(image, Tensor):
            advice = "it is a tensor already: metrics take (N, 3, H, W), which image.permute(2, 0, 1)[None] gives of "
            raise InputError(f"image: expected an array or a PIL image, got {kind}; {advice}(H, W, 3)")
        advice = "fmiqa.read_image reads files" if isinstance(image, str | os.PathLike) else _ADVICE
        raise InputError(f"image: expected an array or a PIL image, got {kind}; {advice}")
    return _tensor(_array_pixels(image, behind))


def _file_pixels(file: BinaryIO, background: tuple[int, int, int] | None) -> np.ndarray:
    """(H, W, 3) uint8 or uint16."""
    image, deep = opened(file)
    if deep:
        colours, alpha = deep_colours(file)
    else:
        load(image)
        colours, alpha = colours_of(image)
    return _shown(image, colours, alpha, background)


def _picture_pixels(image: Image.Image, background: tuple[int, int, int] | None) -> np.ndarray:
    """(H, W, 3) uint8 or uint16."""
    file = getattr(image, "fp", None)
    if file is not None and not file.closed:  # not decoded yet
        position = file.tell()
        bits = check_header(file)
        file.seek(position)
        if bits == 16 and not image.mode.startswith("I;16"):
            raise InputError("16 bits a channel, which Pillow does not keep; give its file to fmiqa.read_image")
    deep = image.mode.startswith("I;16")
    if deep and "transparency" in image.info:
        raise InputError("16 bits a channel and a transparent colour; give its file to fmiqa.read_image")
    check_image(image, deep=deep)
    image.load()
    if deep:
        return _shown(image, np.array(image).astype(np.uint16)[..., None].repeat(3, -1), None, background)
    return _shown(image, *colours_of(image), background)


def _shown(
    image: Image.Image, colours: np.ndarray, alpha: np.ndarray | None, background: tuple[int, int, int] | None
) -> np.ndarray:
    """Pixels on the background, the right way up."""
    tiff = image.format == "TIFF"
    multiplied = tiff and 1 in image.tag_v2.get(338, ())  # type: ignore[attr-defined]
    pixels = laid_on(colours, alpha, background, multiplied=multiplied)
    if tiff:  # which Pillow turns itself
        return pixels
    turn = _TURNS.get(orientation(image))
    return pixels if turn is None else turn(pixels)


def _array_pixels(image: np.ndarray, background: tuple[int, int, int] | None) -> np.ndarray:
    """(..., H, W, 3) uint8, uint16 or floating point."""
    shape, said = image.shape, f"image: got an array {image.shape} of {image.dtype}"
    channels = 1 if image.ndim == 2 else shape[-1] if image.ndim in (3, 4) else 0
    if channels not in (1, 3, 4) or image.size == 0:
        planar = image.ndim in (3, 4) and shape[-3] in (1, 3, 4)
        advice = "; where channels come first, give torch.from_numpy(image) to the metric" if planar else ""
        raise InputError(f"{said}; {_ADVICE}{advice}")
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):  # also for NaN
            raise InputError(
                f"{said} with values from {low:.4g} to {high:.4g}; floats lie in [0, 1]: divide by the value of white, "
                "and clip what lies outside"
            )
    elif image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise InputError(
            f"{said}; expected uint8, uint16 or floats in [0, 1]: convert values from 0 to 255 with "
            ".astype(np.uint8), and truth values or other numbers to floats in [0, 1]"
        )
    if channels != 4:
        return (image[..., None] if image.ndim == 2 else image).repeat(3 // channels, -1)
    if background is None:
        raise InputError(
            f'{said}; give background="white" if its last channel is alpha, or image[..., :3] to ignore it'
        )
    if image.dtype.kind == "f":
        alpha = image[..., 3:].astype(np.float64)
        mixed: np.ndarray = alpha * image[..., :3] + (1 - alpha) * (np.array(background) / 255)
        return mixed
    native = image.astype(image.dtype.newbyteorder("="))
    return laid_on(native[..., :3], native[..., 3], background)


def _tensor(pixels: np.ndarray) -> Tensor:
    """(..., H, W, 3) -> (..., 3, H, W) in memory of its own, float32 in [0, 1] unless it is uint8."""
    pixels = np.moveaxis(pixels, -1, -3)
    if pixels.dtype == np.uint8:
        return torch.from_numpy(np.array(pixels, order="C"))
    most = 65535 if pixels.dtype.kind == "u" else 1
    return torch.from_numpy(np.array(pixels, dtype=np.float32, order="C") / np.float32(most))


def _explanation(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, InputError):
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
