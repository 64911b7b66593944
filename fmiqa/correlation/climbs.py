"""Damped climbs to the best slopes and centres of sigmoids, all problems together.

A step is two functions: sums over points, portion by portion, and what follows from them for all problems at once.
Climbs are kept in one tensor, so that either function is one kernel where it is compiled. Steps are of Gauss and
Newton, or of Newton with exact second derivatives.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import Fused
from fmiqa.correlation.portions import by_portions
from fmiqa.correlation.problems import Problems

__all__ = [
    "Climb",
    "Kind",
    "apart",
    "begin",
    "best_of",
    "bounded",
    "oriented",
    "rounding",
    "share_of",
    "take_steps",
    "tie",
]

Kind = Literal["with_line", "alone", "flat_ends", "flat_middle"]
"""What stands beside the sigmoid: a free line; nothing; or a line tied to it, `c = -b kappa`, so that the
slope of the curve vanishes where the sigmoid is flattest in the data range, or where it is steepest."""

# Flatter than this over the whole range, a sigmoid beside a line is a cubic to some 1e-6 of the variance, and
# one alone is a line; going on only loses digits, since amplitudes grow as 1 / beta^3 or 1 / beta.
_FLATTEST: dict[Kind, float] = {"with_line": 0.5, "alone": 0.01, "flat_ends": 0.5, "flat_middle": 0.5}
# A centre this many units of z beyond the data leaves an exponential to 1e-5.
_FARTHEST = 12.0


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


class Climb(NamedTuple):
    """Climbs under way: where they are, share, half gradient and curvature there, and the place to try next.

    The coordinates are log beta and a shift of z. The slope to try next has the sign that `oriented` gives it.
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
    next_signed: Tensor
    next_tau: Tensor
    promise: Tensor

    @classmethod
    def of(cls, climbs: Tensor) -> Climb:
        """The parts (P, S) of climbs (14, P, S)."""
        return cls._make(climbs.unbind())


def best_of(climbs: Tensor, number: int) -> Tensor:
    """The best climbs of each problem."""
    return _some(climbs, Climb.of(climbs).share, number)


def apart(climbs: Tensor, number: int) -> Tensor:
    """As `best_of`, those last that draw nearly the same curve as a better one."""
    return _some(climbs, _without_twins(climbs), number)


def _some(climbs: Tensor, worth: Tensor, number: int) -> Tensor:
    at = worth.topk(number, dim=1).indices
    return climbs.gather(2, at.expand(len(climbs), -1, -1))


@Fused
def _without_twins(climbs: Tensor) -> Tensor:
    """(P, S) the share, far below all others for climbs that draw nearly the same curve as a better one."""
    climb = Climb.of(climbs)
    near = (climb.beta.log()[:, :, None] - climb.beta.log()[:, None]).abs() < 0.03
    near &= ((climb.tau[:, :, None] - climb.tau[:, None]) * climb.beta[:, :, None]).abs() < 0.03
    ahead = climb.share[:, None] > climb.share[:, :, None]
    equal = (climb.share[:, None] == climb.share[:, :, None]).tril(diagonal=-1)
    twin = (near & (ahead | equal)).any(2)
    return torch.where(twin, climb.share - 2, climb.share)


def begin(p: Problems, kind: Kind, bound: float, starts: Tensor, *, newton: bool = False) -> Tensor:
    """Climbs (14, P, S) at their starts, slopes and centres (2, P, S): a step of length 0 from below everything."""
    signed, tau = _at_start(starts, *_bounds_of(p)[1:], kind, bound)
    zero = torch.zeros_like(tau)
    below = torch.stack((zero - torch.inf, signed.abs(), tau, zero + 1e-2, *[zero] * 7, signed, tau, zero))
    return take_steps(p, kind, bound, below, 1, newton=newton)


def take_steps(p: Problems, kind: Kind, bound: float, climbs: Tensor, steps: int, *, newton: bool = False) -> Tensor:
    """Damped steps, all of them: a problem must not depend on its batch mates."""
    points = climbs.shape[2] * p.t.shape[1]
    bounds = _bounds_of(p)
    for _ in range(steps):
        at = Climb.of(climbs)
        curves = at.next_signed, at.next_tau
        sums = by_portions(_with_second if newton else _sums, p.t, p.w, p.wy, *curves, points=points)
        climbs = _judged(sums, *bounds, climbs, kind, bound)
    return climbs


def _bounds_of(p: Problems) -> tuple[Tensor, Tensor, Tensor]:
    """(P, 1) each: the correlation, the least and the greatest score."""
    return p.r[:, None], p.low[:, None], p.high[:, None]


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
def _at_start(starts: Tensor, low: Tensor, high: Tensor, kind: Kind, bound: float) -> tuple[Tensor, Tensor]:
    """(P, S) oriented slopes and centres where climbs begin."""
    beta, tau = bounded(starts[0], starts[1], low, high, kind, bound)
    return oriented(beta, tau), tau


@Fused
def _judged(
    sums: tuple[Tensor, ...], r: Tensor, low: Tensor, high: Tensor, climbs: Tensor, kind: Kind, bound: float
) -> Tensor:
    """The climbs after a step that was tried: all that is not a sum over points.

    Where the step led uphill it is taken; where it did not, the climb stays and aims again with more damping.
    """
    old, new = Climb.of(climbs), _Sums._make([*sums[:15], sums[15:]])
    at = _profile(new, r, low, high, old.next_signed, old.next_tau, kind)
    better = at[0] > old.share
    kept = (old.share, *old[4:11])
    share, g1, g2, h11, h12, h22, scale1, scale2 = (torch.where(better, a, b) for a, b in zip(at, kept, strict=True))
    beta = torch.where(better, old.next_signed.abs(), old.beta)
    tau = torch.where(better, old.next_tau, old.tau)
    damping = torch.where(better, old.damping * 0.1, old.damping * 10).clamp(1e-9, 1e9)

    # At a bound with the way uphill leading out, only the other coordinate moves.
    signed = oriented(beta, tau)
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
    to_beta, to_tau = bounded(to_beta, to_tau, low, high, kind, bound)
    to_signed, promise = oriented(to_beta, to_tau), g1 * p1 + g2 * p2
    return torch.stack((share, beta, tau, damping, g1, g2, h11, h12, h22, scale1, scale2, to_signed, to_tau, promise))


def _profile(
    at: _Sums, r: Tensor, low: Tensor, high: Tensor, beta: Tensor, tau: Tensor, kind: Kind
) -> tuple[Tensor, ...]:
    """The share, half its gradient, minus half its Hessian (11, 12, 22), and the scales of both coordinates.

    The Hessian is exact where the sums have second derivatives, and after Gauss and Newton where not.
    """
    k, k1, k2, k11, k12, k22 = tie(low, high, kind, beta, tau)

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
    sound = d > rounding(d) * at.ss
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


def share_of(s: Tensor, st: Tensor, sy: Tensor, ss: Tensor, kappa: Tensor, r: Tensor, kind: Kind) -> Tensor:
    """The share of sigmoids, from their sums."""
    if kind == "alone":
        n, d = sy, ss - s * s
    elif kind == "with_line":
        n, d = sy - st * r, ss - s * s - st * st
    else:
        n, d = sy - kappa * r, ss - s * s - 2 * kappa * st + kappa * kappa
    return torch.where(d > rounding(d) * ss, n * n / d, 0.0)


def rounding(values: Tensor) -> float:
    """The share of a difference of squares below which it is rounding noise."""
    return float(torch.finfo(values.dtype).eps ** 0.6)


def oriented(beta: Tensor, tau: Tensor) -> Tensor:
    """beta with the sign that makes the sigmoid small on most points.

    Turning the sigmoid round changes nothing but the sign of its amplitude. Near 1 it would have no digits
    left for its exponential tail, which is the whole curve when the centre lies beyond the data.
    """
    return torch.where(tau < 0, -beta.abs(), beta.abs())


def bounded(beta: Tensor, tau: Tensor, low: Tensor, high: Tensor, kind: Kind, bound: float) -> tuple[Tensor, Tensor]:
    """Slope and centre moved to where the curve still differs from its limits, and is not too steep."""
    beta = beta.clamp(max=bound).maximum(_FLATTEST[kind] / (high - low).clamp(min=1e-12))
    return beta, tau.maximum(low - _FARTHEST / beta).minimum(high + _FARTHEST / beta)


def tie(low: Tensor, high: Tensor, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
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
