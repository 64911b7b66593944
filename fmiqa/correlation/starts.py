"""Where to start the search for the best logistic curve: a coarse grid, cubics, and every step function.

The gain has many local maxima: smooth curves, curves bent by a few outlying points, and steps between two
neighbouring points. Smooth ones are found on a grid over a few dozen averaged points, whose slopes follow the
local spacing of the scores, so that clusters of any width are seen; steps are scored exactly, all at once, by
running sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmiqa.correlation.varpro import Kind, Problem, gain, refine, standardise, twins

__all__ = ["search"]

_BINS = 64
_KEPT_COARSE = 8
_COARSE_STEPS = 8
_KEPT_STEPS = 3
_STEP_WIDTHS = (2, 6, 20)
_KEPT_SMOOTH = 3
_KEPT_SOFT = 3
# (relative width in ranks, number of centres); (slope over the whole range, number of centres).
_LOCAL_GRID = ((1.0, 3), (0.5, 7), (0.25, 13), (0.125, 25), (0.0625, 33))
_GLOBAL_GRID = ((2.0, 7), (6.0, 9), (18.0, 13), (54.0, 21))
_TAIL_SLOPES = (1.0, 3.0, 9.0, 27.0, 81.0)
_STEEPEST = 1e9


def search(problem: Problem, kind: Kind) -> tuple[Tensor, Tensor]:
    """The most promising starts: (P, S) slopes and centres."""
    # Few points make a ragged objective, and cost little.
    extra = 600 // problem.t.shape[1]
    smooth = _join(_coarse(problem, kind, _KEPT_COARSE + extra), _cubic(problem))
    sharp, *soft = _steps(problem, kind, _KEPT_STEPS + extra)
    # Chosen apart: before refinement a step looks better than the smooth curve that will beat it.
    beta, tau = _join(
        _pick(problem, kind, _KEPT_SMOOTH + extra, *smooth),
        _pick(problem, kind, _KEPT_SOFT + extra, *_join(*soft)),
        (sharp[0][:, : 1 + extra], sharp[1][:, : 1 + extra]),
    )
    # At this slope one point at most lies within the rise, at any height; a steeper curve says the same with
    # fewer digits.
    gaps = problem.t.diff(dim=1)
    narrowest = torch.where(gaps > 0, gaps, torch.inf).amin(1, keepdim=True)
    return beta.minimum(120 / narrowest).clamp(max=_STEEPEST), tau


def _coarse(problem: Problem, kind: Kind, number: int) -> tuple[Tensor, Tensor]:
    """Refined winners of the grid, on bins of equal numbers of points."""
    coarse, mean, deviation = _binned(problem)
    beta, tau = _pick(coarse, kind, number, *_grid(coarse.t))
    beta, tau, _, _ = refine(coarse, kind, beta, tau, steps=_COARSE_STEPS, tolerance=1e-6)
    return beta / deviation, tau * deviation + mean


def _binned(problem: Problem) -> tuple[Problem, Tensor, Tensor]:
    points = problem.t.shape[1]
    if points <= 2 * _BINS:
        zero = torch.zeros_like(problem.r)
        return problem, zero, zero + 1
    # Bins differ by one point at most; taking them as equally heavy only moves the starts a little.
    number = torch.arange(points, device=problem.t.device) * _BINS // points
    size = number.bincount(minlength=_BINS).to(problem.t.dtype)
    empty = problem.t.new_zeros(len(problem.t), _BINS)
    t, mean, deviation = standardise(empty.index_add(1, number, problem.t) / size)
    y = empty.index_add(1, number, problem.y.expand_as(problem.t)) / size
    return Problem.of(t, y - y.mean(-1, keepdim=True)), mean, deviation


def _grid(t: Tensor) -> tuple[Tensor, Tensor]:
    last = t.shape[1] - 1
    low, middle, high = [], [], []
    for width, number in _LOCAL_GRID:
        for i in range(number):
            centre = (i + 0.5) / number
            low.append(round(last * max(0.0, centre - width / 2)))
            middle.append(round(last * centre))
            high.append(round(last * min(1.0, centre + width / 2)))
    extent = t[:, -1:] - t[:, :1]
    spacing = (t[:, high] - t[:, low]).maximum(extent * 1e-9)
    beta, tau = [4 / spacing], [t[:, middle]]
    for slope, number in _GLOBAL_GRID:
        # Centres beyond the data give the one-sided curves: exponentials and the like.
        beyond = 1 / slope
        places = torch.linspace(-beyond, 1 + beyond, number, dtype=t.dtype, device=t.device)
        tau.append(t[:, :1] + extent * places)
        beta.append((slope / extent).expand(-1, number))
    for slope in _TAIL_SLOPES:
        flat = slope / extent
        beta += [flat, flat]
        tau += [t[:, :1] - 6 / flat, t[:, -1:] + 6 / flat]
    return torch.cat(beta, dim=1), torch.cat(tau, dim=1)


def _cubic(problem: Problem) -> tuple[Tensor, Tensor]:
    """The flat curve that comes nearest to the cubic through the points.

    As beta goes to 0 the sigmoid beside a line turns into a cubic; any ratio of its cubic to its quadratic
    part is had by the right value u = 1 - 2 s at t = 0, a root of 1.5 u^2 - m u - 0.5 with m = 3 ratio /
    beta.
    """
    t, y = problem.t, problem.y
    q = t.square()
    skew = (q * t).mean(-1, keepdim=True)
    q = q - 1 - skew * t
    k = t * t.square()
    q_square = q.square().mean(-1, keepdim=True)
    k = k - skew - k.mul(t).mean(-1, keepdim=True) * t
    share = k.mul(q).mean(-1, keepdim=True) / q_square
    k = k - share * q
    cubic = k.mul(y).mean(-1, keepdim=True) / k.square().mean(-1, keepdim=True)
    quadratic = q.mul(y).mean(-1, keepdim=True) / q_square - cubic * share
    beta = 1 / t.abs().amax(-1, keepdim=True)
    m = (3 * cubic / (quadratic * beta)).nan_to_num(nan=1e9, posinf=1e9, neginf=-1e9).clamp(-1e9, 1e9)
    u = -m.sign() / (m.abs() + (m.square() + 3).sqrt())
    return beta, 2 * torch.atanh(u) / beta


def _step_shares(problem: Problem, kind: Kind, first: Tensor, closes: Tensor) -> tuple[Tensor, Tensor]:
    """(P, N) the gain of the best step at each group of equal scores, and the height of that group.

    A step may leave one group of equal scores at any height w between its two levels; the best w is had in
    closed form, as the maximum of (n0 + n1 w)^2 / (d0 + 2 d1 w + d2 w^2).
    """
    t, y = problem.t, problem.y.expand_as(problem.t)
    points = t.shape[1]
    # Products of the indicator "above this group" with 1, t, y, and of the group itself, held at its last
    # point.
    sums = torch.stack((torch.ones_like(t), t, y)).cumsum(-1) / points
    padded = torch.nn.functional.pad(sums, (1, 0))
    above = sums[..., -1:] - sums
    group = sums - padded.gather(-1, first.expand(3, -1, -1))
    beside_line = kind == "with_line"
    r = problem.r if beside_line else torch.zeros_like(problem.r)
    n0, n1 = above[2] - r * above[1], group[2] - r * group[1]
    d0, d1, d2 = above[0] - above[0].square(), -above[0] * group[0], group[0] - group[0].square()
    whole = d0
    if beside_line:
        d0, d1, d2 = d0 - above[1].square(), d1 - above[1] * group[1], d2 - group[1].square()
    w = (n1 * d0 - n0 * d1) / (n0 * d2 - n1 * d1)
    w = torch.where((w > 0) & (w < 1), w, torch.zeros_like(w))
    square = d0 + 2 * d1 * w + d2 * w.square()
    sound = (
        closes & (square > torch.finfo(t.dtype).eps ** 0.6 * (whole + group[0])) & ((above[0] > 0.5 / points) | (w > 0))
    )
    return torch.where(sound, (n0 + n1 * w).square() / square, torch.full_like(w, -1.0)), w


def _steps(problem: Problem, kind: Kind, number: int) -> list[tuple[Tensor, Tensor]]:
    """The best step functions, exact and then softened over more and more points; best first."""
    t = problem.t
    points = t.shape[1]
    place = torch.arange(points, device=t.device).expand_as(t)
    opens = torch.ones_like(t, dtype=torch.bool)
    opens[:, 1:] = t[:, 1:] > t[:, :-1]
    first = torch.where(opens, place, 0).cummax(dim=1).values
    closes = torch.ones_like(opens)
    closes[:, :-1] = opens[:, 1:]
    value, w = _step_shares(problem, kind, first, closes)

    window = 2 * (points // 100) + 1
    peak = torch.nn.functional.max_pool1d(value.unsqueeze(1), window, 1, window // 2).squeeze(1)
    number = min(number, points)
    at = torch.where(value == peak, value, value - 2).topk(number, dim=1).indices

    here, height = t.gather(1, at), w.gather(1, at)
    after = t.gather(1, (at + 1).clamp(max=points - 1))
    before = t.gather(1, (first.gather(1, at) - 1).clamp(min=0))
    inner = height > 0
    right = torch.where(after > here, after - here, torch.full_like(here, torch.inf))
    left = torch.where((before < here) & inner, here - before, torch.full_like(here, torch.inf))
    gap = torch.minimum(left, right)
    gap = torch.where(gap.isfinite(), gap, torch.ones_like(gap))
    logit = torch.where(inner, height, 0.5).logit(1e-12)
    # 40 units of z from the step, a float64 sigmoid is 0 or 1 to rounding.
    beta = torch.where(inner, 40 + logit.abs(), 80) / gap
    tau = torch.where(inner, here - logit / beta, here + gap / 2)
    softened = []
    for width in _STEP_WIDTHS:
        low, high = (at - width // 2 + 1).clamp(0, points - 1), (at + width // 2).clamp(0, points - 1)
        spacing = (t.gather(1, high) - t.gather(1, low)).maximum((t[:, -1:] - t[:, :1]) * 1e-9)
        softened.append((6 / spacing, tau))
    return [(beta.clamp(max=_STEEPEST), tau), *softened]


def _pick(problem: Problem, kind: Kind, number: int, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """The starts of largest gain, twins left out."""
    value = gain(problem, kind, beta, tau)
    value, at = value.topk(min(3 * number, value.shape[1]), dim=1)
    beta, tau = beta.gather(1, at), tau.gather(1, at)
    value = value.masked_fill(twins(value, beta, tau, 0.1), -torch.inf)
    at = value.topk(min(number, value.shape[1]), dim=1).indices
    return beta.gather(1, at), tau.gather(1, at)


def _join(*starts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([each[0] for each in starts], dim=1), torch.cat([each[1] for each in starts], dim=1)
