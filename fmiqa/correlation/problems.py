"""Problems of a logistic fit: standardised scores and subjective scores, and their histograms."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.portions import by_portions

__all__ = ["BINS", "Problems", "binned", "weighted_pearson"]

BINS = 80


class Problems(NamedTuple):
    """P problems of N points, standardised under their weights."""

    t: Tensor  # (P, N) scores, of weighted mean 0 and mean square 1
    w: Tensor  # (P, N) or (1, N) weights of sum 1
    wy: Tensor  # (P, N) or (1, N) weights times subjective scores of mean 0 and mean square 1
    r: Tensor  # (P,) mean of t y
    low: Tensor  # (P,) the least score
    high: Tensor  # (P,) the greatest score
    known: Tensor  # (P,) whether both are finite and not constant over the points that count

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Problems:
        """From scores (P, N), subjective scores (P, N) or (1, N), and weights (P, N) or (1, N) of at least 0."""
        w = torch.ones_like(y[:1]) if weights is None else weights
        y = y if len(y) >= len(w) else y.expand_as(w)
        wy, w, varies = by_portions(_targets, y, w)
        t, r, low, high, known = by_portions(_scores, x, w, wy)
        return cls(t, w, wy, r, low, high, known & varies)

    def single(self) -> Problems:
        """In float32."""
        return Problems(*(part if part.dtype == torch.bool else part.float() for part in self))

    def rows(self, numbers: Tensor) -> Problems:
        """Some of the problems."""
        return Problems(*(part if len(part) == 1 < len(self.t) else part[numbers] for part in self))


def weighted_pearson(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """(P,) Pearson correlation of each row, shapes as in `Problems.of`; NaN where a row has no variance."""

    def pearson(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        w = w / w.sum(-1, keepdim=True)
        one, other = _standard(x, w), _standard(y, w)
        known = (one[1] > 0) & (other[1] > 0)
        return torch.where(known, (w * one[0] * other[0]).sum(-1), torch.nan)

    return by_portions(pearson, x, y, torch.ones_like(y[:1]) if weights is None else weights)


@Fused
def _targets(y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w = w / w.sum(-1, keepdim=True)
    y, spread = _standard(y, w)
    return w * y, w.expand_as(y), spread > 0


@Fused
def _scores(x: Tensor, w: Tensor, wy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    t, spread = _standard(x, w)
    known = (spread > 0) & t.isfinite().all(-1)
    t = torch.where(known[:, None], t, 0.0)
    return t, (t * wy).sum(-1), t.amin(-1), t.amax(-1), known


def _standard(values: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of weighted mean 0 and mean square 1, and (R,) their deviation; points of weight 0 are put at 0."""
    counted = w > 0
    values = torch.where(counted, values, 0.0)
    centred = torch.where(counted, values - (values * w).sum(-1, keepdim=True), 0.0)
    # The second mean removes what rounding of the first leaves; the largest value is divided out before squares.
    centred = torch.where(counted, centred - (centred * w).sum(-1, keepdim=True), 0.0)
    size = centred.abs().amax(-1, keepdim=True)
    centred = centred / torch.where(size > 0, size, 1.0)
    spread = (centred.square() * w).sum(-1).sqrt()
    # Where all that is left is rounding of the mean, the row is constant.
    varies = size.squeeze(-1) > 4 * torch.finfo(values.dtype).eps * values.abs().amax(-1)
    return centred / torch.where(spread > 0, spread, 1.0)[:, None], torch.where(varies, spread * size.squeeze(-1), 0.0)


def binned(t: Tensor, w: Tensor, wy: Tensor, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, bins) mean, mass and mass of y, float32, of bins that share the range and the mass of each row between them.

    In each round, bins come to lie nearer to half even in the range and half in the mass.
    """
    empty = t.new_zeros(t.shape[0], BINS)
    w, wy = w.expand_as(t), wy.expand_as(t)
    even, bins = _even_places(t)
    place = even
    for _ in range(rounds):
        mass = empty.scatter_add(1, bins, w)
        place, bins = _denser_places(even, place, bins, mass, mass.cumsum(-1))
    mass, moment, mass_y = (empty.scatter_add(1, bins, v) for v in (w, w * t, wy))
    return _in_single(moment, mass, mass_y)


@Fused
def _in_single(moment: Tensor, mass: Tensor, mass_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (moment / mass.clamp(min=1e-30)).float(), mass.float(), mass_y.float()


@Fused
def _even_places(t: Tensor) -> tuple[Tensor, Tensor]:
    """Each point's place in its row's range, from 0 to below 1, and its bin."""
    low, high = t.amin(-1, keepdim=True), t.amax(-1, keepdim=True)
    place = (t - low) * ((1 - 1e-6) / (high - low).clamp(min=1e-12))
    return place, (place * BINS).long()


@Fused
def _denser_places(even: Tensor, place: Tensor, bins: Tensor, mass: Tensor, upto: Tensor) -> tuple[Tensor, Tensor]:
    """Places and bins that lie even half in the range, half in the mass, which is a straight line within a bin.

    Args:
        even: (R, N) places in the range.
        place: (R, N) places so far.
        bins: (R, N) the bins of these.
        mass: (R, bins) the mass of each bin.
        upto: (R, bins) the mass of the bins up to each.
    """
    share = (upto - mass).gather(1, bins) + mass.gather(1, bins) * (place * BINS - bins)
    place = (even + share.clamp(0, 1 - 1e-6)) / 2
    return place, (place * BINS).long()
