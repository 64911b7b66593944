"""Do two metrics agree differently with the same subjective scores? The classical tests, image by image.

Both metrics are measured on the same images against the same subjective scores y, so their correlations r_ay
and r_by depend on one another through r_ab, the correlation of the two metrics. Sources:

- E. J. Williams, The comparison of regression variables, J. Royal Statistical Society B 21, 1959, in the form
  of J. H. Steiger, Tests for comparing elements of a correlation matrix, Psychological Bulletin 87, 1980, Eq.
  7;
- X.-L. Meng, R. Rosenthal, D. B. Rubin, Comparing correlated correlation coefficients, Psychological Bulletin
  111, 1992;
- G. Y. Zou, Toward using confidence intervals to compare correlations, Psychological Methods 12, 2007;
- the Video Quality Experts Group's F-test of residual variances, as in H. R. Sheikh, M. F. Sabir, A. C.
  Bovik, IEEE Trans. Image Processing 15(11), 2006;
- S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian J. of Statistics 6, 1979.

All of them take tensors; a Python number stands for a scalar one.

All of them take images as independent. Images made from one reference are not: `bootstrap` with groups does
without that assumption.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_positive, scalar_or_tensor
from fmiqa.errors import InputError

__all__ = [
    "Interval",
    "Significance",
    "holm",
    "meng_test",
    "residual_f_test",
    "williams_test",
    "zou_interval",
]

_EPS = 1e-15


class Significance(NamedTuple):
    """A test's outcome.

    Args:
        statistic: (...) t, z or F.
        p_value: (...) two-sided.
    """

    statistic: Tensor
    p_value: Tensor


class Interval(NamedTuple):
    """A confidence interval.

    Args:
        low: (...) its lower end.
        high: (...) its upper end.
    """

    low: Tensor
    high: Tensor


def williams_test(r_ay: Tensor, r_by: Tensor, r_ab: Tensor, n: int | Tensor) -> Significance:
    """Williams' t-test of two correlations that share a variable (Steiger 1980, Eq. 7).

    Args:
        r_ay: (...) correlation of metric a with the subjective scores.
        r_by: (...) correlation of metric b with the subjective scores. All arguments broadcast.
        r_ab: (...) correlation of the two metrics. After a logistic fit all three are those of the fitted
            scores.
        n: Number of images, at least 4.

    Returns:
        t with n - 3 degrees of freedom, positive where r_ay is the larger, and its two-sided p-value. NaN
        correlations give NaN.

    Raises:
        InputError: Arguments that are not tensors, a correlation outside [-1, 1], three that cannot occur together, or
            fewer than 4 images.

    Example:
        >>> test = williams_test(torch.tensor(0.3), torch.tensor(0.4), torch.tensor(0.5), 100)
        >>> round(test.statistic.item(), 4), round(test.p_value.item(), 4)
        (-1.0767, 0.2843)
    """
    from scipy.special import stdtr

    a, b, ab, count, determinant = _triple(r_ay, r_by, r_ab, n)
    # The bound keeps two metrics of equal scores, where everything is 0, at t = 0.
    spread = 2 * (count - 1) / (count - 3) * determinant.clamp(min=_EPS) + ((a + b) / 2) ** 2 * (1 - ab) ** 3
    t = (a - b) * ((count - 1) * (1 + ab) / spread).sqrt()
    p = 2 * torch.as_tensor(stdtr((count - 3).numpy(), -t.abs().numpy()), device="cpu")
    return Significance(*_returned(r_ay, t, p))


def meng_test(r_ay: Tensor, r_by: Tensor, r_ab: Tensor, n: int | Tensor) -> Significance:
    """Meng, Rosenthal and Rubin's z-test of two correlations that share a variable (1992, Eq. 1 to 3).

    Args:
        r_ay: (...) correlation of metric a with the subjective scores.
        r_by: (...) correlation of metric b with the subjective scores. All arguments broadcast.
        r_ab: (...) correlation of the two metrics. After a logistic fit all three are those of the fitted
            scores.
        n: Number of images, at least 4.

    Returns:
        z, positive where r_ay is the larger, and its two-sided p-value. NaN correlations give NaN.

    Raises:
        InputError: Arguments that are not tensors, a correlation outside [-1, 1], three that cannot occur together, or
            fewer than 4 images.

    Example:
        >>> test = meng_test(torch.tensor(0.63), torch.tensor(-0.03), torch.tensor(-0.19), 15)
        >>> round(test.statistic.item(), 2), round(test.p_value.item() / 2, 3)  # one-sided, as in the paper
        (1.68, 0.047)
    """
    a, b, ab, count, _ = _triple(r_ay, r_by, r_ab, n)
    mean_square = (a * a + b * b) / 2
    f = ((1 - ab) / (2 * (1 - mean_square))).clamp(max=1)
    h = (1 - f * mean_square) / (1 - mean_square)
    z = (a.atanh() - b.atanh()) * ((count - 3) / (2 * (1 - ab).clamp(min=_EPS) * h)).sqrt()
    return Significance(*_returned(r_ay, z, torch.special.erfc(z.abs() / 2**0.5)))


def zou_interval(r_ay: Tensor, r_by: Tensor, r_ab: Tensor, n: int | Tensor, *, level: float = 0.95) -> Interval:
    """Zou's confidence interval of the difference of two correlations that share a variable (2007, p. 409).

    Args:
        r_ay: (...) correlation of metric a with the subjective scores.
        r_by: (...) correlation of metric b with the subjective scores. All arguments broadcast.
        r_ab: (...) correlation of the two metrics. After a logistic fit all three are those of the fitted
            scores.
        n: Number of images, at least 4.
        level: Confidence level, between 0 and 1.

    Returns:
        The interval of r_ay - r_by. NaN correlations give NaN.

    Raises:
        InputError: Arguments that are not tensors, a correlation outside [-1, 1], three that cannot occur together,
            fewer than 4 images, or a level that is none.

    Example:
        >>> interval = zou_interval(torch.tensor(0.396), torch.tensor(0.179), torch.tensor(0.088), 66)
        >>> round(interval.low.item(), 3), round(interval.high.item(), 3)
        (-0.093, 0.517)
    """
    reach = normal_quantile(level)
    a, b, ab, count, _ = _triple(r_ay, r_by, r_ab, n)
    margin = reach / (count - 3).sqrt()
    a_low, a_high = (a.atanh() - margin).tanh(), (a.atanh() + margin).tanh()
    b_low, b_high = (b.atanh() - margin).tanh(), (b.atanh() + margin).tanh()
    c = (ab - a * b / 2) * (1 - a * a - b * b - ab * ab) + ab**3
    c = (c / ((1 - a * a) * (1 - b * b))).clamp(-1, 1)
    low = a - b - _third_side(a - a_low, b_high - b, c)
    high = a - b + _third_side(a_high - a, b - b_low, c)
    return Interval(*_returned(r_ay, low, high))


def residual_f_test(residuals_a: Tensor, residuals_b: Tensor) -> Significance:
    """F-test of the ratio of two residual variances, as the Video Quality Experts Group compares metrics.

    Takes residuals as Gaussian and the two metrics' as independent of each other; the second never holds on
    the same images and makes the test careful: it misses differences that the tests of correlations find.

    Args:
        residuals_a: (..., N) subjective scores minus the fitted scores of metric a, at least 2 images.
        residuals_b: (..., N) those of metric b; leading dimensions broadcast.

    Returns:
        F, the variance of a over that of b, with N - 1 and N - 1 degrees of freedom, and its two-sided
        p-value. NaN residuals and two variances of 0 give NaN.

    Raises:
        InputError: Arguments that are not tensors, different numbers of images, fewer than 2, or leading dimensions
            that do not broadcast.

    Example:
        >>> test = residual_f_test(torch.tensor([-2.0, 0.0, 2.0]), torch.tensor([-1.0, 0.0, 1.0]))
        >>> test.statistic.item(), round(test.p_value.item(), 4)
        (4.0, 0.4)
    """
    from scipy.special import betainc

    for name, given in (("residuals_a", residuals_a), ("residuals_b", residuals_b)):
        check_tensor(given, f"{name} (..., N)")
    a, b = (residuals.detach().to("cpu", torch.float64) for residuals in (residuals_a, residuals_b))
    shapes = f"got {tuple(a.shape)} and {tuple(b.shape)}"
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1] or a.shape[-1] < 2:
        raise InputError(f"residual_f_test needs two times (..., N) residuals of the same N >= 2 images, {shapes}")
    try:
        a, b = torch.broadcast_tensors(a.var(-1), b.var(-1))
    except RuntimeError:
        raise InputError(f"residual_f_test: leading dimensions do not broadcast, {shapes}") from None
    half = (residuals_a.shape[-1] - 1) / 2
    # F's distribution function is the incomplete beta function of F / (1 + F), and its two tails mirror each other.
    # That argument is finite for an infinite F too, of which scipy 1.11's own F distribution is NaN.
    smaller = torch.minimum(a, b) / (a + b)
    p = 2 * torch.as_tensor(betainc(half, half, smaller.numpy()), device="cpu")
    return Significance(*_returned(residuals_a, a / b, p))


def holm(p_values: Tensor) -> Tensor:
    """Holm's correction of p-values for their number: the chance of any false finding stays below the level.

    Args:
        p_values: (..., K) K tests of one family; NaN ones stay NaN and are not counted.

    Returns:
        (..., K) corrected p-values, at most 1, to be compared with the same level.

    Raises:
        InputError: Not a floating-point tensor, or a scalar.

    Example:
        >>> holm(torch.tensor([0.01, 0.04, 0.03]))
        tensor([0.0300, 0.0600, 0.0600])
    """
    check_tensor(p_values, "p_values (..., K)")
    if not p_values.is_floating_point():
        raise InputError(f"p_values must be floating-point, got {p_values.dtype}")
    if p_values.ndim == 0:
        raise InputError("holm needs p-values of shape (..., K), got a scalar")
    ordered, order = p_values.sort(dim=-1)  # NaN last
    tests = ordered.isfinite().sum(-1, keepdim=True)
    left = (tests - torch.arange(ordered.shape[-1], device=p_values.device)).clamp(min=1)
    corrected = (ordered * left).cummax(dim=-1).values.clamp(max=1)
    return torch.empty_like(p_values).scatter_(-1, order, corrected)


def check_level(level: float) -> None:
    """Raise `InputError` unless `level` is a number between 0 and 1."""
    if not is_positive(level) or level >= 1:
        raise InputError(f"level must be a number between 0 and 1, such as 0.95, got {level!r}")


def normal_quantile(level: float) -> float:
    """How many deviations a two-sided interval of this level reaches to either side.

    Raises:
        InputError: Not between 0 and 1.
    """
    check_level(level)
    # By the lower tail, which does not round to 0 as the upper one rounds to 1.
    return -float(torch.special.ndtri(torch.tensor(0.5 - level / 2, dtype=torch.float64, device="cpu")))


def _triple(r_ay: Tensor, r_by: Tensor, r_ab: Tensor, n: int | Tensor) -> tuple[Tensor, ...]:
    """The correlations and n in float64 on the CPU, and the determinant of the correlation matrix."""
    named = {"r_ay": r_ay, "r_by": r_by, "r_ab": r_ab, "n": n}
    values = [scalar_or_tensor(value, name).detach().to("cpu", torch.float64) for name, value in named.items()]
    try:
        a, b, ab, count = torch.broadcast_tensors(*values)
    except RuntimeError:
        shapes = ", ".join(str(tuple(value.shape)) for value in values)
        raise InputError(f"r_ay, r_by, r_ab and n must broadcast, got shapes {shapes}") from None
    determinant = 1 + 2 * a * b * ab - a * a - b * b - ab * ab
    if (count < 4).any():
        raise InputError(f"comparing correlations needs at least 4 images, got n = {count.min().item():g}")
    # Correlations rounded to float32 or four printed digits are let through.
    wrong = (torch.stack((a, b, ab)).abs().amax(0) > 1 + 1e-6) | (determinant < -1e-3)
    if wrong.any():
        shown = ", ".join(f"{name} = {r[wrong][0].item():g}" for name, r in (("r_ay", a), ("r_by", b), ("r_ab", ab)))
        raise InputError(
            f"{shown} are no correlations of three variables; after a fit, r_ab is that of the fitted scores"
        )
    # A perfect correlation has no finite atanh; a hair less than perfect keeps equal metrics equal.
    a, b = (r.clamp(-1 + _EPS, 1 - _EPS) for r in (a, b))
    return a, b, ab.clamp(-1, 1), count, determinant


def _third_side(one: Tensor, other: Tensor, cosine: Tensor) -> Tensor:
    return (one * one + other * other - 2 * cosine * one * other).clamp(min=0).sqrt()


def _returned(like: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    like = like if isinstance(like, Tensor) else torch.tensor(like, device="cpu")
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return tuple(value.to(like.device, dtype) for value in values)
