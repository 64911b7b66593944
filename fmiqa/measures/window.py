"""The Gaussian window that SSIM and its relatives see maps through.

Moments through a window cancel in float32 where a map lies far from zero, so that one constant is taken off each map
first: the level of its flat places. Its mean would not do: most of a map after a ReLU is exactly 0, and subtracting a
mean of 5 put errors of 5e-4 into whole scores of real AlexNet and VGG maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional as F

from fmiqa._checks import is_positive, is_recording, is_transformed
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError

__all__ = ["SMALLEST_WINDOW", "blur", "check_window", "fitting_side", "flat_level", "gaussian_taps", "moments", "seen"]

SMALLEST_WINDOW = 3

# Products with a matrix of the window's weights cost arithmetic that grows with a map's side, on GPUs; up to this side
# less than the convolution, which goes through every tap of every window by itself.
_LONGEST_BAND = 192


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
    if torch.compiler.is_compiling():
        if torch.onnx.is_in_onnx_export():  # whose runtimes would not fuse the slices
            return _convolved(x, taps, axis)
        # Shifted slices, symmetric taps paired: one loop.
        n, half = x.shape[axis] - len(taps) + 1, len(taps) // 2
        y = x.narrow(axis, half, n) * taps[half]
        for k in range(half):
            y = y + (x.narrow(axis, k, n) + x.narrow(axis, len(taps) - 1 - k, n)) * taps[k]
        return y
    with strict_float32(x.device):
        if x.is_cpu or x.shape[axis] > _LONGEST_BAND:
            # A depthwise convolution: the fastest eager form on CPUs, and for large maps on GPUs.
            return _convolved(x, taps, axis)
        band = _constant(_band, (x.shape[axis], *taps), x)
        return x @ band if axis == -1 else band.mT @ x


def _convolved(x: Tensor, taps: list[float], axis: int) -> Tensor:
    return F.conv2d(x, _constant(_filters, (x.shape[1], axis, *taps), x), groups=x.shape[1])


def _filters(channels: int, axis: int, *taps: float) -> Tensor:
    """(channels, 1, taps, 1), or (channels, 1, 1, taps) for the axis -1."""
    row = torch.tensor([taps], dtype=torch.float64, device="cpu")
    return (row if axis == -1 else row.mT).repeat(channels, 1, 1, 1)


def _band(length: int, *taps: float) -> Tensor:
    """(length, windows): a product with it takes the weighted sums of all windows along a side of this length."""
    windows = torch.arange(length - len(taps) + 1, device="cpu")
    band = torch.zeros(length, len(windows), dtype=torch.float64, device="cpu")
    for k, tap in enumerate(taps):
        band[windows + k, windows] = tap
    return band


def _constant(make: Callable[..., Tensor], options: tuple[float, ...], x: Tensor) -> Tensor:
    """What `make` gives of the options, as a tensor like x: made once, and kept on its device."""
    passing = is_recording() or is_transformed(x) or isinstance(x, FakeTensor)  # tensors of use only inside
    return (_made.__wrapped__ if passing else _made)(make, options, x.dtype, x.device)


@lru_cache(maxsize=256)
def _made(make: Callable[..., Tensor], options: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a later call may want gradients
        return make(*options).to(device, dtype).contiguous()


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
