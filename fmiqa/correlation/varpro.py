"""Variable projection for logistic curves: R^2 as a function of slope and centre, with derivatives.

Given slope beta and centre tau, `a + c t + b sigmoid(beta (t - tau))` is linear in (a, c, b). With `t` and
`y` of zero mean and unit mean square, the linear part has a closed form and the share of variance that the
sigmoid adds is `N^2 / D`: N is the product of the sigmoid with the target, D the sigmoid's own square, both
after the other columns are projected out (Golub & Pereyra 1973). What is left is a search over two numbers,
done by Newton's method with exact second derivatives, damped as by Levenberg and Marquardt. Only sums over
the points are needed, so that many problems and many starts run as one batch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fmiqa.correlation.portions import by_portions
from fmiqa.fusing import Fused

__all__ = ["Kind", "Problem", "gain", "linear_part", "refine", "standardise", "tied_slope", "twins"]

Kind = Literal["with_line", "alone", "flat_ends", "flat_middle"]
"""What stands beside the sigmoid: a free line; nothing; or a line tied to it, `c = -b kappa`, so that the
slope of the curve vanishes where the sigmoid is flattest in the data range, or where it is steepest."""


# Flatter than this over the whole range, a sigmoid beside a line is a cubic to some 1e-6 of the variance, and
# one alone is a line; going on only loses digits, since amplitudes grow as 1 / beta^3 or 1 / beta.
_FLATTEST: dict[Kind, float] = {"with_line": 0.5, "alone": 0.01, "flat_ends": 0.5, "flat_middle": 0.5}
# A centre this many units of z beyond the data leaves an exponential to 1e-5; amplitudes grow as its
# exponential.
_FARTHEST = 12.0
_TOGETHER = 3


class Problem(NamedTuple):
    """P problems of N points: `t` ascending along its rows; both of zero mean, `t` of unit mean square."""

    t: Tensor  # (P, N)
    y: Tensor  # (P, N)
    r: Tensor  # (P, 1) mean of t y
    basis: Tensor  # (P, N, 3) columns 1, t, y, each over N

    @classmethod
    def of(cls, t: Tensor, y: Tensor) -> Problem:
        """From standardised rows."""
        basis = torch.stack((torch.ones_like(t), t, y), dim=-1) / t.shape[-1]
        return cls(t, y, (t * y).mean(-1, keepdim=True), basis)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """(P, 1) each, the least and the greatest score."""
        return self.t[:, :1], self.t[:, -1:]

    def rows(self, numbers: Tensor) -> Problem:
        """Some of the problems."""
        return Problem(*(part[numbers] for part in self))


class _Profile(NamedTuple):
    """The gain of (P, S) starts, half its gradient, minus half its Hessian, exact and after Gauss and Newton.

    The two coordinates are log beta and a shift of z = beta (t - tau); matrices come as (11, 12, 22).
    """

    gain: Tensor  # (P, S)
    gradient: Tensor  # (P, S, 2)
    hessian: Tensor  # (P, S, 3)
    gauss_newton: Tensor  # (P, S, 3)


class _State(NamedTuple):
    """Starts under way, (R, 1) each: where they are, their profile there, and the place to try next."""

    beta: Tensor
    tau: Tensor
    damping: Tensor
    gain: Tensor
    gradient: Tensor
    hessian: Tensor
    gauss_newton: Tensor
    next_beta: Tensor
    next_tau: Tensor
    promise: Tensor
    done: Tensor

    @classmethod
    def at(cls, beta: Tensor, tau: Tensor) -> _State:
        """Where nothing is known yet: the step to try is to stay, and anything is better."""
        return cls(
            beta=beta,
            tau=tau,
            damping=torch.full_like(beta, 1e-2),
            gain=torch.full_like(beta, -torch.inf),
            gradient=beta.new_zeros(*beta.shape, 2),
            hessian=beta.new_zeros(*beta.shape, 3),
            gauss_newton=beta.new_zeros(*beta.shape, 3),
            next_beta=beta.clone(),
            next_tau=tau.clone(),
            promise=torch.zeros_like(beta),
            done=torch.zeros_like(beta, dtype=torch.bool),
        )

    def rows(self, numbers: Tensor) -> _State:
        return _State(*(part[numbers] for part in self))

    def with_rows(self, numbers: Tensor, new: _State) -> _State:
        return _State(*(old.index_copy(0, numbers, part) for old, part in zip(self, new, strict=True)))


def standardise(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of zero mean and unit mean square, with the (P, 1) mean and deviation taken out."""
    mean = values.mean(-1, keepdim=True)
    centred = values - mean
    # The second mean removes what rounding of the first leaves when |mean| is far above the deviation; the
    # largest value is divided out first so that squares neither overflow nor vanish.
    rest = centred.mean(-1, keepdim=True)
    centred = centred - rest
    size = centred.abs().amax(-1, keepdim=True)
    centred = centred / size
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    return centred / deviation, mean + rest, deviation * size


def gain(problem: Problem, kind: Kind, beta: Tensor, tau: Tensor) -> Tensor:
    """The share of the variance of y that the sigmoid explains, (P, S).

    Beside a free line it is what the sigmoid adds to the line's share; for the other kinds it is the whole
    share.
    """
    beta = _oriented(beta, tau)
    with_columns, with_itself = by_portions(
        _own_products, problem.t, problem.basis, beta, tau, points=beta.shape[1] * problem.t.shape[1]
    )
    top, gram = _project(problem.r, kind, with_columns, with_itself, _tie(*problem.ends, kind, beta, tau)[..., :1])
    return _safe_ratio(top[..., 0], gram[..., 0, 0], with_itself[..., 0, 0], kind)[0]


def linear_part(problem: Problem, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intercept a, line c and amplitude b of one curve a problem, (P, 1) each as beta and tau."""
    beta, turned = _oriented(beta, tau), tau < 0
    s = _sigmoid(problem, beta, tau).squeeze(1)
    level = s.mean(-1, keepdim=True)
    kappa = _tie(*problem.ends, kind, beta, tau)[..., 0]
    column = s - level - kappa * problem.t
    slope = torch.zeros_like(kappa)
    target = problem.y
    if kind == "with_line":
        # Projected out of the column itself, not out of its square: half the digits are lost, not all.
        slope = (column * problem.t).mean(-1, keepdim=True)
        column = column - slope * problem.t
        target = target - problem.r * problem.t
    square = column.square().mean(-1, keepdim=True)
    amplitude = (column * target).mean(-1, keepdim=True) / square
    amplitude = torch.where(amplitude.isfinite(), amplitude, torch.zeros_like(amplitude))
    line = problem.r - amplitude * slope if kind == "with_line" else -amplitude * kappa
    intercept = -amplitude * level
    return (
        torch.where(turned, intercept + amplitude, intercept),
        line,
        torch.where(turned, -amplitude, amplitude),
    )


def tied_slope(problem: Problem, kind: Kind, beta: Tensor, tau: Tensor) -> Tensor:
    """The sigmoid's derivative where it is flattest or steepest over the data, by the kind of tie."""
    return _tie(*problem.ends, kind, beta, tau)[..., 0]


def refine(
    problem: Problem, kind: Kind, beta: Tensor, tau: Tensor, *, steps: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Climb from (P, S) starts to local maxima of the gain.

    Args:
        problem: the problems.
        kind: what stands beside the sigmoid.
        beta: (P, S) slopes, positive.
        tau: (P, S) centres.
        steps: the most Newton steps, rejected ones included.
        tolerance: a start is done when the next step promises less gain than this.

    Returns:
        beta, tau, gain and whether the start is done, each (P, S).
    """
    shape = beta.shape
    beta, tau = _bounded(*problem.ends, kind, beta, tau)
    # Every start is a row of its own: one that has tried nothing yet, and is better anywhere.
    state = _State.at(*(v.reshape(-1, 1).clone() for v in (beta, tau)))
    for _ in range(1 + min(steps, _TOGETHER)):
        state = _advance(problem, kind, state, tolerance)
    value, promise, beta, tau = (v.view(shape) for v in (state.gain, state.promise, state.beta, state.tau))
    hopeless = value + 10 * promise < value.amax(dim=1, keepdim=True)
    state = state._replace(done=state.done | (hopeless | twins(value, beta, tau, 0.03)).view(-1, 1))

    # Rows that are done are left out by and by, but for one: a single row would be compiled for anew.
    owner = torch.arange(shape[0], device=beta.device).repeat_interleave(shape[1])
    numbers = (~state.done).squeeze(1).nonzero().squeeze(1)
    part, now = problem.rows(owner[numbers]), state.rows(numbers)
    for _ in range(steps - _TOGETHER):
        active = (~now.done).squeeze(1).nonzero().squeeze(1)
        if len(active) == 0:
            break
        if 1 < len(active) < 0.75 * len(now.done):
            state = state.with_rows(numbers, now)
            numbers, part, now = numbers[active], part.rows(active), now.rows(active)
        now = _advance(part, kind, now, tolerance)
    state = state.with_rows(numbers, now)
    return state.beta.abs().view(shape), state.tau.view(shape), state.gain.view(shape), state.done.view(shape)


def twins(value: Tensor, beta: Tensor, tau: Tensor, radius: float) -> Tensor:
    """(P, S) whether a better start, or an equal one before it, draws nearly the same curve."""
    near = (beta.abs().log().unsqueeze(2) - beta.abs().log().unsqueeze(1)).abs() < radius
    near &= ((tau.unsqueeze(2) - tau.unsqueeze(1)) * beta.unsqueeze(2)).abs() < radius
    ahead = value.unsqueeze(1) > value.unsqueeze(2)
    equal = (value.unsqueeze(1) == value.unsqueeze(2)).tril(diagonal=-1)
    return (near & (ahead | equal)).any(dim=2)


def _aimed(
    low: Tensor,
    high: Tensor,
    kind: Kind,
    beta: Tensor,
    tau: Tensor,
    damping: Tensor,
    profile: _Profile,
    done: Tensor,
    tolerance: float,
) -> _State:
    """The state with its next step; `low` and `high` are the (P, 1) ends of the data."""
    gradient = profile.gradient
    # At a bound with the way uphill leading out, only the other coordinate moves.
    flattest = (beta.abs() * (high - low) < _FLATTEST[kind] * (1 + 1e-6)) & (gradient[..., 0] < 0)
    largest = torch.maximum(beta * (low - tau), beta * (high - tau))
    farthest = (largest < -_FARTHEST * (1 - 1e-6)) & (gradient[..., 1] < 0)
    step, promise = _newton_step(profile, damping, flattest, farthest)
    to_beta = beta * step[..., 0].exp()
    to = _bounded(low, high, kind, to_beta, tau - step[..., 1] / to_beta)
    return _State(beta, tau, damping, *profile, *to, promise, done | ~(promise > tolerance))


def _advance(problem: Problem, kind: Kind, state: _State, tolerance: float) -> _State:
    """Take the step where it leads uphill; where it does not, stay and aim again with more damping.

    The rows of the state are the starts of each problem, one after another.
    """
    shape = len(problem.t), -1
    beta, tau = state.next_beta.view(shape), state.next_tau.view(shape)
    points = beta.shape[1] * problem.t.shape[1]
    products = by_portions(_products, problem.t, problem.basis, beta, tau, points=points)
    each = len(state.beta) // len(problem.t)
    sides = (v.repeat_interleave(each, 0) for v in (problem.r, *problem.ends))
    # Copies, since for a view its base would be compiled for too.
    with_columns, with_itself, r, low, high = (v.clone() for v in (*products, *sides))
    # The fits of a search are with a line; one row alone would be compiled for anew.
    judged = _judged if kind == "with_line" and len(r) > 1 else _judged.eager
    return judged(with_columns, with_itself, r, low, high, kind, state, tolerance)


@Fused
def _judged(
    with_columns: Tensor,
    with_itself: Tensor,
    r: Tensor,
    low: Tensor,
    high: Tensor,
    kind: Kind,
    state: _State,
    tolerance: float,
) -> _State:
    """The state after a step that was tried, of the products there: all that is not a sum over points."""
    beta, tau = state.next_beta, state.next_tau
    profile = _profile(with_columns, with_itself, r, low, high, kind, beta, tau)
    better = ~state.done & (profile.gain > state.gain)

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old)

    return _aimed(
        low,
        high,
        kind,
        choose(beta, state.beta),
        choose(tau, state.tau),
        choose(state.damping * 0.1, (state.damping * 10).clamp(min=1e-2)),
        _Profile(*(choose(new, getattr(state, name)) for name, new in profile._asdict().items())),
        state.done,
        tolerance,
    )


def _oriented(beta: Tensor, tau: Tensor) -> Tensor:
    """beta with the sign that makes the sigmoid small on most points.

    Turning the sigmoid round changes nothing but the sign of its amplitude. Near 1 it would have no digits
    left for its exponential tail, which is the whole curve when the centre lies beyond the data.
    """
    return torch.where(tau < 0, -beta.abs(), beta.abs())


def _bounded(low: Tensor, high: Tensor, kind: Kind, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and centre moved to where the curve still differs from its limits."""
    beta = beta.abs().maximum(_FLATTEST[kind] / (high - low))
    tau = tau.maximum(low - _FARTHEST / beta).minimum(high + _FARTHEST / beta)
    return _oriented(beta, tau), tau


def _sigmoid(problem: Problem, beta: Tensor, tau: Tensor) -> Tensor:
    return ((problem.t.unsqueeze(1) - tau.unsqueeze(-1)) * beta.unsqueeze(-1)).sigmoid_()


def _own_products(t: Tensor, basis: Tensor, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Mean products of the sigmoid with 1, t and y, and with itself: (P, S, 1, 3) and (P, S, 1, 1)."""
    s = ((t.unsqueeze(1) - tau.unsqueeze(-1)) * beta.unsqueeze(-1)).sigmoid_()
    return torch.matmul(s, basis).unsqueeze(-2), torch.linalg.vecdot(s, s)[..., None, None] / s.shape[-1]


def _products(t: Tensor, basis: Tensor, beta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Mean products of the sigmoid's family with 1, t and y, and with its first three: (P S, 1, 6, 3) each."""
    z = (t.unsqueeze(1) - tau.unsqueeze(-1)) * beta.unsqueeze(-1)
    # The sigmoid s, its first derivatives by log beta and by shift, and its second ones, side by side.
    columns = z.new_empty(*z.shape[:2], 6, z.shape[-1])
    s, d1, d2, d11, d12, d22 = columns.unbind(-2)
    torch.sigmoid(z, out=s)
    torch.addcmul(s, s, s, value=-1, out=d2)
    torch.mul(d2, z, out=d1)
    torch.addcmul(d2, s, d2, value=-2, out=d22)
    torch.mul(d22, z, out=d12)
    torch.addcmul(d1, d12, z, out=d11)
    with_columns = torch.bmm(columns.flatten(1, 2), basis).view(-1, 1, 6, 3)
    flat = columns.flatten(0, 1)
    with_itself = torch.bmm(flat, flat[:, :3].transpose(1, 2)).unsqueeze(1) / z.shape[-1]
    return with_columns, with_itself


def _profile(
    with_columns: Tensor,
    with_itself: Tensor,
    r: Tensor,
    low: Tensor,
    high: Tensor,
    kind: Kind,
    beta: Tensor,
    tau: Tensor,
) -> _Profile:
    tie = _tie(low, high, kind, beta, tau)
    top, gram = _project(r, kind, with_columns, with_itself, tie)

    value, b, n = top[..., 0], gram[..., 0, 0], with_itself[..., 0, 0]
    value, b = _safe_ratio(value, b, n, kind)
    d = gram[..., 0, 0].clamp(min=torch.finfo(b.dtype).tiny)
    b1, b2 = ((top[..., i] - 2 * b * gram[..., i, 0]) / d for i in (1, 2))
    gradient = torch.stack([b * top[..., i] - b * b * gram[..., i, 0] for i in (1, 2)], dim=-1)
    square = b * b
    hessian = torch.stack(
        [
            square * (gram[..., i, j] + gram[..., ij, 0]) - b * top[..., ij] - d * bi * bj
            for i, j, ij, bi, bj in ((1, 1, 3, b1, b1), (1, 2, 4, b1, b2), (2, 2, 5, b2, b2))
        ],
        dim=-1,
    )
    gauss_newton = torch.stack(
        [square * (gram[..., i, j] - gram[..., i, 0] * gram[..., j, 0] / d) for i, j in ((1, 1), (1, 2), (2, 2))],
        dim=-1,
    )
    return _Profile(value, gradient, hessian, gauss_newton)


def _project(r: Tensor, kind: Kind, with_columns: Tensor, with_itself: Tensor, tie: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the sigmoid's family with the target and with itself, other columns projected out.

    Args:
        r: (P, 1) mean of t y.
        kind: what stands beside the sigmoid.
        with_columns: (P, S, F, 3) mean products with 1, t, y.
        with_itself: (P, S, F, G) mean products of the F functions with the first G of them.
        tie: (P, S, F) the tied line's kappa and its derivatives, in the same order.

    Returns:
        (P, S, F) and (P, S, F, G).
    """
    first = with_itself.shape[-1]
    mean, line, target = with_columns.unbind(-1)
    gram = with_itself - mean.unsqueeze(-1) * mean[..., None, :first]
    r = r.unsqueeze(-1)
    if kind == "with_line":
        return target - line * r, gram - line.unsqueeze(-1) * line[..., None, :first]
    if kind == "alone":
        return target, gram
    cross = tie.unsqueeze(-1) * line[..., None, :first]
    back = line.unsqueeze(-1) * tie[..., None, :first]
    return target - tie * r, gram - cross - back + tie.unsqueeze(-1) * tie[..., None, :first]


def _safe_ratio(top: Tensor, square: Tensor, whole: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """N^2 / D and b = N / D; both 0 where D is rounding noise.

    For small beta, or beside few distinct points, the sigmoid is a straight line to rounding: D is the
    difference of equal numbers and its quotient would be a spurious gain. Such curves add nothing that a less
    flat one lacks.
    """
    eps = torch.finfo(top.dtype).eps
    sound = square > eps**0.6 * whole if kind != "alone" else square > 16 * eps * whole
    b = torch.where(sound, top / square, torch.zeros_like(top))
    return b * top, b


def _tie(low: Tensor, high: Tensor, kind: Kind, beta: Tensor, tau: Tensor) -> Tensor:
    """(P, S, 6) kappa and its derivatives in the order of the sigmoid's family; zeros with no line tied."""
    if kind in ("with_line", "alone"):
        return beta.new_zeros(*beta.shape, 6)
    low, high = low - tau, high - tau
    if kind == "flat_ends":
        place = torch.where(high.abs() > low.abs(), high, low)
    else:
        place = torch.where(low > 0, low, torch.where(high < 0, high, torch.zeros_like(low)))
    z = beta * place
    s = z.sigmoid()
    g = s * (1 - s)
    h = g * (1 - 2 * s)
    k = g * (1 - 6 * g)
    # Inside the range the steepest place is the centre itself and moves with it: only beta counts there.
    fixed = (place != 0).to(z.dtype)
    family = (g, g + h * z, h, g + 3 * h * z + k * z * z, 2 * h + k * z, k * fixed)
    return beta.unsqueeze(-1) * torch.stack(family, dim=-1)


def _newton_step(at: _Profile, damping: Tensor, pinned_slope: Tensor, pinned_centre: Tensor) -> tuple[Tensor, Tensor]:
    """(P, S, 2) the damped step uphill and (P, S) the gain it promises."""
    tiny = torch.finfo(damping.dtype).tiny ** 0.5
    scale = at.gauss_newton[..., (0, 2)].clamp(min=0).sqrt().clamp(min=tiny)
    g1, g2 = (at.gradient / scale).unbind(-1)
    g1, g2 = g1.masked_fill(pinned_slope, 0), g2.masked_fill(pinned_centre, 0)
    h11 = at.hessian[..., 0] / scale[..., 0] / scale[..., 0]
    h12 = at.hessian[..., 1] / scale[..., 0] / scale[..., 1]
    h12 = h12.masked_fill(pinned_slope | pinned_centre, 0)
    h22 = at.hessian[..., 2] / scale[..., 1] / scale[..., 1]
    middle, spread = (h11 + h22) / 2, torch.hypot((h11 - h22) / 2, h12)
    lowest = middle - spread
    # Raise the lowest curvature to a positive floor: an indefinite Hessian still gives a way uphill.
    mu = damping + (damping + 1e-3 - lowest).clamp(min=0)
    a, c = h11 + mu, h22 + mu
    determinant = a * c - h12 * h12
    p1, p2 = (c * g1 - h12 * g2) / determinant, (a * g2 - h12 * g1) / determinant
    step = torch.stack((p1, p2), dim=-1) / scale
    step = torch.where(step.isfinite(), step, torch.zeros_like(step))
    limit = step.new_tensor([1.5, 4.0])
    step = step * (limit / step.abs().clamp(min=tiny)).amin(-1, keepdim=True).clamp(max=1)
    promise = (at.gradient * step).sum(-1)
    return step, promise
