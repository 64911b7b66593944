"""Correlation coefficient of feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fmiqa.measures.base import MapMeasure, Sides

__all__ = ["Correlation"]


@dataclass(frozen=True)
class Correlation(MapMeasure):
    """Pearson's correlation coefficient of the two maps' values: from -1 to 1; higher is better.

    It does not see levels and contrasts. So two constant maps are alike (1), whatever their levels; a constant map
    has nothing in common (0) with one that is not.

    Example:
        >>> import torch
        >>> maps = torch.rand(1, 2, 8, 8)
        >>> Correlation()(3 * maps - 1, maps).round(decimals=5)
        tensor([[1., 1.]])
        >>> Correlation()(torch.zeros(1, 2, 8, 8), maps)
        tensor([[0., 0.]])
    """

    name: ClassVar[str] = "correlation"
    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return (_standardised(maps),)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        own, other = _standardised(test), sides[0]
        flat, other_flat = ((side == 0).all(-1) for side in (own, other))
        # The product of two vectors of length 1, and exactly 1 where they are equal.
        alike = (1 - (own - other).square().sum(-1) / 2).clamp(-1, 1)
        return torch.where(flat | other_flat, (flat & other_flat).to(alike), alike)


def _standardised(maps: Tensor) -> Tensor:
    """(N, C, H W) values about their mean, of length 1; all 0 for a constant map."""
    values = maps.flatten(2)
    tiny = torch.finfo(values.dtype).tiny
    values = values - values[..., :1].detach()  # exactly 0 for a constant map, and no digits lost to a far level
    spread = values.detach().abs().amax(-1, keepdim=True)
    # No floating-point number holds the slope of subnormal values: their gradient is 0.
    values = torch.where(spread < tiny, values.detach(), values) / spread.clamp(min=tiny)
    values = values - values.mean(-1, keepdim=True)
    power = values.square().sum(-1, keepdim=True)
    return values * torch.where(power > 0, power, 1.0).rsqrt()
