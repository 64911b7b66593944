"""Quick R^2 of the five-parameter logistic for very many problems: what a selection step needs.

As in `fmiqa.correlation.varpro`, the linear parameters are eliminated and two are searched, slope and centre of
the sigmoid. Here the search is for speed: a grid over a histogram of each problem (each bin held by its mean), and
one over bins of equal mass with slopes that follow the local spacing, so that scores crowded at an end are seen;
the best of each is refined on its bins, the better of the two by damped Gauss-Newton steps on the points
themselves. What comes out is a local maximum of the fit, nearly always the global one that `fit_logistic` finds,
and never above it.

Points carry weights, so that folds, bootstrap samples and subsamples of the same images are rows of one batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["quick_share", "weighted_pearson"]

_BINS = 64
_SLOPES = (0.7, 2.0, 5.0, 12.0, 30.0)
_CENTRES = 13
_BEYOND = 0.25  # centres that far outside the data, in ranges: the one-sided curves
_WIDTHS = ((1.0, 3), (0.5, 5), (0.25, 9), (0.12, 17), (0.05, 33))  # (share of the mass, number of centres)
_GRID_STEPS = 8
_POLISH_STEPS = 6
_ROWS = 2**17  # points in a portion of rows: what stays in a core's cache
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
    rows = max(1, _ROWS // x.shape[1])
    w = torch.ones_like(y[:1]) if weights is None else weights
    parts = []
    for start in range(0, len(x), rows):
        stop = start + rows
        parts.append(_share(x[start:stop], *(v if len(v) == 1 else v[start:stop] for v in (y, w))))
    return torch.cat(parts) if parts else x.new_zeros(0)


def weighted_pearson(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """(P,) Pearson correlation of each row, shapes as in `quick_share`; NaN where a row has no variance."""
    w = torch.ones_like(y[:1]) if weights is None else weights
    w = w / w.sum(-1, keepdim=True)
    return (w * _standard(x, w)[0] * _standard(y, w)[0]).sum(-1)


def _share(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    w = w / w.sum(-1, keepdim=True)
    t, spread = _standard(x, w)
    y, spread_y = _standard(y, w)
    known = (spread > 0) & (spread_y > 0) & t.isfinite().all(-1)
    t = torch.where(known[:, None], t, 0.0)
    wy = w * y
    r = (t * wy).sum(-1)
    starts = [_over_histogram(t, w, wy, r), _over_quantiles(t, w, wy, r)]
    shares = torch.stack([_ratio(*_sums(t, w, wy, beta, tau)[:4], r)[0] for beta, tau in starts])
    first = shares[0] >= shares[1]
    beta, tau = (torch.where(first, a, b) for a, b in zip(*starts, strict=True))
    share = _climb(t, w, wy, r, beta, tau, _POLISH_STEPS)[0]
    return torch.where(known, (r * r + share).clamp(max=1), torch.nan)


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


def _over_quantiles(t: Tensor, w: Tensor, wy: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) slope and centre of the best curve over bins of equal mass, slopes following the local spacing."""
    t, order = t.sort(-1)
    w, wy = w.expand_as(t).gather(1, order), wy.expand_as(t).gather(1, order)
    bins = ((w.cumsum(-1) - w / 2) * _BINS).long().clamp(0, _BINS - 1)
    empty = t.new_zeros(len(t), _BINS)
    mass = empty.scatter_add(1, bins, w)
    mean = empty.scatter_add(1, bins, w * t) / mass.clamp(min=1e-30)
    mean = torch.where(mass > 0, mean, -torch.inf).cummax(-1).values.clamp(min=t[:, :1])  # empty: as the one before
    mass_y = empty.scatter_add(1, bins, wy)

    last = _BINS - 1
    ends = [
        (max(0, round(last * (c - width / 2))), round(last * c), min(last, round(last * (c + width / 2))))
        for width, number in _WIDTHS
        for c in ((i + 0.5) / number for i in range(number))
    ]
    low, middle, high = (list(v) for v in zip(*ends, strict=True))
    extent = (mean[:, -1:] - mean[:, :1]).clamp(min=1e-12)
    beta = 4 / torch.maximum(mean[:, high] - mean[:, low], 1e-6 * extent)  # (R, S)
    tau = mean[:, middle]
    s = ((mean[:, None, :] - tau[:, :, None]) * beta[:, :, None]).sigmoid_()
    s1, st, sy = ((s @ v[:, :, None])[..., 0] for v in (mass, mass * mean, mass_y))
    ss = (s.square_() @ mass[:, :, None])[..., 0]
    best = _ratio(s1, st, sy, ss, r[:, None])[0].argmax(-1, keepdim=True)
    _, beta, tau = _climb(mean, mass, mass_y, r, beta.gather(1, best)[:, 0], tau.gather(1, best)[:, 0], _GRID_STEPS)
    return beta, tau


def _over_histogram(t: Tensor, w: Tensor, wy: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """(R,) slope and centre of the best curve over a histogram of each row."""
    low, high = t.amin(-1, keepdim=True), t.amax(-1, keepdim=True)
    extent = (high - low).clamp(min=1e-12)
    bins = ((t - low) * ((_BINS - 1e-6) / extent)).long()
    w, wy = w.expand_as(t), wy.expand_as(t)
    empty = t.new_zeros(len(t), _BINS)
    mass = empty.scatter_add(1, bins, w)
    mean = empty.scatter_add(1, bins, w * t) / mass.clamp(min=1e-30)
    mass_y = empty.scatter_add(1, bins, wy)

    slopes = t.new_tensor(_SLOPES)
    places = torch.linspace(-_BEYOND, 1 + _BEYOND, _CENTRES, dtype=t.dtype, device=t.device)
    tau = low + extent * places
    z = (mean[:, None, :] - tau[:, :, None])[:, None] * slopes[None, :, None, None]
    s = z.sigmoid_()
    s1, st, sy = (s @ v[:, None, :, None] for v in (mass, mass * mean, mass_y))
    ss = s.square_() @ mass[:, None, :, None]
    share = _ratio(s1[..., 0], st[..., 0], sy[..., 0], ss[..., 0], r[:, None, None])[0]
    best = share.max(-1)  # over centres: (R, slopes)
    kept = best.values.topk(3, dim=-1).indices
    beta = slopes[kept].flatten()
    tau = tau.gather(1, best.indices.gather(1, kept)).flatten()

    def thrice(v: Tensor) -> Tensor:
        return v.repeat_interleave(3, 0)

    found, beta, tau = _climb(thrice(mean), thrice(mass), thrice(mass_y), thrice(r), beta, tau, _GRID_STEPS)
    best_start = found.view(-1, 3).argmax(-1, keepdim=True)
    return beta.view(-1, 3).gather(1, best_start)[:, 0], tau.view(-1, 3).gather(1, best_start)[:, 0]


def _climb(
    t: Tensor, w: Tensor, wy: Tensor, r: Tensor, beta: Tensor, tau: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Damped Gauss-Newton on (log beta, tau): the share that the sigmoid adds to the line's, beta, tau."""
    at = _sums(t, w, wy, beta, tau)
    damping = torch.full_like(beta, 1e-3)
    share, step = _aim(at, r, beta, tau, damping)
    for _ in range(steps):  # all of them: a row must not depend on when its batch mates are done
        new_beta = (beta * step[0].exp()).clamp(1e-3, _STEEPEST)
        new_tau = tau + step[1]
        new = _sums(t, w, wy, new_beta, new_tau)
        better = _ratio(new.s, new.st, new.sy, new.ss, r)[0] > share
        at = _Sums(*(torch.where(better, b, a) for a, b in zip(at, new, strict=True)))
        beta, tau = torch.where(better, new_beta, beta), torch.where(better, new_tau, tau)
        damping = torch.where(better, damping * 0.1, damping * 10).clamp(1e-9, 1e9)
        share, step = _aim(at, r, beta, tau, damping)
    return share, beta, tau


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
