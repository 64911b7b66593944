"""Sums over images from which all linear correlations of maps follow, and of sets of maps: Gram matrices.

The plain correlation (`fit=None`) of the mean of some maps with the subjective scores depends on the images through the
means and covariances of maps and scores alone. One pass over the images gives these, for as many images as there are;
a search then needs no image any more. What was summed over a part of the images, such as a fold, can be subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from fmiqa._progress import progress_bar
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.engine import Best, Tried
from fmiqa.selection.options import Direction, SearchOptions

__all__ = ["Gram", "LinearCandidates", "grams_of", "target_weights"]

_STRIP = 512  # columns of a product that are computed together, from the diagonal on: the matrix is symmetric
_ROUNDING = 1e-13  # of the sum of two variances: what is below, in their joint variance, is rounding


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over n images of the scores of M maps and of the subjective scores y, which is the last of M + 1 columns.

    Args:
        count: The number of images.
        sums: (M + 1,) float64, of scores less `shift`.
        products: (M + 1, M + 1) float64, the sums of products of two columns less their shifts.
        shift: (M + 1,) float64, numbers near the means, so that no digits are lost.
        low: (M,) the least score of each map.
        high: (M,) the greatest.
    """

    count: int
    sums: Tensor
    products: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor

    def __add__(self, other: Gram) -> Gram:
        """The sums over the images of both, which have the same shift."""
        return Gram(
            self.count + other.count,
            self.sums + other.sums,
            self.products + other.products,
            self.shift,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
        )

    def without(self, part: Gram, others: Sequence[Gram]) -> Gram:
        """The sums over all images but those of a part.

        Args:
            part: The part to leave out.
            others: The other parts, whose extremes remain.
        """
        return Gram(
            self.count - part.count,
            self.sums - part.sums,
            self.products - part.products,
            self.shift,
            reduce(torch.minimum, (other.low for other in others)),
            reduce(torch.maximum, (other.high for other in others)),
        )

    def covariance(self, weights: Tensor) -> Tensor:
        """(M + 1,) the covariance of each column with a weighted sum of columns, by (M + 1,) weights.

        Columns of weight 0 do not matter, whatever they hold.
        """
        used = weights.nonzero()[:, 0]
        own = weights[used]
        products = self.products[:, used] @ own
        return products / self.count - (self.sums / self.count) * ((self.sums[used] / self.count) @ own)

    @property
    def variances(self) -> Tensor:
        """(M + 1,) the variance of each column."""
        return self.products.diagonal() / self.count - (self.sums / self.count).square()

    @property
    def finite(self) -> Tensor:
        """(M,) which maps are finite on all images."""
        return self.low.isfinite() & self.high.isfinite()

    @property
    def varying(self) -> Tensor:
        """(M,) which maps are finite on all images, and not constant."""
        return self.finite & (self.high > self.low)


def grams_of(
    store: ScoreStore,
    targets: Tensor,
    folds: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> list[Gram]:
    """The sums over each fold of the images, in one pass over a store; together, they are those over all images.

    Beside a block of images, 8 M^2 bytes are taken for each fold: 143 MB at the 4224 maps of VGG16.

    Args:
        store: The scores.
        targets: (N,) float64, the subjective scores.
        folds: (N,) the fold of each image, from 0; None for one fold of all.
        device: Where products are computed and added up.
        dtype: What the products of a block are computed in. They are added up in float64.
        progress: Whether to show a progress bar.
    """
    folds = torch.zeros(len(store), dtype=torch.long, device="cpu") if folds is None else folds.cpu()
    maps = len(store.maps)
    columns = maps + 1
    sums: list[_Sums] = []
    first = 0
    shift = None
    with progress_bar(show=progress, total=len(store), desc="reading", unit=" images") as bar:
        for values in store.values_by_block():
            block = torch.empty(columns, len(values), dtype=torch.float64, device=device)
            block[:maps] = values.T.to(device)  # moved before it is widened
            block[maps] = targets[first : first + len(values)]
            if shift is None:
                shift = block.mean(1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
                sums = [_Sums(columns, shift) for _ in range(int(folds.max()) + 1)]
            own = folds[first : first + len(values)]
            present = own.unique().tolist()
            for fold in present:
                some = block if len(present) == 1 else block[:, (own == fold).nonzero()[:, 0].to(device)]
                sums[fold].add(some, dtype)
            first += len(values)
            bar.update(len(values))
    return [part.gram() for part in sums]


class _Sums:
    """Sums that grow block by block; of the products, the upper half."""

    def __init__(self, columns: int, shift: Tensor) -> None:
        self._shift = shift
        self._count = 0
        self._sums = torch.zeros_like(shift)
        self._products = shift.new_zeros(columns, columns)
        self._low = shift.new_full((columns,), math.inf)
        self._high = shift.new_full((columns,), -math.inf)

    def add(self, block: Tensor, dtype: torch.dtype) -> None:
        """Add images, (columns, n) scores."""
        low, high = block.aminmax(dim=1)
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        block = block - self._shift[:, None]
        self._sums += block.sum(1)
        self._count += block.shape[1]
        part = block.to(dtype)
        with strict_float32(block.device):
            for first in range(0, len(part), _STRIP):
                strip, rest = part[first : first + _STRIP], part[first:]
                own = self._products[first : first + _STRIP, first:]
                if dtype == own.dtype:
                    own.addmm_(strip, rest.T)
                else:
                    own += strip @ rest.T

    def gram(self) -> Gram:
        """All sums, the products in full."""
        for first in range(0, len(self._products), _STRIP):
            last = first + _STRIP
            self._products[last:, first:last] = self._products[first:last, last:].T
        maps = slice(0, len(self._low) - 1)
        return Gram(self._count, self._sums, self._products, self._shift, self._low[maps], self._high[maps])


def target_weights(gram: Gram, options: SearchOptions, *, known: bool, finite: Tensor | None = None) -> Tensor:
    """(M + 1,) what a search fits, as weights of the maps and of the subjective scores; see `fitted_targets`.

    Args:
        gram: The sums over the images that the search sees.
        options: The options of the search.
        known: Whether there are subjective scores.
        finite: (M,) which maps make the consensus; by default those that are finite on these images.

    Raises:
        InputError: The consensus of all maps is the same for all images.
    """
    scores = torch.zeros_like(gram.sums)
    scores[-1] = 1
    if options.prior is None:
        return scores
    finite = gram.finite if finite is None else finite
    consensus = torch.zeros_like(scores)
    consensus[:-1][finite] = 1 / finite.sum()
    variance = consensus[consensus != 0] @ gram.covariance(consensus)[consensus != 0]
    if not variance > 0:
        raise InputError("the consensus of all maps is the same for all images, so it can be no prior")
    if not (known and options.alpha > 0):
        return consensus
    return options.alpha * (variance / gram.variances[-1]).sqrt() * scores + (1 - options.alpha) * consensus


class LinearCandidates:
    """Every map beside a set, by the plain correlation of their mean with what is fitted.

    Args:
        gram: The sums over the images.
        target: (M + 1,) what is fitted, as weights of the maps and of the subjective scores.
        direction: Which maps may join, see `SearchOptions`.
    """

    def __init__(self, gram: Gram, target: Tensor, direction: Direction = "rising") -> None:
        self._gram = gram
        covariance = gram.covariance(target)
        self._agreement = covariance[:-1]
        self._square = target[target != 0] @ covariance[target != 0]
        self._variances = gram.variances[:-1]
        rising = self._agreement > 0 if direction == "rising" else torch.ones_like(gram.varying)
        self.usable = (gram.varying & rising).cpu()
        """(M,) which maps may join a set."""
        self.record: dict[str, Any] = {}
        """What a result's options say of how it was searched: nothing, since it is the search in memory."""

    def value(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(S,) the criterion of each set; -inf for an empty one."""
        values = [float(self.tried(s[:-1])[s[-1]]) if len(s) else -math.inf for s in sets]
        return torch.tensor(values, dtype=torch.float64, device="cpu")

    def best(
        self, sets: Sequence[Sequence[int]], allowed: Tensor, *, searches: Sequence[int] | None = None
    ) -> list[Best]:
        """For each set, the map that is no member, among `allowed` (S, M), with which it does best."""
        is_open = allowed.clone()
        for row, members in zip(is_open, sets, strict=True):
            row[list(members)] = False
        is_open = is_open.to(self._variances.device)
        values = torch.stack([self.tried(members) for members in sets])
        return Tried(values.masked_fill(~is_open, -math.inf), is_open).ranked()

    def tried(self, chosen: Sequence[int]) -> Tensor:
        """(M,) the criterion of a set with each map beside it; -inf where it has no information."""
        index = torch.tensor(list(chosen), dtype=torch.long, device=self._variances.device)
        weights = self._gram.sums.new_zeros(len(self._variances) + 1).index_fill(0, index, 1.0)
        with_set = self._gram.covariance(weights)[:-1]
        own = with_set[index].sum()
        agreement = self._agreement[index].sum() + self._agreement
        variance = own + 2 * with_set + self._variances
        known = variance > _ROUNDING * (own + self._variances)
        correlation = agreement / torch.where(known, variance * self._square, 1.0).sqrt()
        return torch.where(known & correlation.isfinite(), correlation.clamp(-1, 1), -math.inf)
