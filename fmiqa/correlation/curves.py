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
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.portions import by_portions

__all__ = ["Curves", "Kind", "Problems", "best_curves", "linear_part", "tied_slope", "weighted_pearson"]

Kind = Literal["with_line", "alone", "flat_ends", "flat_middle"]
"""What stands beside the sigmoid: a free line; nothing; or a line tied to it, `c = -b kappa`, so that the
slope of the curve vanishes where the sigmoid is flattest in the data range, or where it is steepest."""

_BINS = 80
_SLOPES = (1.0, 0.4, 0.16, 0.06, 0.023)  # of the grid, to the steepest
_CENTRES = 13
_BEYOND = 0.25  # centres that far outside the data, in ranges: the one-sided curves
_WIDTHS = ((1.0, 3), (0.5, 5), (0.25, 9), (0.12, 17), (0.05, 33))  # (share of the mass, number of centres)
_FAMILIES = (*([_CENTRES] * len(_SLOPES)), *(number for _, number in _WIDTHS))  # starts of one slope or width
_LOCAL = sum(number for _, number in _WIDTHS)
_THOROUGH = ((3, 4), (5, 2), (6, 2))  # (Newton's steps, climbs that are kept after them)
_ROUNDS = 3  # in which bins come to lie half even in the range, half in the mass

# Flatter than this over the whole range, a sigmoid beside a line is a cubic to some 1e-6 of the variance, and
# one alone is a line; going on only loses digits, since amplitudes grow as 1 / beta^3 or 1 / beta.
_FLATTEST: dict[Kind, float] = {"with_line": 0.5, "alone": 0.01, "flat_ends": 0.5, "flat_middle": 0.5}
# A centre this many units of z beyond the data leaves an exponential to 1e-5.
_FARTHEST = 12.0
_STEEPEST_START = 30.0  # in units of 1 / deviation, where steepness has no bound


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


class _Sums(NamedTuple):
    """Weighted means over the points, of products of functions of z = beta (t - tau).

    They are the sigmoid s, its derivatives d by a shift of z and g = z d by log beta; and, for Newton's steps only, the
    second ones: h by the shift, and the terms i = z h and j = z^2 h of the others.
    """

    s: Tensor
    g: Tensor
    d: Tensor
    st: Tensor
    gt: Tensor
    dt: Tensor
    sy: Tensor
    gy: Tensor
    dy: Tensor
    ss: Tensor
    sg: Tensor
    sd: Tensor
    gg: Tensor
    gd: Tensor
    dd: Tensor
    second: tuple[Tensor, ...] = ()  # h, i, j; with t; with y; with s


class _Climb(NamedTuple):
    """Climbs under way: where they are, share, half gradient and curvature there, and the place to try next.

    The coordinates are log beta and a shift of z.
    """

    share: Tensor
    beta: Tensor
    tau: Tensor
    damping: Tensor
    up_beta: Tensor
    up_z: Tensor
    curve_beta: Tensor
    curve_both: Tensor
    curve_z: Tensor
    scale_beta: Tensor
    scale_z: Tensor
    next_beta: Tensor
    next_tau: Tensor
    promise: Tensor


def best_curves(p: Problems, kind: Kind, *, steepest: float | None, thorough: bool) -> Curves:
    """Local maxima of each problem's share, the best of which is nearly always the global one.

    Args:
        p: the problems.
        kind: what stands beside the sigmoid.
        steepest: the largest slope beta, in units of 1 / the scores' deviation; None for no bound.
        thorough: for a fit that is reported: more starts and more steps, all on the points themselves.

    Returns:
        (P, S); beside a free line the share is what the sigmoid adds to the line's.
    """
    bound = 1e6 if steepest is None else steepest
    bins = p._replace(**dict(zip(("t", "w", "wy"), by_portions(_binned, p.t, p.w, p.wy), strict=True))).single()
    found = by_portions(lambda *part: _starts(Problems(*part), kind, bound), *bins, points=3 * _LOCAL)
    starts = _Starts(*(v.to(p.t.dtype) for v in found))
    if thorough:
        climbs = _look(p, kind, bound, starts, newton=True)
        for steps, kept in _THOROUGH:
            climbs = _apart(_climb(p, kind, bound, climbs, steps, newton=True), kept)
        return Curves(climbs.share, climbs.beta, climbs.tau, climbs.promise)
    # In float32, but for the share that comes out: half the time.
    points, starts = p.single(), _Starts(*(v[:, :3].float() for v in starts))
    best = _some(_climb(bins, kind, bound, _look(bins, kind, bound, starts), 6), 1)
    climb = _climb(points, kind, bound, _look(points, kind, bound, _Starts(best.beta, best.tau)), 3)
    beta, tau = climb.beta.to(p.t.dtype), climb.tau.to(p.t.dtype)
    share = by_portions(_shares(kind), p.t, p.w, p.wy, p.r, p.low, p.high, beta, tau)
    return Curves(share, beta, tau, climb.promise)


def weighted_pearson(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """(P,) Pearson correlation of each row, shapes as in `Problems.of`; NaN where a row has no variance."""

    def pearson(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        w = w / w.sum(-1, keepdim=True)
        one, other = _standard(x, w), _standard(y, w)
        known = (one[1] > 0) & (other[1] > 0)
        return torch.where(known, (w * one[0] * other[0]).sum(-1), torch.nan)

    return by_portions(pearson, x, y, torch.ones_like(y[:1]) if weights is None else weights)


def linear_part(p: Problems, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intercept a, line c and amplitude b of one curve a problem, (P, 1) each as beta and tau."""
    signed, turned = _oriented(beta, tau), tau < 0
    s = ((p.t - tau) * signed).sigmoid()
    level = (p.w * s).sum(-1, keepdim=True)
    kappa = _tie(p.low[:, None], p.high[:, None], kind, signed, tau)[0]
    column, r = s - level - kappa * p.t, p.r[:, None]
    slope = torch.zeros_like(kappa)
    if kind == "with_line":
        # Projected out of the column itself, not out of its square: half the digits are lost, not all.
        slope = (p.w * column * p.t).sum(-1, keepdim=True)
        column = column - slope * p.t
    square = (p.w * column.square()).sum(-1, keepdim=True)
    amplitude = (column * p.wy).sum(-1, keepdim=True) / square
    sound = square > _rounding(square) * (p.w * s * s).sum(-1, keepdim=True)
    amplitude = torch.where(sound & amplitude.isfinite(), amplitude, 0.0)
    line = r - amplitude * slope if kind == "with_line" else -amplitude * kappa
    intercept = -amplitude * level
    return torch.where(turned, intercept + amplitude, intercept), line, torch.where(turned, -amplitude, amplitude)


def tied_slope(p: Problems, kind: Kind, beta: Tensor, tau: Tensor) -> Tensor:
    """The sigmoid's derivative where it is flattest or steepest over the data, by the kind of tie."""
    return _tie(p.low[:, None], p.high[:, None], kind, beta, tau)[0]


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


def _binned(t: Tensor, w: Tensor, wy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, bins) mean, mass and mass of y of bins that share the range and the mass of each row between them."""
    empty = t.new_zeros(t.shape[0], _BINS)
    w, wy = w.expand_as(t), wy.expand_as(t)
    even, bins = _even_places(t)
    place = even
    for _ in range(_ROUNDS):
        mass = empty.scatter_add(1, bins, w)
        below = mass.cumsum(-1) - mass
        place, bins = _denser_places(even, place, bins, below.gather(1, bins), mass.gather(1, bins))
    mass = empty.scatter_add(1, bins, w)
    mean = empty.scatter_add(1, bins, w * t) / mass.clamp(min=1e-30)
    return mean, mass, empty.scatter_add(1, bins, wy)


@Fused
def _even_places(t: Tensor) -> tuple[Tensor, Tensor]:
    """Each point's place in its row's range, from 0 to below 1, and its bin."""
    low, high = t.amin(-1, keepdim=True), t.amax(-1, keepdim=True)
    place = (t - low) * ((1 - 1e-6) / (high - low).clamp(min=1e-12))
    return place, (place * _BINS).long()


@Fused
def _denser_places(even: Tensor, place: Tensor, bins: Tensor, below: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Places and bins that lie even half in the range, half in the mass, which is a straight line within a bin."""
    share = below + mass * (place * _BINS - bins)
    place = (even + share.clamp(0, 1 - 1e-6)) / 2
    return place, (place * _BINS).long()


class _Starts(NamedTuple):
    beta: Tensor  # (P, S)
    tau: Tensor


def _starts(bins: Problems, kind: Kind, bound: float) -> _Starts:
    """(P, families) the best start of each slope and of each width, by their share over bins, the best first."""
    even, local = _even_grid(bins, min(bound, _STEEPEST_START)), _local_grid(bins)
    beta, tau = (torch.cat(v, 1) for v in zip(even, local, strict=True))
    beta, tau = _bounded(beta, tau, bins.low[:, None], bins.high[:, None], kind, bound)
    signed = _oriented(beta, tau)
    s, st, sy, ss = by_portions(_grid, bins.t, bins.w, bins.wy, signed, tau, points=beta.shape[1] * _BINS)
    kappa = _tie(bins.low[:, None], bins.high[:, None], kind, signed, tau)[0]
    share = _share_of(s, st, sy, ss, kappa, bins.r[:, None], kind)
    best = torch.stack([part.amax(1) for part in share.split(_FAMILIES, 1)], 1)
    first = torch.tensor(_FAMILIES, device=share.device).cumsum(0) - torch.tensor(_FAMILIES, device=share.device)
    at = torch.stack([part.argmax(1) for part in share.split(_FAMILIES, 1)], 1) + first
    at = at.gather(1, best.sort(dim=1, descending=True, stable=True).indices)
    return _Starts(beta.gather(1, at), tau.gather(1, at))


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
    places = torch.searchsorted(cumulated, levels).clamp(max=_BINS - 1)
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
        signed = _oriented(beta, tau)
        s = ((t - tau) * signed).sigmoid_()
        ws = w * s
        mean, st, sy, ss = (part.sum(-1, keepdim=True) for part in (ws, ws * t, wy * s, ws * s))
        kappa = _tie(low[:, None], high[:, None], kind, signed, tau)[0]
        return _share_of(mean, st, sy, ss, kappa, r[:, None], kind)

    return shares


def _some(climb: _Climb, number: int) -> _Climb:
    """The best climbs of each problem."""
    at = climb.share.topk(number, dim=1).indices
    return _Climb(*(part.gather(1, at) for part in climb))


def _apart(climb: _Climb, number: int) -> _Climb:
    """As `_some`, those last that draw nearly the same curve as a better one."""
    near = (climb.beta.log()[:, :, None] - climb.beta.log()[:, None]).abs() < 0.03
    near &= ((climb.tau[:, :, None] - climb.tau[:, None]) * climb.beta[:, :, None]).abs() < 0.03
    ahead = climb.share[:, None] > climb.share[:, :, None]
    equal = (climb.share[:, None] == climb.share[:, :, None]).tril(diagonal=-1)
    twin = (near & (ahead | equal)).any(2)
    at = torch.where(twin, climb.share - 2, climb.share).topk(number, dim=1).indices
    return _Climb(*(part.gather(1, at) for part in climb))


def _look(p: Problems, kind: Kind, bound: float, starts: _Starts, *, newton: bool = False) -> _Climb:
    """Climbs at their starts: a step of length 0 from below everything."""
    beta, tau = _bounded(starts.beta, starts.tau, p.low[:, None], p.high[:, None], kind, bound)
    # Tensors of their own: where some are the same, or parts of one, another kernel would be compiled.
    zeros = [torch.zeros_like(beta) for _ in range(8)]
    start = _Climb(
        torch.full_like(beta, -torch.inf), beta, tau, torch.full_like(beta, 1e-2),
        zeros[0], zeros[1], zeros[2], zeros[3], zeros[4], zeros[5], zeros[6], beta.clone(), tau.clone(), zeros[7],
    )  # fmt: skip
    return _climb(p, kind, bound, start, 1, newton=newton)


def _climb(p: Problems, kind: Kind, bound: float, state: _Climb, steps: int, *, newton: bool = False) -> _Climb:
    """Damped steps, all of them: a problem must not depend on its batch mates."""
    points = state.beta.shape[1] * p.t.shape[1]
    r, low, high = (v[:, None] for v in (p.r, p.low, p.high))
    for _ in range(steps):
        signed = _oriented(state.next_beta, state.next_tau)
        found = by_portions(_with_second if newton else _sums, p.t, p.w, p.wy, signed, state.next_tau, points=points)
        sums = _Sums._make([*found[:15], found[15:]])
        state = _judged(sums, r, low, high, signed, state, kind, bound)
    return state


@Fused
def _sums(t: Tensor, w: Tensor, wy: Tensor, beta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """(R, S) each, of points (R, N) and curves (R, S); in the order of `_Sums`, without the second derivatives."""
    return _products(t, w, wy, beta, tau, second=False)


@Fused
def _with_second(t: Tensor, w: Tensor, wy: Tensor, beta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """As `_sums`, and those of the second derivatives after them."""
    return _products(t, w, wy, beta, tau, second=True)


def _products(t: Tensor, w: Tensor, wy: Tensor, beta: Tensor, tau: Tensor, *, second: bool) -> tuple[Tensor, ...]:
    t, w, wy = t[:, None], w[:, None], wy[:, None]
    z = (t - tau[..., None]) * beta[..., None]
    s = z.sigmoid()
    d = s - s * s
    g = d * z
    ws, wg, wd = w * s, w * g, w * d
    first = (
        ws.sum(-1), wg.sum(-1), wd.sum(-1),
        (ws * t).sum(-1), (wg * t).sum(-1), (wd * t).sum(-1),
        (wy * s).sum(-1), (wy * g).sum(-1), (wy * d).sum(-1),
        (ws * s).sum(-1), (ws * g).sum(-1), (ws * d).sum(-1),
        (wg * g).sum(-1), (wg * d).sum(-1), (wd * d).sum(-1),
    )  # fmt: skip
    if not second:
        return first
    h = d - 2 * s * d
    i = h * z
    j = i * z
    wh, wi, wj = w * h, w * i, w * j
    return (
        *first,
        wh.sum(-1), wi.sum(-1), wj.sum(-1),
        (wh * t).sum(-1), (wi * t).sum(-1), (wj * t).sum(-1),
        (wy * h).sum(-1), (wy * i).sum(-1), (wy * j).sum(-1),
        (ws * h).sum(-1), (ws * i).sum(-1), (ws * j).sum(-1),
    )  # fmt: skip


@Fused
def _judged(
    new: _Sums, r: Tensor, low: Tensor, high: Tensor, beta: Tensor, old: _Climb, kind: Kind, bound: float
) -> _Climb:
    """The climb after a step that was tried: all that is not a sum over points.

    Where the step led uphill it is taken; where it did not, the climb stays and aims again with more damping.
    """
    tau = old.next_tau
    at = _profile(new, r, low, high, beta, tau, kind)
    better = at[0] > old.share
    kept = (old.share, *old[4:11])
    share, g1, g2, h11, h12, h22, scale1, scale2 = (torch.where(better, a, b) for a, b in zip(at, kept, strict=True))
    beta, tau = torch.where(better, old.next_beta, old.beta), torch.where(better, tau, old.tau)
    damping = torch.where(better, old.damping * 0.1, old.damping * 10).clamp(1e-9, 1e9)

    # At a bound with the way uphill leading out, only the other coordinate moves.
    signed = _oriented(beta, tau)
    flattest = _FLATTEST[kind] / (high - low)
    no_beta = ((beta <= flattest * (1 + 1e-6)) & (g1 < 0)) | ((beta >= bound * (1 - 1e-6)) & (g1 > 0))
    far = _FARTHEST / beta * (1 - 1e-6)
    outward = torch.where(signed > 0, g2, -g2)
    no_z = ((tau <= low - far) & (outward > 0)) | ((tau >= high + far) & (outward < 0))
    # In units of the two coordinates' own curvature, raised where it is not positive: there is always a way uphill.
    a, c = h11 / (scale1 * scale1), h22 / (scale2 * scale2)
    both = torch.where(no_beta | no_z, 0.0, h12 / (scale1 * scale2))
    up1, up2 = torch.where(no_beta, 0.0, g1 / scale1), torch.where(no_z, 0.0, g2 / scale2)
    lowest = torch.where(no_beta, c, torch.where(no_z, a, (a + c) / 2 - torch.hypot((a - c) / 2, both)))
    raised = damping + (1e-3 - lowest).clamp(min=0)
    a, c = a + raised, c + raised
    tiny = 1e-30
    determinant = a * c - both * both
    p1, p2 = (c * up1 - both * up2) / determinant / scale1, (a * up2 - both * up1) / determinant / scale2
    p1, p2 = torch.where(no_beta, 0.0, p1), torch.where(no_z, 0.0, p2)
    reach = torch.minimum(1.5 / p1.abs().clamp(min=tiny), 4.0 / p2.abs().clamp(min=tiny)).clamp(max=1)
    p1, p2 = (p1 * reach).nan_to_num(0.0), (p2 * reach).nan_to_num(0.0)
    to_beta = (beta * p1.exp()).clamp(max=bound).maximum(flattest)
    to_tau = tau - p2 / torch.where(signed > 0, to_beta, -to_beta)
    to_beta, to_tau = _bounded(to_beta, to_tau, low, high, kind, bound)
    return _Climb(
        share, beta, tau, damping, g1, g2, h11, h12, h22, scale1, scale2, to_beta, to_tau, g1 * p1 + g2 * p2
    )  # fmt: skip


def _profile(
    at: _Sums, r: Tensor, low: Tensor, high: Tensor, beta: Tensor, tau: Tensor, kind: Kind
) -> tuple[Tensor, ...]:
    """The share, half its gradient, minus half its Hessian (11, 12, 22), and the scales of both coordinates.

    The Hessian is exact where the sums have second derivatives, and after Gauss and Newton where not.
    """
    k, k1, k2, k11, k12, k22 = _tie(low, high, kind, beta, tau)

    def with_y(fy: Tensor, ft: Tensor, kf: Tensor) -> Tensor:
        """Of a function of the points with y, the other columns projected out."""
        return fy if kind == "alone" else fy - (ft if kind == "with_line" else kf) * r

    def product(fg: Tensor, f: Tensor, g: Tensor, ft: Tensor, gt: Tensor, kf: Tensor, kg: Tensor) -> Tensor:
        """Of two functions of the points, the other columns projected out."""
        if kind == "alone":
            return fg - f * g
        if kind == "with_line":
            return fg - f * g - ft * gt
        return fg - f * g - kf * gt - kg * ft + kf * kg

    n, y1, y2 = with_y(at.sy, at.st, k), with_y(at.gy, at.gt, k1), with_y(at.dy, at.dt, k2)
    d = product(at.ss, at.s, at.s, at.st, at.st, k, k)
    # Where the sigmoid is a straight line to rounding, D is a difference of equal numbers.
    sound = d > _rounding(d) * at.ss
    d = torch.where(sound, d, 1.0)
    b = torch.where(sound, n / d, 0.0)
    s1 = product(at.sg, at.s, at.g, at.st, at.gt, k, k1)
    s2 = product(at.sd, at.s, at.d, at.st, at.dt, k, k2)
    g11 = product(at.gg, at.g, at.g, at.gt, at.gt, k1, k1)
    g12 = product(at.gd, at.g, at.d, at.gt, at.dt, k1, k2)
    g22 = product(at.dd, at.d, at.d, at.dt, at.dt, k2, k2)
    square = b * b
    gauss11, gauss22 = square * (g11 - s1 * s1 / d), square * (g22 - s2 * s2 / d)
    scale1, scale2 = (v.clamp(min=1e-30).sqrt() for v in (gauss11, gauss22))
    gain, up1, up2 = b * n, b * (y1 - b * s1), b * (y2 - b * s2)
    if not at.second:
        return gain, up1, up2, gauss11, square * (g12 - s1 * s2 / d), gauss22, scale1, scale2
    h, i, j, ht, it, jt, hy, iy, jy, hs, is_, js = at.second
    b1, b2 = (y1 - 2 * b * s1) / d, (y2 - 2 * b * s2) / d
    hessian = []
    for gij, bb, f, ft, fy, fs, kf in (
        (g11, b1 * b1, at.g + j, at.gt + jt, at.gy + jy, at.sg + js, k11),
        (g12, b1 * b2, at.d + i, at.dt + it, at.dy + iy, at.sd + is_, k12),
        (g22, b2 * b2, h, ht, hy, hs, k22),
    ):
        with_s = product(fs, f, at.s, ft, at.st, kf, k)
        hessian.append(square * (gij + with_s) - b * with_y(fy, ft, kf) - d * bb)
    return gain, up1, up2, *hessian, scale1, scale2


def _share_of(s: Tensor, st: Tensor, sy: Tensor, ss: Tensor, kappa: Tensor, r: Tensor, kind: Kind) -> Tensor:
    """The share of sigmoids, from their sums."""
    if kind == "alone":
        n, d = sy, ss - s * s
    elif kind == "with_line":
        n, d = sy - st * r, ss - s * s - st * st
    else:
        n, d = sy - kappa * r, ss - s * s - 2 * kappa * st + kappa * kappa
    return torch.where(d > _rounding(d) * ss, n * n / d, 0.0)


def _rounding(values: Tensor) -> float:
    """The share of a difference of squares below which it is rounding noise."""
    return float(torch.finfo(values.dtype).eps ** 0.6)


def _oriented(beta: Tensor, tau: Tensor) -> Tensor:
    """beta with the sign that makes the sigmoid small on most points.

    Turning the sigmoid round changes nothing but the sign of its amplitude. Near 1 it would have no digits
    left for its exponential tail, which is the whole curve when the centre lies beyond the data.
    """
    return torch.where(tau < 0, -beta.abs(), beta.abs())


def _bounded(beta: Tensor, tau: Tensor, low: Tensor, high: Tensor, kind: Kind, bound: float) -> tuple[Tensor, Tensor]:
    """Slope and centre moved to where the curve still differs from its limits, and is not too steep."""
    beta = beta.clamp(max=bound).maximum(_FLATTEST[kind] / (high - low).clamp(min=1e-12))
    return beta, tau.maximum(low - _FARTHEST / beta).minimum(high + _FARTHEST / beta)


def _tie(low: Tensor, high: Tensor, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """kappa, its derivatives by log beta (1) and by a shift of z (2), then 11, 12, 22; zeros with no line tied."""
    if kind in ("with_line", "alone"):
        return (torch.zeros_like(beta),) * 6
    low, high = low - tau, high - tau
    if kind == "flat_ends":
        place = torch.where(high.abs() > low.abs(), high, low)
    else:
        place = torch.where(low > 0, low, torch.where(high < 0, high, 0.0))
    z = beta * place
    s = z.sigmoid()
    g = s * (1 - s)
    h = g * (1 - 2 * s)
    k = g * (1 - 6 * g)
    # Inside the range the steepest place is the centre itself and moves with it.
    fixed = (place != 0).to(z.dtype)
    family = (g, g + h * z, h, g + 3 * h * z + k * z * z, 2 * h + k * z, k * fixed)
    return tuple(beta * v for v in family)
