"""Histogram intersection of a layer over a spatial pyramid (after Amirshahi, Pedersen, Yu 2016)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._runtime.precision import at_least_float32
from fmiqa.errors import InputError
from fmiqa.measures.base import check_maps, check_pair, check_prepared, mean_similarity

__all__ = ["PyramidIntersection"]


class _Pyramid(NamedTuple):
    shape: tuple[int, ...]  # of the maps, (N or 1, C, H, W)
    levels: list[Tensor]  # (N or 1, C, 2^k, 2^k), what each map has of all that is in a region


@dataclass(frozen=True)
class PyramidIntersection:
    """How alike a layer is in both images, over a spatial pyramid: from 0 to 1; higher is better.

    Level k of the pyramid divides the maps into 2^k x 2^k regions (which share a row or column where sides do not go
    into 2^k). A region's histogram has a bin for each map of the layer: the sum of the map's positive values there,
    as a share of all maps'. Two regions are as alike as their histograms' intersection; two without any positive value
    are alike (1), one such and another are not (0). The mean over a level's regions, and the mean over levels, is the
    layer's value, and every map of the layer has it.

    Args:
        levels: Number of levels of the pyramid; level 0 is the whole map.

    Raises:
        InputError: Options out of range.

    Example:
        >>> maps = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> PyramidIntersection()(maps.flip(1), maps)
        tensor([[0.5000, 0.5000]])
    """

    levels: int = 3

    name: ClassVar[str] = "pyramid"
    higher_is_better: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    whole_layers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or isinstance(self.levels, bool) or self.levels < 1:
            raise InputError(f"levels is a whole number from 1, got {self.levels!r}")

    def options(self) -> dict[str, Any]:
        """The settings that define the measure."""
        return {"name": self.name, **asdict(self)}

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The layer's value, once for each map.

        Args:
            test: (N, C, H, W) float, all maps of a layer.
            reference: (N, C, H, W) or (1, C, H, W) float.

        Returns:
            (N, C), from 0 to 1.

        Raises:
            InputError: Shapes that do not go together.
        """
        return self.compare(test, self.prepare(reference))

    def prepare(self, reference: Tensor) -> _Pyramid:
        """The histograms of the reference.

        Raises:
            InputError: Not (N, C, H, W).
        """
        check_maps(self.name, reference)
        positive = at_least_float32(reference).relu()
        sums = [F.adaptive_avg_pool2d(positive, 2**k) for k in range(self.levels)]
        return _Pyramid(tuple(reference.shape), [_shares(s) for s in sums])

    def compare(self, test: Tensor, prepared: _Pyramid) -> Tensor:
        """The layer's value of test maps (N, C, H, W) against the reference of N images or of one, for each map.

        Raises:
            InputError: Shapes that do not go together.
        """
        check_prepared(self.name, prepared, _Pyramid)
        own = self.prepare(test)
        check_pair(self.name, test, prepared.shape, prepared.levels[0])
        levels = [
            mean_similarity(_intersection(x, y), (-2, -1)) for x, y in zip(own.levels, prepared.levels, strict=True)
        ]
        return mean_similarity(torch.stack(levels), 0)[:, None].expand(test.shape[:2])


def _shares(sums: Tensor) -> Tensor:
    """(N, C, 2^k, 2^k) what each map has of a region's sum; all 0 in an empty region."""
    # No floating-point number holds the slope of subnormal sums: their gradient is 0.
    tiny = torch.finfo(sums.dtype).tiny
    sums = torch.where(sums.detach().sum(1, keepdim=True) < tiny, sums.detach(), sums)
    total = sums.sum(1, keepdim=True)
    return sums / torch.where(total == 0, 1.0, total)


def _intersection(x: Tensor, y: Tensor) -> Tensor:
    """(N, 2^k, 2^k) of shares that add up to 1, or to 0 in an empty region."""
    common = 1 - (x - y).abs().sum(1) / 2  # the sum of the smaller ones, and exactly 1 where they are equal
    empty_x, empty_y = ((side == 0).all(1) for side in (x, y))
    return torch.where(empty_x | empty_y, (empty_x & empty_y).to(common), common.clamp(min=0))
