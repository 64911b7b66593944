"""Gradient-magnitude similarity of feature maps (Xue et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fmiqa._checks import is_positive
from fmiqa._runtime.precision import at_least_float32
from fmiqa.errors import InputError
from fmiqa.measures.base import DataRange, MapMeasure, Sides, mean_similarity

__all__ = ["GMS", "GMSD"]


@dataclass(frozen=True)
class GMS(MapMeasure):
    r"""Gradient-magnitude similarity, its mean over the map (GMSM): from 0 to 1; higher is better.

    At each position, with the magnitudes a and b of both maps' gradients by 3x3 Prewitt filters:

    .. math::

        \frac{2 a b + c L^2}{a^2 + b^2 + c L^2}

    Xue et al., "Gradient magnitude similarity deviation", IEEE TIP 2014, eqs. 1 to 5. Two things differ from images
    there: maps are not halved first, since a network has done that, and there is no padding, whose rim is not the
    map's.

    Args:
        data_range: L, see `fmiqa.measures.DataRange`.
        c: Constant of the similarity. The default is the paper's, for L = 1.

    Raises:
        InputError: Options out of range.

    Example:
        >>> import torch
        >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        >>> GMS()(ramp, ramp), GMS()(ramp, 0 * ramp).round(decimals=4)
        (tensor([[1.]]), tensor([[0.0006]]))
    """

    data_range: DataRange = 1.0
    c: float = 0.0026

    name: ClassVar[str] = "gms"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    smallest: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_positive(self.c):
            raise InputError(f"c is positive, got {self.c!r}")

    @property
    def tile_window(self) -> int | None:
        """Side of the windows whose mean the score is; None where it also depends on the whole map."""
        return None if isinstance(self.data_range, str) else 3

    def local(self, test: Tensor, reference: Tensor) -> Tensor:
        """The similarity at each position, (N, C, H - 2, W - 2); see a call for arguments and errors."""
        prepared = self.prepare(reference)
        limit = self._limit_of_pair(test, prepared)
        return self._local(at_least_float32(test), limit, prepared.sides[0])

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        return (_magnitude(maps),)

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        return mean_similarity(self._local(test, limit, sides[0]), (-2, -1))

    def _local(self, test: Tensor, limit: Tensor, magnitude: Tensor) -> Tensor:
        a, b = _magnitude(test) / limit, magnitude / limit
        return 1 - (a - b).square() / (a * a + b * b + self.c)  # the same as above, and exactly 1 where a = b


@dataclass(frozen=True)
class GMSD(GMS):
    """The standard deviation of the gradient-magnitude similarity over the map: from 0 to 1/2; lower is better.

    Args:
        data_range: See `GMS`.
        c: See `GMS`.

    Example:
        >>> import torch
        >>> ramp = torch.arange(8.0).expand(1, 1, 8, 8)
        >>> GMSD()(ramp, ramp)
        tensor([[0.]])
    """

    name: ClassVar[str] = "gmsd"
    higher_is_better: ClassVar[bool] = False
    value_range: ClassVar[tuple[float, float]] = (0.0, 0.5)
    tile_window: ClassVar[None] = None

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        unlike = 1 - self._local(test, limit, sides[0])
        variance = (unlike - unlike.mean((-2, -1), keepdim=True)).square().mean((-2, -1))
        # The root's slope at 0 is infinite: the gradient is 0 there. A variance of NaN remains.
        equal = variance == 0
        return torch.where(equal, 1.0, variance).sqrt() * ~equal


def _magnitude(maps: Tensor) -> Tensor:
    """(N, C, H - 2, W - 2) of the gradient, differences taken before sums so that a far level costs no digits."""
    rise = maps[..., 2:, :] - maps[..., :-2, :]
    run = maps[..., 2:] - maps[..., :-2]
    down = (rise[..., :-2] + rise[..., 1:-1] + rise[..., 2:]) / 3
    across = (run[..., :-2, :] + run[..., 1:-1, :] + run[..., 2:, :]) / 3
    flat = (down == 0) & (across == 0)  # where the root of 0 has no slope
    return torch.hypot(torch.where(flat, 1.0, down), across) * ~flat
