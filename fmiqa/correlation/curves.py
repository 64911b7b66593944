"""The best logistic curve for each of very many problems: one engine for a single fit and for a selection step.

Given slope beta and centre tau, `a + c t + b sigmoid(beta (t - tau))` is linear in (a, c, b). With `t` and `y` of zero
mean and unit mean square the linear part has a closed form, and the share of the variance of y that the sigmoid
explains is `N^2 / D`: N is the product of the sigmoid with y, D the sigmoid's own square, both after the other columns
are projected out (Golub & Pereyra 1973). What is left is a search over two numbers. It begins on a grid over a
histogram of each problem, and goes on with damped steps on the points themselves: of Gauss and Newton where a step of a
selection ranks its candidates, of Newton with exact second derivatives where a fit is reported. The number of starts
and steps is fixed and nothing depends on the values: problems do not influence each other, and a GPU never waits.

Points carry weights, so that folds, bootstrap samples and subsamples of the same images are problems of one batch. All
problems climb together: sums over points are taken portion by portion, the rest follows for all problems at once.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.climbs import (
    Climb,
    Kind,
    apart,
    begin,
    best_of,
    bounded,
    oriented,
    rounding,
    share_of,
    take_steps,
    tie,
)
from fmiqa.correlation.portions import by_portions
from fmiqa.correlation.problems import BINS, Problems, binned

__all__ = ["Curves", "best_curves", "linear_part", "tied_slope"]

_SLOPES = (1.0, 0.4, 0.16, 0.06, 0.023)  # of the grid, to the steepest
_CENTRES = 13
_BEYOND = 0.25  # centres that far outside the data, in ranges: the one-sided curves
_WIDTHS = ((1.0, 3), (0.5, 5), (0.25, 9), (0.12, 17), (0.05, 33))  # (share of the mass, number of centres)
_FAMILIES = (*([_CENTRES] * len(_SLOPES)), *(number for _, number in _WIDTHS))  # starts of one slope or width
_LOCAL = sum(number for _, number in _WIDTHS)
_THOROUGH = ((3, 4), (5, 2), (6, 2))  # (Newton's steps, climbs that are kept after them)
_STEEPEST_START = 30.0  # in units of 1 / deviation, where steepness has no bound


class Curves(NamedTuple):
    """Curves of each problem, (P, S) each, and the share of the variance that their sigmoids explain."""

    share: Tensor
    beta: Tensor
    tau: Tensor
    promise: Tensor  # what the next step would gain

    def best(self) -> Curves:
        """(P, 1) the best of each problem."""
        at = self.share.argmax(1, keepdim=True)
        return Curves(*(part.gather(1, at) for part in self))


def best_curves(p: Problems, kind: Kind, *, steepest: float | None, thorough: bool) -> Curves:
    """Local maxima of each problem's share, the best of which is nearly always the global one.

    Args:
        p: The problems.
        kind: What stands beside the sigmoid.
        steepest: The largest slope beta, in units of 1 / the scores' deviation; None for no bound.
        thorough: Whether to take more starts and more steps, all on the points themselves, for a fit that is reported.

    Returns:
        (P, S); beside a free line the share is what the sigmoid adds to the line's.
    """
    bound = 1e6 if steepest is None else steepest
    made = by_portions(lambda t, w, wy: binned(t, w, wy, rounds=3 if thorough else 2), p.t, p.w, p.wy)
    bins = p._replace(t=made[0], w=made[1], wy=made[2]).single()
    starts = by_portions(lambda *part: _starts(Problems(*part), kind, bound), *bins, points=3 * _LOCAL, dim=1)
    if thorough:
        climbs = begin(p, kind, bound, starts.to(p.t.dtype), newton=True)
        for steps, kept in _THOROUGH:
            climbs = apart(take_steps(p, kind, bound, climbs, steps, newton=True), kept)
        climb = Climb.of(climbs)
        return Curves(climb.share, climb.beta, climb.tau, climb.promise)
    # In float32, but for the share that comes out: half the time.
    points = p.single()
    best = Climb.of(best_of(take_steps(bins, kind, bound, begin(bins, kind, bound, starts[..., :3]), 6), 1))
    start = torch.stack((best.beta, best.tau))
    climb = Climb.of(take_steps(points, kind, bound, begin(points, kind, bound, start), 3))
    beta, tau = climb.beta.to(p.t.dtype), climb.tau.to(p.t.dtype)
    share = by_portions(partial(_shares, kind=kind), p.t, p.w, p.wy, p.r, p.low, p.high, beta, tau)
    return Curves(share, beta, tau, climb.promise)


@Fused
def linear_part(p: Problems, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intercept a, line c and amplitude b of one curve a problem, (P, 1) each as beta and tau."""
    signed, turned = oriented(beta, tau), tau < 0
    s = ((p.t - tau) * signed).sigmoid()
    level = (p.w * s).sum(-1, keepdim=True)
    kappa = tie(p.low[:, None], p.high[:, None], kind, signed, tau)[0]
    column, r = s - level - kappa * p.t, p.r[:, None]
    slope = torch.zeros_like(kappa)
    if kind == "with_line":
        # Projected out of the column itself, not out of its square: half the digits are lost, not all.
        slope = (p.w * column * p.t).sum(-1, keepdim=True)
        column = column - slope * p.t
    square = (p.w * column.square()).sum(-1, keepdim=True)
    amplitude = (column * p.wy).sum(-1, keepdim=True) / square
    sound = square > rounding(square) * (p.w * s * s).sum(-1, keepdim=True)
    amplitude = torch.where(sound & amplitude.isfinite(), amplitude, 0.0)
    line = r - amplitude * slope if kind == "with_line" else -amplitude * kappa
    intercept = -amplitude * level
    return torch.where(turned, intercept + amplitude, intercept), line, torch.where(turned, -amplitude, amplitude)


def tied_slope(p: Problems, kind: Kind, beta: Tensor, tau: Tensor) -> Tensor:
    """The sigmoid's derivative where it is flattest or steepest over the data, by the kind of tie."""
    return tie(p.low[:, None], p.high[:, None], kind, beta, tau)[0]


def _starts(bins: Problems, kind: Kind, bound: float) -> Tensor:
    """(2, P, families) slope and centre of the best start of each slope and width, by share over bins, best first."""
    fixed = _Fixed.on(bins.t.device)
    beta, tau, signed = _placed(*_local_grid(bins, fixed), bins.low, bins.high, fixed, kind, bound)
    sums = by_portions(_grid, bins.t, bins.w, bins.wy, signed, tau, points=beta.shape[1] * BINS)
    share = _in_families(sums, bins.r, bins.low, bins.high, signed, tau, fixed, kind)
    best, member = share.max(2)
    order = best.sort(dim=1, descending=True, stable=True).indices
    return _in_order(beta, tau, member, order, fixed)


class _Fixed(NamedTuple):
    """The numbers that all grids of starts are made of, on the device of the problems."""

    slopes: Tensor  # (65,) of the even grid, in shares of the steepest
    places: Tensor  # (65,) of its centres, in shares of the range
    levels: Tensor  # (3 x 67,) of the local grid: where the mass of each start begins, is half and ends
    first: Tensor  # (families,) the number of each family's first start
    members: Tensor  # (families, starts) the numbers of its starts; shorter families repeat their first

    @staticmethod
    @lru_cache
    def on(device: torch.device) -> _Fixed:
        """The numbers, brought to a device once."""
        even = [-_BEYOND + (1 + 2 * _BEYOND) * i / (_CENTRES - 1) for i in range(_CENTRES)]
        slopes, places = zip(*((slope, place) for slope in _SLOPES for place in even), strict=True)
        ends = [
            (max(0.0, c - width / 2), c, min(1.0, c + width / 2))
            for width, number in _WIDTHS
            for c in ((i + 0.5) / number for i in range(number))
        ]
        first = [sum(_FAMILIES[:k]) for k in range(len(_FAMILIES))]
        members = [
            [start + min(i, n - 1) for i in range(max(_FAMILIES))] for start, n in zip(first, _FAMILIES, strict=True)
        ]
        levels = [level for part in zip(*ends, strict=True) for level in part]
        numbers = (torch.tensor(v, device="cpu") for v in (slopes, places, levels, first, members))
        return _Fixed(*(v.to(device) for v in numbers))


def _local_grid(bins: Problems, fixed: _Fixed) -> tuple[Tensor, Tensor, Tensor]:
    """(R, S) each: where the mass of each start of the local grid begins, is half and ends."""
    # The bin where the mass reaches a level is not empty; nor are the first and the last.
    levels = fixed.levels.expand(len(bins.t), -1).contiguous()
    places = torch.searchsorted(bins.w.cumsum(-1), levels).clamp(max=BINS - 1)
    low, middle, high = bins.t.gather(1, places).chunk(3, 1)
    return low, middle, high


@Fused
def _placed(
    begins: Tensor, middle: Tensor, ends: Tensor, low: Tensor, high: Tensor, fixed: _Fixed, kind: Kind, bound: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(R, S) slopes, centres and oriented slopes: even over the range and a little beyond, then even in the mass.

    Slopes of the second follow the spacing of the scores around them.
    """
    low, high = low[:, None], high[:, None]
    even = low + (high - low) * fixed.places
    extent = (high - low).clamp(min=1e-12)
    beta = torch.cat(
        (
            (fixed.slopes * min(bound, _STEEPEST_START)).expand_as(even),
            4 / torch.maximum(ends - begins, 1e-6 * extent),
        ),
        1,
    )
    beta, tau = bounded(beta, torch.cat((even, middle), 1), low, high, kind, bound)
    return beta, tau, oriented(beta, tau)


@Fused
def _grid(mean: Tensor, mass: Tensor, mass_y: Tensor, beta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """(R, S) each, the sums over bins that the share of each start needs."""
    s = ((mean[:, None, :] - tau[:, :, None]) * beta[:, :, None]).sigmoid()
    ws = s * mass[:, None]
    return ws.sum(-1), (ws * mean[:, None]).sum(-1), (s * mass_y[:, None]).sum(-1), (ws * s).sum(-1)


@Fused
def _in_families(
    sums: tuple[Tensor, ...],
    r: Tensor,
    low: Tensor,
    high: Tensor,
    signed: Tensor,
    tau: Tensor,
    fixed: _Fixed,
    kind: Kind,
) -> Tensor:
    """(R, families, starts) the share of each start, beside the others of its slope or width."""
    s, st, sy, ss = sums
    kappa = tie(low[:, None], high[:, None], kind, signed, tau)[0]
    return share_of(s, st, sy, ss, kappa, r[:, None], kind)[:, fixed.members]


@Fused
def _in_order(beta: Tensor, tau: Tensor, member: Tensor, order: Tensor, fixed: _Fixed) -> Tensor:
    """(2, R, families) slope and centre of each family's best start, in the order of the families."""
    at = (fixed.first + member).gather(1, order)
    return torch.stack((beta.gather(1, at), tau.gather(1, at)))


@Fused
def _shares(
    t: Tensor, w: Tensor, wy: Tensor, r: Tensor, low: Tensor, high: Tensor, beta: Tensor, tau: Tensor, kind: Kind
) -> Tensor:
    """The share of curves, (R, 1), of points (R, N)."""
    signed = oriented(beta, tau)
    s = ((t - tau) * signed).sigmoid()
    ws = w * s
    mean, st, sy, ss = (part.sum(-1, keepdim=True) for part in (ws, ws * t, wy * s, ws * s))
    kappa = tie(low[:, None], high[:, None], kind, signed, tau)[0]
    return share_of(mean, st, sy, ss, kappa, r[:, None], kind)
