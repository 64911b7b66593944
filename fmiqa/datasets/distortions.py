"""Distortions of the demo data set, each from barely visible to severe."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fmiqa._checks import check_picture, is_count
from fmiqa.errors import InputError

__all__ = ["DISTORTIONS", "Distortion", "distort"]


@dataclass(frozen=True)
class Distortion:
    """One kind of distortion.

    Args:
        apply: (image (3, H, W) uint8, strength, rng) -> (3, H, W) uint8.
        faint: The strength of the first level.
        severe: The strength of the last level; those between are spaced geometrically.
    """

    apply: Callable[[Tensor, float, np.random.Generator], Tensor]
    faint: float
    severe: float

    def __call__(self, image: Tensor, level: int, levels: int, rng: np.random.Generator) -> Tensor:
        """The image at a level from 1 to `levels`."""
        step = (level - 1) / max(1, levels - 1)
        return self.apply(image, self.faint * (self.severe / self.faint) ** step, rng)


def _white_noise(image: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return _to_uint8(image + deviation * noise)


def _blur(image: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    half = math.ceil(3 * sigma)
    if min(image.shape[1:]) <= half:
        raise InputError(
            f"an image of {image.shape[1]}x{image.shape[2]} pixels is too small to be blurred at this level: it needs "
            f"more than {half} a side"
        )
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1, device="cpu") / sigma) ** 2)
    taps /= taps.sum()
    x = F.pad(image[:, None].float(), (half, half, half, half), mode="reflect")
    return _to_uint8(F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[:, 0])


def _jpeg(image: Tensor, quality: float, rng: np.random.Generator) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=round(quality))
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).contiguous()


def _desaturation(image: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    luma = (image * torch.tensor([0.299, 0.587, 0.114], device="cpu").view(3, 1, 1)).sum(0)
    return _to_uint8(torch.lerp(image.float(), luma.expand(3, -1, -1), amount))


def _contrast_loss(image: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    x = image.float()
    return _to_uint8(torch.lerp(x, x.mean().expand_as(x), amount))


def _quantization(image: Tensor, step: float, rng: np.random.Generator) -> Tensor:
    return _to_uint8(((image / step).floor() + 0.5) * step)


DISTORTIONS = {
    "white noise": Distortion(_white_noise, 3.0, 45.0),  # deviation, of 255
    "Gaussian blur": Distortion(_blur, 0.5, 4.5),  # sigma in pixels
    "JPEG": Distortion(_jpeg, 85.0, 3.0),  # quality
    "desaturation": Distortion(_desaturation, 0.12, 1.0),  # share of the colour that is lost
    "contrast loss": Distortion(_contrast_loss, 0.08, 0.75),  # share of the contrast that is lost
    "quantization": Distortion(_quantization, 12.0, 128.0),  # step, of 255
}


def distort(image: Tensor, kind: str, *, level: int, levels: int = 5, seed: int = 0) -> Tensor:
    """Distort an image as `Demo` does: to try metrics out, not in place of the images of a study.

    Args:
        image: (3, H, W) uint8.
        kind: `"white noise"`, `"Gaussian blur"`, `"JPEG"`, `"desaturation"`, `"contrast loss"` or `"quantization"`.
        level: From 1, barely visible, to `levels`, severe; between them the strength grows by equal factors.
        levels: Number of levels.
        seed: Seed of the white noise; the other kinds have nothing random.

    Returns:
        (3, H, W) uint8, on the image's device.

    Raises:
        InputError: An image of another form, or too small to be blurred so much; an unknown kind; a level or a seed out
            of its range.

    Example:
        >>> image = torch.full((3, 8, 8), 128, dtype=torch.uint8)
        >>> distort(image, "quantization", level=5)[:, 0, 0].tolist()
        [192, 192, 192]
    """
    check_picture(image, "image")
    if image.dtype != torch.uint8:
        raise InputError(
            f"image is uint8 from 0 to 255, got {image.dtype}; convert floats in [0, 1] with "
            "(255 * image).round().to(torch.uint8)"
        )
    if not isinstance(kind, str) or kind not in DISTORTIONS:
        raise InputError(f"kind is one of {', '.join(map(repr, DISTORTIONS))}, got {kind!r}")
    if not (is_count(levels) and is_count(level) and level <= levels):
        raise InputError(f"level is a whole number from 1 to levels, got level {level!r} of {levels!r}")
    if not is_count(seed, 0):
        raise InputError(f"seed is a whole number from 0, got {seed!r}")
    return DISTORTIONS[kind](image.cpu(), level, levels, np.random.default_rng(seed)).to(image.device)


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
