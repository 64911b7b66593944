"""Colours of images as sRGB: embedded profiles are applied, and transparent pixels are laid on a background."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageCms, ImageColor

from fmiqa._checks import is_count
from fmiqa.errors import InputError

__all__ = ["Background", "background_colour", "colours_of", "has_alpha", "laid_on", "profile_transform"]

Background: TypeAlias = "str | tuple[int, int, int]"
"""A colour in sRGB: a name or `#rrggbb` of CSS, or red, green and blue from 0 to 255."""

_WITH_ALPHA = ("LA", "PA", "RGBA")
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_FLAGS = 0x2000 | 0x0040  # black point compensation; no cache, so that threads may share a transform


def background_colour(background: Background | None) -> tuple[int, int, int] | None:
    """Red, green and blue from 0 to 255; None where no background is given.

    Raises:
        InputError: It is no colour, or is transparent itself.

    Example:
        >>> background_colour("white"), background_colour("#102030"), background_colour((0, 128, 255))
        ((255, 255, 255), (16, 32, 48), (0, 128, 255))
    """
    colour: Any = background
    if isinstance(background, str):
        try:
            colour = ImageColor.getrgb(background)
        except ValueError:
            colour = None
    elif background is None:
        return None
    if not (isinstance(colour, tuple | list) and len(colour) == 3 and all(is_count(c, 0) and c < 256 for c in colour)):
        raise InputError(
            f"background={background!r} is no opaque colour; give a name such as 'white', '#rrggbb', or three whole "
            "numbers (red, green, blue) from 0 to 255"
        )
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def has_alpha(image: Image.Image) -> bool:
    """Whether an image may have transparent pixels: by an alpha channel, or by a transparent colour."""
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def colours_of(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels of a decoded image of up to 8 bits a channel.

    Returns:
        (H, W, 3) uint8 in sRGB; and alpha, (H, W) uint8, or None where the image has none.

    Raises:
        InputError: As `profile_transform`.
    """
    transform = profile_transform(image)
    if transform is None:
        plain = image if image.mode == "RGB" else image.convert("RGB")
    else:
        plain = transform.apply(image.convert(transform.input_mode))
    if not has_alpha(image):
        return np.array(plain), None
    whole = image if image.mode == "RGBA" else image.convert("RGBA")
    return np.array(plain), np.array(whole.getchannel("A"))


def profile_transform(image: Image.Image) -> Any:
    """What takes the colours of an image to sRGB by its ICC profile: relative colorimetric, black point compensated.

    Returns:
        A `PIL.ImageCms.ImageCmsTransform`; None where there is no profile, or it is that of sRGB.

    Raises:
        InputError: The profile is damaged, or of other colours than the pixels.
    """
    if "icc_profile" not in image.info:
        return None
    grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    kind = "CMYK" if image.mode == "CMYK" else "L" if grey else "RGB"
    return _transform(image.info["icc_profile"] or b"", kind)


@lru_cache(maxsize=32)
def _transform(content: bytes, mode: str) -> Any:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        space = profile.profile.xcolor_space.strip()
        mode = "RGB" if mode == "L" and space == "RGB" else mode
        if _SPACES[mode] != space:
            raise InputError(
                f"a colour profile (ICC) of {space} colours, while its pixels are {_SPACES[mode]}; remove the profile, "
                "or embed the right one"
            )
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=_FLAGS,  # type: ignore[arg-type]
        )
        return None if _is_srgb(transform) else transform
    except (OSError, ImageCms.PyCMSError) as error:
        raise InputError(
            f"a colour profile (ICC) that is damaged, or not of an image ({error}); if the pixels are sRGB, remove it"
        ) from error


def _is_srgb(transform: Any) -> bool:
    """Whether it moves no colour of a grid by more than one level: profiles of sRGB differ by how they are rounded."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if transform.input_mode == "CMYK":
        return False
    if transform.input_mode == "L":
        colours = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    given = Image.fromarray(colours).convert(transform.input_mode)
    moved = np.array(transform.apply(given)).astype(int) - colours
    return bool(np.abs(moved).max() <= 1)


def laid_on(
    colours: np.ndarray, alpha: np.ndarray | None, background: tuple[int, int, int] | None, *, multiplied: bool = False
) -> np.ndarray:
    """Pixels on a background, mixed by sRGB values and rounded to their own depth, as browsers show them.

    Args:
        colours: (H, W, 3) uint8 or uint16.
        alpha: (H, W), of the same dtype; None where all pixels are opaque.
        background: Red, green and blue from 0 to 255; None where none is given.
        multiplied: Whether the colours were stored multiplied by alpha.

    Raises:
        InputError: There are transparent pixels and no background, or their colours are multiplied by alpha.
    """
    most = np.iinfo(colours.dtype).max
    if alpha is None or alpha.min() == most:
        return colours
    if background is None:
        raise InputError(
            "transparent pixels, and no background to lay them on; name the one that it was shown on, such as "
            'background="white" (--background white), or save it as RGB'
        )
    if multiplied:
        raise InputError("transparent pixels, with colours stored multiplied by alpha; save it with straight alpha")
    # All fits into 32 bits: 65535 * 65535 + 65535 // 2 < 2**32. A quotient by an odd number never lies halfway.
    shares = alpha[..., None].astype(np.uint32)
    behind = np.array(background, dtype=np.uint32) * np.uint32(most // 255)
    mixed = colours * shares + behind * (most - shares)
    return ((mixed + np.uint32(most // 2)) // np.uint32(most)).astype(colours.dtype)
