"""Peak signal-to-noise ratio of feature maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fmiqa._checks import is_positive
from fmiqa.errors import InputError
from fmiqa.measures.base import DataRange, MapMeasure, Sides

__all__ = ["PSNR"]


@dataclass(frozen=True)
class PSNR(MapMeasure):
    r"""Peak signal-to-noise ratio in dB, no more than a ceiling; higher is better.

    .. math::

        10 \log_{10} \frac{L^2}{\operatorname{MSE}(x, y)}

    Equal maps would have an infinite ratio. Maps are often dead in both images, and one such value would be the mean
    of every set of maps that it is in, so equal maps have the value of the ceiling. A low one keeps dead maps from
    outweighing the others in a mean.

    Args:
        data_range: L, see `fmiqa.measures.DataRange`.
        ceiling: Highest value, in dB. The default is an error of .001 L; with L = 1, hardly any of AlexNet's maps of
            damaged pictures come so near unless they are equal.

    Raises:
        InputError: Options out of range.

    Example:
        >>> import torch
        >>> PSNR()(torch.full((1, 1, 4, 4), 0.1), torch.zeros(1, 1, 4, 4))
        tensor([[20.]])
        >>> PSNR()(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        tensor([[60.]])
    """

    data_range: DataRange = 1.0
    ceiling: float = 60.0

    name: ClassVar[str] = "psnr"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_positive(self.ceiling):
            raise InputError(f"ceiling is a positive number of dB, got {self.ceiling!r}")

    @property
    def value_range(self) -> tuple[float, float]:
        """No lower bound: an error may be larger than L."""
        return -math.inf, self.ceiling

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return (maps,)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        noise = ((test - sides[0]) / limit).square().mean((-2, -1))
        return (-10 * noise.clamp(min=10 ** (-self.ceiling / 10)).log10()).clamp(max=self.ceiling)
