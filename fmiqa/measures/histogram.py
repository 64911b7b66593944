"""Histogram intersection of feature maps (Swain and Ballard 1991)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.measures.base import DataRange, MapMeasure, Sides

__all__ = ["HistogramIntersection", "to_unit"]


@dataclass(frozen=True)
class HistogramIntersection(MapMeasure):
    """What the histograms of both maps' values have in common: from 0 to 1; higher is better.

    Bins of one width on [0, L], or on [-L, L] where the reference map has negative values; what lies beyond goes
    into the outer bins. Where values are does not matter, only how many there are; and since counts do not move with
    small changes of a map, the measure has no gradient. M. J. Swain, D. H. Ballard, "Color indexing", IJCV 1991.

    Args:
        data_range: L, see `fmiqa.measures.DataRange`.
        bins: How many.

    Raises:
        InputError: Options out of range.

    Example:
        >>> import torch
        >>> reference = torch.tensor([0.1, 0.1, 0.9, 1.0]).view(1, 1, 2, 2)
        >>> HistogramIntersection(bins=2)(torch.tensor([0.2, 0.9, 0.9, 5.0]).view(1, 1, 2, 2), reference)
        tensor([[0.7500]])
    """

    data_range: DataRange = "reference"
    bins: int = 64

    name: ClassVar[str] = "histogram"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    _held: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.bins, int) or self.bins < 2:
            raise InputError(f"bins is a whole number from 2, got {self.bins!r}")

    def _reference(self, maps: Tensor, limit: Tensor) -> Sides:
        signed = (maps < 0).flatten(2).any(-1)[..., None, None]
        # The histogram itself, where it does not depend on the test maps.
        return (maps if self.data_range == "pair" else self._counts(to_unit(maps, limit, signed))), signed

    def _score(self, test: Tensor, limit: Tensor, sides: Sides) -> Tensor:
        reference, signed = sides
        counts = self._counts(to_unit(test, limit, signed))
        if self.data_range == "pair":
            reference = self._counts(to_unit(reference, limit, signed))
        positions = test.shape[-2] * test.shape[-1]
        return (torch.minimum(counts, reference).sum(-1).double() / positions).to(test.dtype)

    def _counts(self, unit: Tensor) -> Tensor:
        """(N, C, bins) how many values of maps on [0, 1] lie in each bin."""
        bins = (unit * self.bins).long().clamp(max=self.bins - 1).flatten(2)
        counts = bins.new_zeros(*bins.shape[:2], self.bins)
        return counts.scatter_add(-1, bins, bins.new_ones(()).expand(bins.shape))


def to_unit(maps: Tensor, limit: Tensor, signed: Tensor) -> Tensor:
    """Values from [0, L], or where `signed` from [-L, L], to [0, 1]; what lies beyond is cut off."""
    unit = maps / limit
    return torch.where(signed, (unit + 1) / 2, unit).clamp(0, 1)
