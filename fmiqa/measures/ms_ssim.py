"""Multi-scale SSIM of feature maps (Wang, Simoncelli, Bovik 2003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa.measures.base import DataRange, MapMeasure, Sides, mean_similarity
from fmiqa.measures.window import SMALLEST_WINDOW, check_window, fitting_side, flat_level, gaussian_taps, moments, seen

__all__ = ["MSSSIM"]

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first: section 3.2


@dataclass(frozen=True)
class MSSSIM(MapMeasure):
    r"""Multi-scale SSIM: the contrast-structure terms of several scales and the SSIM of the last: from 0 to 1.

    .. math::

        \overline{\operatorname{SSIM}_S}^{\,w_S} \prod_{s=1}^{S-1} \overline{\operatorname{CS}_s}^{\,w_s}, \quad
        \operatorname{CS} = \frac{2 \sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}

    Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multi-scale structural similarity for image quality assessment",
    Asilomar 2003, eq. 7. Each scale is the 2x2 mean of the one before, an odd last row or column left out.

    Feature maps are small. There are five scales where the window fits the fifth, else as many as it fits (AlexNet's
    five layers on a 512x384 image have 4, 3, 2, 2, 2), at least one; the paper's weights of these scales are divided
    by their sum. So maps of several sizes are not on quite the same scale. The mean of a scale can be negative where
    structures are opposed, and then has no power: it counts as 0, and so does the whole.

    Args:
        data_range: L, see `fmiqa.measures.DataRange`.
        window: Side of the Gaussian window, odd. A map smaller than this, with sides of at least 3, is seen through
            the largest odd window that fits it.
        sigma: Standard deviation of the window, in positions of each scale.
        k1: Constant of the luminance term.
        k2: Constant of the contrast-structure terms.

    Raises:
        InputError: Options out of range.

    Example:
        >>> reference = torch.rand(1, 4, 44, 60)
        >>> MSSSIM()(reference.expand(2, -1, -1, -1), reference).shape
        torch.Size([2, 4])
        >>> MSSSIM().scales(44, 60)
        3
    """

    data_range: DataRange = 1.0
    window: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03

    name: ClassVar[str] = "ms-ssim"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    smallest: ClassVar[int] = SMALLEST_WINDOW

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.window, self.sigma, self.k1, self.k2)

    def scales(self, height: int, width: int) -> int:
        """How many scales maps of this size have."""
        fitting = (min(height, width) >> k >= self.window for k in range(len(_WEIGHTS)))
        return max(1, sum(fitting))

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        # As in SSIM: one constant a map is taken off first, lest the variance of flat places cancel away.
        size = limit.detach()
        shift = size * flat_level(maps.detach() / size, self.k2**2)
        sides = [shift]
        taps, y = self._taps(maps), maps - shift
        for scale in range(self.scales(*maps.shape[-2:])):
            y = F.avg_pool2d(y, 2) if scale else y
            sides += [y, *moments(y, taps)]
        return tuple(sides)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        shift, *levels = sides
        taps, x = self._taps(test), (test - shift) / limit
        level = shift / limit
        scales = len(levels) // 3
        weights = _WEIGHTS[:scales]
        score = torch.ones_like(test[..., 0, 0])
        for scale, weight in enumerate(weights):
            y, mean_y, variance_y = levels[3 * scale : 3 * scale + 3]
            x = F.avg_pool2d(x, 2) if scale else x
            (mean_x, variance_x), mean_y = moments(x, taps), mean_y / limit
            unlike = (seen((x - y / limit).square(), taps) - (mean_x - mean_y).square()).clamp(min=0)
            alike = 1 - unlike / (variance_x + variance_y / limit / limit + self.k2**2)
            if scale == scales - 1:
                a, b, c1 = mean_x + level, mean_y + level, self.k1**2
                alike = alike * (1 - (mean_x - mean_y).square() / (a * a + b * b + c1))
            mean = mean_similarity(alike, (-2, -1))
            opposed = mean <= 0  # NaN is not, and remains
            score = score * torch.where(opposed, 1.0, mean).pow(weight / sum(weights)) * ~opposed
        return score

    def _taps(self, maps: Tensor) -> list[float]:
        """The window's weights along one side, for maps of this size."""
        return gaussian_taps(fitting_side(self.window, maps), self.sigma)
