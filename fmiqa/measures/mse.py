"""Mean squared error of feature maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fmiqa.measures.base import MapMeasure, Sides

__all__ = ["MSE"]


@dataclass(frozen=True)
class MSE(MapMeasure):
    r"""Mean squared error: from 0, where maps are equal; lower is better.

    .. math::

        \frac{1}{HW} \sum_{i, j} (x_{ij} - y_{ij})^2

    Its unit is that of the maps, squared, so maps with large values weigh most where scores are averaged.

    Example:
        >>> import torch
        >>> MSE()(torch.full((2, 1, 4, 4), 3.0), torch.ones(1, 1, 4, 4))
        tensor([[4.],
                [4.]])
    """

    name: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    value_range: ClassVar[tuple[float, float]] = (0.0, math.inf)
    tile_window: ClassVar[int] = 1

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return (maps,)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        return (test - sides[0]).square().mean((-2, -1))
