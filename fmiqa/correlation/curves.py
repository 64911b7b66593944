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

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.climbs import (
    Kind,
    Starts,
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
    bins = p._replace(**dict(zip(("t", "w", "wy"), made, strict=True))).single()
    found = by_portions(lambda *part: _starts(Problems(*part), kind, bound), *bins, points=3 * _LOCAL)
    starts = Starts(*(v.to(p.t.dtype) for v in found))
    if thorough:
        climbs = begin(p, kind, bound, starts, newton=True)
        for steps, kept in _THOROUGH:
            climbs = apart(take_steps(p, kind, bound, climbs, steps, newton=True), kept)
        return Curves(climbs.share, climbs.beta, climbs.tau, climbs.promise)
    # In float32, but for the share that comes out: half the time.
    points, starts = p.single(), Starts(*(v[:, :3].float() for v in starts))
    best = best_of(take_steps(bins, kind, bound, begin(bins, kind, bound, starts), 6), 1)
    climb = take_steps(points, kind, bound, begin(points, kind, bound, Starts(best.beta, best.tau)), 3)
    beta, tau = climb.beta.to(p.t.dtype), climb.tau.to(p.t.dtype)
    share = by_portions(_shares(kind), p.t, p.w, p.wy, p.r, p.low, p.high, beta, tau)
    return Curves(share, beta, tau, climb.promise)


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


def _starts(bins: Problems, kind: Kind, bound: float) -> Starts:
    """(P, families) the best start of each slope and of each width, by their share over bins, the best first."""
    even, local = _even_grid(bins, min(bound, _STEEPEST_START)), _local_grid(bins)
    beta, tau = (torch.cat(v, 1) for v in zip(even, local, strict=True))
    beta, tau = bounded(beta, tau, bins.low[:, None], bins.high[:, None], kind, bound)
    signed = oriented(beta, tau)
    s, st, sy, ss = by_portions(_grid, bins.t, bins.w, bins.wy, signed, tau, points=beta.shape[1] * BINS)
    kappa = tie(bins.low[:, None], bins.high[:, None], kind, signed, tau)[0]
    share = share_of(s, st, sy, ss, kappa, bins.r[:, None], kind)
    best = torch.stack([part.amax(1) for part in share.split(_FAMILIES, 1)], 1)
    first = torch.tensor(_FAMILIES, device=share.device).cumsum(0) - torch.tensor(_FAMILIES, device=share.device)
    at = torch.stack([part.argmax(1) for part in share.split(_FAMILIES, 1)], 1) + first
    at = at.gather(1, best.sort(dim=1, descending=True, stable=True).indices)
    return Starts(beta.gather(1, at), tau.gather(1, at))


def _even_grid(bins: Problems, steepest: float) -> tuple[Tensor, Tensor]:
    """(R, S) slopes in units of the deviation, centres even over the range and a little beyond."""
    places = torch.linspace(-_BEYOND, 1 + _BEYOND, _CENTRES, dtype=bins.t.dtype, device=bins.t.device)
    tau = bins.low[:, None] + (bins.high - bins.low)[:, None] * places
    beta = bins.t.new_tensor(_SLOPES).repeat_interleave(_CENTRES) * steepest
    tau = tau.repeat(1, len(_SLOPES))
    return beta.expand_as(tau), tau


def _local_grid(bins: Problems) -> tuple[Tensor, Tensor]:
    """(R, S) centres even in the mass, slopes that follow the spacing of the scores around them."""
    mean, mass = bins.t, bins.w
    filled = torch.where(mass > 0, mean, -torch.inf).cummax(-1).values  # empty: as the one before
    filled = torch.where(filled.isfinite(), filled, bins.low[:, None])
    cumulated = mass.cumsum(-1)
    ends = [
        ((max(0.0, c - width / 2), c, min(1.0, c + width / 2)))
        for width, number in _WIDTHS
        for c in ((i + 0.5) / number for i in range(number))
    ]
    levels = mean.new_tensor(ends).T.reshape(-1).expand(len(mean), -1).contiguous()  # (R, 3 S)
    places = torch.searchsorted(cumulated, levels).clamp(max=BINS - 1)
    low, middle, high = filled.gather(1, places).chunk(3, 1)
    extent = (bins.high - bins.low).clamp(min=1e-12)[:, None]
    return 4 / torch.maximum(high - low, 1e-6 * extent), middle


@Fused
def _grid(
    mean: Tensor, mass: Tensor, mass_y: Tensor, beta: Tensor, tau: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(R, S) the sums over bins that the share of each start needs."""
    s = ((mean[:, None, :] - tau[:, :, None]) * beta[:, :, None]).sigmoid()
    ws = s * mass[:, None]
    return ws.sum(-1), (ws * mean[:, None]).sum(-1), (s * mass_y[:, None]).sum(-1), (ws * s).sum(-1)


def _shares(kind: Kind) -> Callable[..., Tensor]:
    """The share of curves, (R, 1), of points (R, N)."""

    def shares(
        t: Tensor, w: Tensor, wy: Tensor, r: Tensor, low: Tensor, high: Tensor, beta: Tensor, tau: Tensor
    ) -> Tensor:
        signed = oriented(beta, tau)
        s = ((t - tau) * signed).sigmoid_()
        ws = w * s
        mean, st, sy, ss = (part.sum(-1, keepdim=True) for part in (ws, ws * t, wy * s, ws * s))
        kappa = tie(low[:, None], high[:, None], kind, signed, tau)[0]
        return share_of(mean, st, sy, ss, kappa, r[:, None], kind)

    return shares
