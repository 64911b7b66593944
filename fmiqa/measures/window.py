"""The Gaussian window that SSIM and its relatives see maps through.

Moments through a window cancel in float32 where a map lies far from zero, so that one constant is taken off each map
first: the level of its flat places. Its mean would not do: most of a map after a ReLU is exactly 0, and subtracting a
mean of 5 put errors of 5e-4 into whole scores of real AlexNet and VGG maps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._checks import is_positive
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError

__all__ = ["SMALLEST_WINDOW", "blur", "check_window", "fitting_side", "flat_level", "gaussian_taps", "moments", "seen"]

SMALLEST_WINDOW = 3


def check_window(window: int, sigma: float, k1: float, k2: float) -> None:
    """Raise `InputError` unless a window and the constants of SSIM are in range."""
    if not isinstance(window, int) or window < SMALLEST_WINDOW or window % 2 == 0:
        raise InputError(f"window must be odd and at least {SMALLEST_WINDOW}, got {window!r}")
    if not all(is_positive(v) for v in (sigma, k1, k2)):
        raise InputError(f"sigma, k1 and k2 must be positive, got {sigma}, {k1}, {k2}")


def fitting_side(window: int, maps: Tensor) -> int:
    """The side of the largest odd window that fits maps (..., H, W) and is no larger than `window`."""
    side: int = min(window, *maps.shape[-2:])
    return side - (side % 2 == 0)


def gaussian_taps(side: int, sigma: float) -> list[float]:
    """The window's weights along one side, with the sum 1.

    Example:
        >>> [round(w, 3) for w in gaussian_taps(3, 1.5)]
        [0.308, 0.384, 0.308]
    """
    weights = [math.exp(-((k - side // 2) ** 2) / (2 * sigma**2)) for k in range(side)]
    return [w / sum(weights) for w in weights]


def blur(x: Tensor, taps: list[float], axis: int) -> Tensor:
    """Weighted sums along one side (axis -2 or -1) of maps (N, C, H, W), of full windows only."""
    if x.is_cpu and not torch.compiler.is_compiling():
        # A depthwise convolution: the fastest eager form on CPUs.
        side = [1, 1]
        side[axis] = len(taps)
        weight = x.new_tensor(taps).expand(x.shape[1], 1, -1).reshape(-1, 1, *side)
        with strict_float32("cpu"):
            return F.conv2d(x, weight, groups=x.shape[1])
    # Shifted slices, symmetric taps paired: no reduced-precision convolution on GPUs, one loop when compiled.
    n, half = x.shape[axis] - len(taps) + 1, len(taps) // 2
    y = x.narrow(axis, half, n) * taps[half]
    for k in range(half):
        y = y + (x.narrow(axis, k, n) + x.narrow(axis, len(taps) - 1 - k, n)) * taps[k]
    return y


def seen(maps: Tensor, taps: list[float]) -> Tensor:
    """The window's mean at each of its positions: (N, C, H, W) -> (N, C, H - side + 1, W - side + 1)."""
    return blur(blur(maps, taps, -2), taps, -1)


def moments(maps: Tensor, taps: list[float]) -> tuple[Tensor, Tensor]:
    """The window's mean and variance at each of its positions."""
    mean, power = seen(maps, taps), seen(maps * maps, taps)
    return mean, (power - mean * mean).clamp(min=0)


def flat_level(maps: Tensor, c2: Tensor | float) -> Tensor:
    """The mean value of each map, in which flat places count most: (N, C, H, W) -> (N, C, 1, 1).

    A window's rounding error is about its distance from the level, squared, over its variance and c2.
    """
    left = maps[..., :-1]
    weight = ((maps[..., 1:] - left).square() + c2).reciprocal()
    return (weight * left).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True)
