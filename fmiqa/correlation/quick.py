"""Quick R^2 of the five-parameter logistic for very many problems: what a selection step needs.

As in `fmiqa.correlation.varpro`, the linear parameters are eliminated and two are searched, slope and centre of
the sigmoid. Here the search is for speed: a grid over a histogram of each problem (each bin held by its mean), and
one over bins of equal mass with slopes that follow the local spacing, so that scores crowded at an end are seen;
the best of each is refined on its bins, the better of the two by damped Gauss-Newton steps on the points
themselves. What comes out is a local maximum of the fit, nearly always the global one that `fit_logistic` finds,
and never above it.

Points carry weights, so that folds, bootstrap samples and subsamples of the same images are rows of one batch. All
rows climb together: sums over points are taken portion by portion, what follows from the sums for all rows at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa.correlation.portions import by_portions
from fmiqa.fusing import Fused

__all__ = ["quick_share", "weighted_pearson"]

_BINS = 80
_SLOPES = (0.7, 2.0, 5.0, 12.0, 30.0)
_CENTRES = 13
_BEYOND = 0.25  # centres that far outside the data, in ranges: the one-sided curves
_WIDTHS = ((1.0, 3), (0.5, 5), (0.25, 9), (0.12, 17), (0.05, 33))  # (share of the mass, number of centres)
_GRID_STEPS = 6
_POLISH_STEPS = 4
_ROUNDS = 3
_POINTS = 2**20  # of the rows that climb together
_STEEPEST = 1e6


class _Sums(NamedTuple):
    """Weighted means over the points, (R,) each; s the sigmoid, d = s (1 - s), e = d t."""

    s: Tensor
    st: Tensor
    sy: Tensor
    ss: Tensor
    d: Tensor
    dt: Tensor
    dy: Tensor
    ds: Tensor
    dd: Tensor
    et: Tensor
    ey: Tensor
    es: Tensor
    ed: Tensor
    ee: Tensor


def quick_share(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """R^2 of the five-parameter logistic fitted to each row.

    Args:
        x: (P, N) scores, float64.
        y: (P, N) or (1, N) subjective scores.
        weights: (P, N) or (1, N), at least 0; a point of weight 0 counts for nothing. None: all 1.

    Returns:
        (P,): R^2 from 0 to 1; NaN where x or y is constant, or not finite, over the points that count.
    """
    rows = max(1, _POINTS // x.shape[1])
    w = torch.ones_like(y[:1]) if weights is None else weights
    parts = []
    for start in range(0, len(x), rows):
        stop = start + rows
        parts.append(_share(x[start:stop], *(v if len(v) == 1 else v[start:stop] for v in (y, w))))
    return torch.cat(parts) if parts else x.new_zeros(0)


def weighted_pearson(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """(P,) Pearson correlation of each row, shapes as in `quick_share`; NaN where a row has no variance."""

    def pearson(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        w = w / w.sum(-1, keepdim=True)
        return (w * _standard(x, w)[0] * _standard(y, w)[0]).sum(-1)

    return by_portions(pearson, x, y, torch.ones_like(y[:1]) if weights is None else weights)


def _share(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    y, w = (y, w) if len(y) >= len(w) else (y.expand_as(w), w)
    wy, spread_y, w = by_portions(_targets, y, w)
    t, r, known = by_portions(_scores, x, w, wy)
    known = known & (spread_y > 0)
    beta, tau = _starts(*by_portions(_binned, t, w, wy), r)
    one, other = (_look(t, w, wy, r, beta[:, k], tau[:, k]) for k in (0, 1))
    share = _climb(t, w, wy, r, _better(one, other), _POLISH_STEPS).share
    return torch.where(known, (r * r + share).clamp(max=1), torch.nan)


def _targets(y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights times standardised y, the (R,) deviation of y, and weights of sum 1."""
    w = w / w.sum(-1, keepdim=True)
    y, spread = _standard(y, w)
    return w * y, spread, w.expand_as(y)


@Fused
def _scores(x: Tensor, w: Tensor, wy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised x, the (R,) mean of x y, and whether x is finite and not constant; 0 where it is not."""
    t, spread = _standard(x, w)
    known = (spread > 0) & t.isfinite().all(-1)
    t = torch.where(known[:, None], t, 0.0)
    return t, (t * wy).sum(-1), known


def _standard(values: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of weighted mean 0 and mean square 1, and (R,) their deviation; points of weight 0 are put at 0."""
    counted = w > 0
    values = torch.where(counted, values, 0.0)
    centred = torch.where(counted, values - (values * w).sum(-1, keepdim=True), 0.0)
    centred = torch.where(counted, centred - (centred * w).sum(-1, keepdim=True), 0.0)
    square = (centred.square() * w).sum(-1)
    # Below this the deviation is rounding of the mean: the row is constant.
    floor = (1e-14 * values.abs().amax(-1)) ** 2
    spread = torch.where(square > floor, square, 0.0).sqrt()
    return centred / torch.where(spread > 0, spread, 1.0)[:, None], spread


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
    place = (t - low) * ((1 - 1e-9) / (high - low).clamp(min=1e-12))
    return place, (place * _BINS).long()


@Fused
def _denser_places(even: Tensor, place: Tensor, bins: Tensor, below: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Places and bins that lie even half in the range, half in the mass, which is a straight line within a bin."""
    share = below + mass * (place * _BINS - bins)
    place = (even + share.clamp(0, 1 - 1e-9)) / 2
    return place, (place * _BINS).long()


def _starts(mean: Tensor, mass: Tensor, mass_y: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """(R, 2) slopes and centres of the best curves over bins: of those even in the range, and in the mass."""
    even, local = _even_grid(mean, mass), _local_grid(mean, mass)
    beta, tau = (torch.cat(v, 1) for v in zip(even, local, strict=True))
    rows = (v.float() for v in (mean, mass, mass_y, beta, tau))
    sums = by_portions(_grid, *rows, points=beta.shape[1] * _BINS)
    s, st, sy, ss = (v.double() for v in sums)
    share = _ratio(s, st, sy, ss, r[:, None])[0]
    own, rest = share[:, : even[0].shape[1]], share[:, even[0].shape[1] :]
    by_slope = own.view(len(own), len(_SLOPES), _CENTRES).max(-1)
    kept = by_slope.values.topk(2, dim=-1).indices
    first = kept * _CENTRES + by_slope.indices.gather(1, kept)
    chosen = torch.cat([first, own.shape[1] + rest.argmax(-1, keepdim=True)], 1)  # (R, 3)

    def thrice(v: Tensor) -> Tensor:
        return v.repeat_interleave(3, 0)

    places = (beta.gather(1, chosen).flatten(), tau.gather(1, chosen).flatten())
    bins = thrice(mean), thrice(mass), thrice(mass_y), thrice(r)
    climbed = _climb(*bins, _look(*bins, *places), _GRID_STEPS)
    found, beta, tau = (v.view(-1, 3) for v in (climbed.share, climbed.beta, climbed.tau))
    better = (found[:, 1] > found[:, 0]).long()
    final = torch.stack([better, torch.full_like(better, 2)], 1)
    return beta.gather(1, final), tau.gather(1, final)


def _even_grid(mean: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """(R, S) slopes in units of the deviation, centres even over the range and a little beyond."""
    low = torch.where(mass > 0, mean, torch.inf).amin(-1, keepdim=True)
    high = torch.where(mass > 0, mean, -torch.inf).amax(-1, keepdim=True)
    places = torch.linspace(-_BEYOND, 1 + _BEYOND, _CENTRES, dtype=mean.dtype, device=mean.device)
    tau = (low + (high - low).clamp(min=1e-12) * places).repeat(1, len(_SLOPES))
    return mean.new_tensor(_SLOPES).repeat_interleave(_CENTRES).expand_as(tau), tau


def _local_grid(mean: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """(R, S) centres even in the mass, slopes that follow the spacing of the scores around them."""
    filled = torch.where(mass > 0, mean, -torch.inf).cummax(-1).values  # empty: as the one before
    filled = torch.where(filled.isfinite(), filled, mean.amin(-1, keepdim=True))
    cumulated = mass.cumsum(-1)
    ends = [
        ((max(0.0, c - width / 2), c, min(1.0, c + width / 2)))
        for width, number in _WIDTHS
        for c in ((i + 0.5) / number for i in range(number))
    ]
    levels = mean.new_tensor(ends).T.reshape(-1).expand(len(mean), -1).contiguous()  # (R, 3 S)
    bins = torch.searchsorted(cumulated, levels).clamp(max=_BINS - 1)
    low, middle, high = filled.gather(1, bins).chunk(3, 1)
    extent = (filled[:, -1:] - filled[:, :1]).clamp(min=1e-12)
    return 4 / torch.maximum(high - low, 1e-6 * extent), middle


@Fused
def _grid(
    mean: Tensor, mass: Tensor, mass_y: Tensor, beta: Tensor, tau: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(R, S) the sums over bins that the share of each start needs."""
    s = ((mean[:, None, :] - tau[:, :, None]) * beta[:, :, None]).sigmoid()
    ws = s * mass[:, None]
    return ws.sum(-1), (ws * mean[:, None]).sum(-1), (s * mass_y[:, None]).sum(-1), (ws * s).sum(-1)


class _Climb(NamedTuple):
    """Climbs under way, (R,) each: where they are, the sums and the share there, and the step to try next."""

    share: Tensor
    beta: Tensor
    tau: Tensor
    damping: Tensor
    to_beta: Tensor
    to_tau: Tensor
    at: _Sums


def _better(one: _Climb, other: _Climb) -> _Climb:
    """Of two climbs the higher, row by row."""
    first = one.share >= other.share
    place: list[Any] = [torch.where(first, a, b) for a, b in zip(one[:-1], other[:-1], strict=True)]
    sums = _Sums(*(torch.where(first, a, b) for a, b in zip(one.at, other.at, strict=True)))
    return _Climb._make([*place, sums])


def _climb(t: Tensor, w: Tensor, wy: Tensor, r: Tensor, state: _Climb, steps: int) -> _Climb:
    """Damped Gauss-Newton steps on (log beta, tau), all of them: a row must not depend on its batch mates."""
    for _ in range(steps):
        state = _advance(t, w, wy, r, state)
    return state


def _look(t: Tensor, w: Tensor, wy: Tensor, r: Tensor, beta: Tensor, tau: Tensor) -> _Climb:
    """A climb at its start: a step of length 0 from below everything."""
    beta, tau = beta.clone(memory_format=torch.contiguous_format), tau.clone(memory_format=torch.contiguous_format)
    nowhere, damping = torch.full_like(beta, -torch.inf), torch.full_like(beta, 1e-2)
    # Tensors of their own: where some are the same, or parts of one, another kernel would be compiled.
    to_beta, to_tau, *sums = (torch.zeros_like(beta) for _ in range(16))
    return _advance(t, w, wy, r, _Climb(nowhere, beta, tau, damping, to_beta, to_tau, _Sums(*sums)))


def _advance(t: Tensor, w: Tensor, wy: Tensor, r: Tensor, old: _Climb) -> _Climb:
    """Take the step where it leads uphill; where it does not, stay and aim again with more damping."""
    beta, tau = (old.beta * old.to_beta.exp()).clamp(1e-3, _STEEPEST), old.tau + old.to_tau
    return _judged(by_portions(_sums, t, w, wy, beta, tau), r, beta, tau, old)


@Fused
def _judged(new: _Sums, r: Tensor, beta: Tensor, tau: Tensor, old: _Climb) -> _Climb:
    """The climb after a step that was tried: all that is not a sum over points."""
    better = _ratio(new.s, new.st, new.sy, new.ss, r)[0] > old.share
    at = _Sums(*(torch.where(better, b, a) for a, b in zip(old.at, new, strict=True)))
    beta, tau = torch.where(better, beta, old.beta), torch.where(better, tau, old.tau)
    damping = torch.where(better, old.damping * 0.1, old.damping * 10).clamp(1e-9, 1e9)
    share, (to_beta, to_tau) = _aim(at, r, beta, tau, damping)
    return _Climb(share, beta, tau, damping, to_beta, to_tau, at)


@Fused
def _sums(t: Tensor, w: Tensor, wy: Tensor, beta: Tensor, tau: Tensor) -> _Sums:
    s = ((t - tau[:, None]) * beta[:, None]).sigmoid()
    d = s - s * s
    ws, wd = w * s, w * d
    e = d * t
    we = wd * t
    return _Sums(
        ws.sum(-1), (ws * t).sum(-1), (wy * s).sum(-1), (ws * s).sum(-1),
        wd.sum(-1), we.sum(-1), (wy * d).sum(-1), (wd * s).sum(-1), (wd * d).sum(-1),
        (we * t).sum(-1), (wy * e).sum(-1), (we * s).sum(-1), (we * d).sum(-1), (we * e).sum(-1),
    )  # fmt: skip


def _ratio(s: Tensor, st: Tensor, sy: Tensor, ss: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The share N^2 / D that the sigmoid adds beside a line, with N, D and b = N / D."""
    n = sy - st * r
    d = ss - s * s - st * st
    # Where the sigmoid is a straight line to rounding, D is a difference of equal numbers.
    sound = d > 4e-10 * ss
    b = torch.where(sound, n / torch.where(sound, d, 1.0), 0.0)
    return b * n, n, d, b


def _aim(at: _Sums, r: Tensor, beta: Tensor, tau: Tensor, damping: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The share, and the next step in (log beta, tau)."""
    share, _, d, b = _ratio(at.s, at.st, at.sy, at.ss, r)
    d = torch.where(b != 0, d, 1.0)

    def perpendicular(f: Tensor, ft: Tensor, g: Tensor, gt: Tensor, fg: Tensor) -> Tensor:
        return fg - f * g - ft * gt

    # Of d and e = d t with the sigmoid, the target and themselves, line and constant projected out.
    d_s = perpendicular(at.d, at.dt, at.s, at.st, at.ds)
    e_s = perpendicular(at.dt, at.et, at.s, at.st, at.es)
    d_y, e_y = at.dy - at.dt * r, at.ey - at.et * r
    d_d = perpendicular(at.d, at.dt, at.d, at.dt, at.dd)
    e_d = perpendicular(at.dt, at.et, at.d, at.dt, at.ed)
    e_e = perpendicular(at.dt, at.et, at.dt, at.et, at.ee)
    # ds/dlog(beta) = beta (e - tau d), ds/dtau = -beta d; the residual is y - b s.
    g_d, g_e = b * (d_y - b * d_s), b * (e_y - b * e_s)
    g1, g2 = beta * (g_e - tau * g_d), -beta * g_d
    d_d, e_d, e_e = d_d - d_s * d_s / d, e_d - d_s * e_s / d, e_e - e_s * e_s / d
    scale = (b * beta).square()
    h11 = scale * (e_e - 2 * tau * e_d + tau * tau * d_d).clamp(min=0)
    h12 = -scale * (e_d - tau * d_d)
    h22 = scale * d_d.clamp(min=0)
    tiny = 1e-30
    h11, h22 = h11 * (1 + damping) + tiny, h22 * (1 + damping) + tiny
    determinant = (h11 * h22 - h12 * h12).clamp(min=tiny)
    p1, p2 = (h22 * g1 - h12 * g2) / determinant, (h11 * g2 - h12 * g1) / determinant
    reach = torch.minimum(1.5 / p1.abs().clamp(min=tiny), 2.0 / p2.abs().clamp(min=tiny)).clamp(max=1)
    p1, p2 = (p1 * reach).nan_to_num(0.0), (p2 * reach).nan_to_num(0.0)
    return share, (p1, p2)
