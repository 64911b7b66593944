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

from fmiqa._checks import check_tensor, is_count
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
    """A distorted copy of an image, to try something out: what `Demo` does to its pictures.

    Args:
        image: (3, H, W) uint8.
        kind: `"white noise"`, `"Gaussian blur"`, `"JPEG"`, `"desaturation"`, `"contrast loss"` or `"quantization"`.
        level: From 1, barely visible, to `levels`, severe.
        levels: Number of levels.
        seed: Seed of the white noise.

    Returns:
        (3, H, W) uint8, on the image's device.

    Raises:
        InputError: An unknown kind, a level out of range, an image of another form.

    Example:
        >>> image = torch.full((3, 8, 8), 128, dtype=torch.uint8)
        >>> distort(image, "quantization", level=5)[:, 0, 0].tolist()
        [192, 192, 192]
    """
    if not isinstance(kind, str) or kind not in DISTORTIONS:
        raise InputError(f"kind is one of {', '.join(map(repr, DISTORTIONS))}, got {kind!r}")
    if not (is_count(levels) and is_count(level) and level <= levels):
        raise InputError(f"level is from 1 to levels, got level {level!r} of {levels!r}")
    if check_tensor(image, "image (3, H, W)").ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise InputError(f"image is (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}")
    return DISTORTIONS[kind](image.cpu(), level, levels, np.random.default_rng(seed)).to(image.device)


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
