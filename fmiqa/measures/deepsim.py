"""The SSIM of DeepSim (Gao et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._checks import is_positive
from fmiqa.errors import InputError
from fmiqa.measures.base import MapMeasure, Sides, mean_similarity
from fmiqa.measures.window import gaussian_taps, moments, seen

__all__ = ["DeepSimSSIM"]

_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
_TAPS = gaussian_taps(_WINDOW, _SIGMA)


@dataclass(frozen=True)
class DeepSimSSIM(MapMeasure):
    """SSIM as DeepSim has it: from -1 to 1; higher is better.

    F. Gao et al., "DeepSim: Deep similarity for image quality assessment", Neurocomputing 257, 2017, and its authors'
    code. Unlike `SSIM`, the 11x11 Gaussian window (sigma 1.5) is laid on every position of the map, with zeros
    around, so that a map of any size has a value; and L is for each pair of maps the larger of both largest
    magnitudes and 1. K1 = .01, K2 = .03. Since no value is larger than L, float32 costs a score at most about 1e-4,
    on maps far from zero with little contrast.

    Args:
        pool: How the SSIM map is pooled: `"mean"`, or `"lowest"`, the mean of its lowest values.
        fraction: Share of the map that counts as lowest, rounded up to whole positions; the code takes 10 %.

    Raises:
        InputError: Options out of range.

    Example:
        >>> reference = torch.rand(1, 3, 7, 5)
        >>> DeepSimSSIM()(reference, reference)
        tensor([[1., 1., 1.]])
        >>> bool((DeepSimSSIM("lowest")(1 - reference, reference) < DeepSimSSIM()(1 - reference, reference)).all())
        True
    """

    pool: Literal["mean", "lowest"] = "mean"
    fraction: float = 0.1

    name: ClassVar[str] = "deepsim"
    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if not isinstance(self.pool, str) or self.pool not in ("mean", "lowest"):
            raise InputError(f"pool is 'mean' or 'lowest', got {self.pool!r}")
        if not is_positive(self.fraction) or self.fraction > 1:
            raise InputError(f"fraction is over 0 and at most 1, got {self.fraction!r}")

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return maps, *moments(_padded(maps), _TAPS), _peak(maps)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        maps, mean_y, variance_y, peak = sides
        limit = torch.maximum(_peak(test), peak).clamp(min=1)
        c1, c2 = (_K1 * limit).square(), (_K2 * limit).square()
        mean_x, variance_x = moments(_padded(test), _TAPS)
        unlike = (seen(_padded(test - maps).square(), _TAPS) - (mean_x - mean_y).square()).clamp(min=0)
        # (2 cov + c2) / (var x + var y + c2), and exactly 1 where the maps are equal; likewise the luminance.
        structure = 1 - unlike / (variance_x + variance_y + c2)
        luminance = 1 - (mean_x - mean_y).square() / (mean_x * mean_x + mean_y * mean_y + c1)
        local = (luminance * structure).flatten(2)
        if self.pool == "lowest":
            local = local.topk(math.ceil(self.fraction * local.shape[-1]), largest=False).values
        return mean_similarity(local, -1)


def _peak(maps: Tensor) -> Tensor:
    return maps.abs().amax((-2, -1), keepdim=True)


def _padded(maps: Tensor) -> Tensor:
    """Maps with zeros around, so that the window has a place at each position of theirs."""
    return F.pad(maps, [_WINDOW // 2] * 4)
