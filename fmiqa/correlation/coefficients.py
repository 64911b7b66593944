"""How well scores agree with subjective scores: PLCC, SROCC, KROCC and RMSE, batched over leading dimensions.

They take tensors, of any real dtype; arrays and lists raise an `InputError` that says how to convert them.

All four follow one rule: a column without information (constant, or holding NaN or infinite values) gives
NaN; it raises nothing and does not touch its batch mates. They are computed in float64 where the device has
it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fmiqa.correlation.logistic import STEEPNESS, Form, fit_logistic
from fmiqa.correlation.pairs import pair
from fmiqa.errors import InputError

__all__ = ["Coefficient", "check_coefficient", "krocc", "plcc", "rmse", "srocc"]

Coefficient = Literal["plcc", "srocc"]
"""The coefficients that results hold side by side."""


def check_coefficient(figure: object) -> None:
    """Raise `InputError` unless a figure is a `Coefficient`."""
    if figure not in get_args(Coefficient):
        raise InputError(f"figure is 'plcc' or 'srocc', got {figure!r}")


_PORTION = 2**20
"""Scores that go through the rank computations at once; they need some ten 8-byte temporaries for each."""


def plcc(
    x: Tensor,
    y: Tensor,
    *,
    fit: Form | None = "logistic5",
    monotone: bool = False,
    steepness: float | None = STEEPNESS,
) -> Tensor:
    r"""Pearson linear correlation coefficient, by default after a logistic fit of the scores to `y`.

    With f the fitted logistic, or f(x) = x without a fit:

    .. math::

        \frac{\sum_i (f(x_i) - \overline{f(x)}) (y_i - \overline{y})}
        {\sqrt{\sum_i (f(x_i) - \overline{f(x)})^2} \sqrt{\sum_i (y_i - \overline{y})^2}}

    Args:
        x: (..., N) objective scores.
        y: (..., N) subjective scores, leading dimensions broadcast against those of `x`.
        fit: The logistic form, `"logistic5"` or `"logistic4"`; None for the raw correlation.
        monotone: Bound the fit to keep its direction, see `fit_logistic`.
        steepness: The bound of the fit's slope, see `fit_logistic`.

    Returns:
        (...), with a fit from 0 to 1: the direction is lost (see `srocc`). Without one from -1 to 1, and
        differentiable. NaN for columns without information.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not broadcast, or fewer points than 2 without a
            fit, 5 or 4 with one.

    Example:
        >>> x = torch.tensor([0.1, 0.4, 0.5, 0.9, 1.0])
        >>> round(plcc(x, -2 * x + 1, fit=None).item(), 6)
        -1.0
        >>> round(plcc(x, x**2).item(), 3)
        1.0
    """
    if fit is not None:
        return fit_logistic(x, y, form=fit, monotone=monotone, steepness=steepness).plcc
    pairs = pair(x, y, minimum=2, what="plcc")
    result = _pearson(_unit(pairs.x)[pairs.x_row], _unit(pairs.y)[pairs.y_row])
    return pairs.unflatten(_masked(result, pairs.informative()))


def rmse(
    x: Tensor,
    y: Tensor,
    *,
    fit: Form | None = "logistic5",
    monotone: bool = False,
    steepness: float | None = STEEPNESS,
) -> Tensor:
    r"""Root of the mean squared difference between the fitted scores and `y`, in units of `y`.

    .. math::

        \sqrt{\frac{1}{N} \sum_{i=1}^{N} (f(x_i) - y_i)^2}

    Args:
        x: (..., N) objective scores.
        y: (..., N) subjective scores, leading dimensions broadcast against those of `x`.
        fit: The logistic form; None to compare `x` with `y` as they are.
        monotone: Bound the fit to keep its direction, see `fit_logistic`.
        steepness: The bound of the fit's slope, see `fit_logistic`.

    Returns:
        (...), the mean taken over N, not over degrees of freedom. NaN for columns without information;
        without a fit a constant column has an error like any other, and the result is differentiable.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not broadcast, or fewer points than 1 without a
            fit, 5 or 4 with one.

    Example:
        >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), fit=None)
        tensor(1.4142)
    """
    if fit is not None:
        return fit_logistic(x, y, form=fit, monotone=monotone, steepness=steepness).rmse
    pairs = pair(x, y, minimum=1, what="rmse")
    good = (pairs.x.isfinite().all(-1))[pairs.x_row] & (pairs.y.isfinite().all(-1))[pairs.y_row]
    difference = torch.where(good[:, None], pairs.x[pairs.x_row] - pairs.y[pairs.y_row], 1.0)
    return pairs.unflatten(_masked(torch.linalg.vector_norm(difference, dim=-1) / x.shape[-1] ** 0.5, good))


@torch.no_grad()
def srocc(x: Tensor, y: Tensor) -> Tensor:
    """Spearman rank-order correlation coefficient: `plcc` of the ranks, without a fit. Ties get their average rank.

    Args:
        x: (..., N) objective scores, at least 2 points.
        y: (..., N) subjective scores, leading dimensions broadcast against those of `x`.

    Returns:
        (...), from -1 to 1; NaN for columns without information.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not broadcast, or fewer than 2 points.

    Example:
        >>> srocc(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 9.0, 4.0, 16.0]))
        tensor(0.8000)
    """
    pairs = pair(x, y, minimum=2, what="srocc")
    found = pairs.by_chunks(lambda x, y: _pearson(_unit(_ranks(x)), _unit(_ranks(y))), _PORTION // x.shape[-1])
    return pairs.unflatten(found)


@torch.no_grad()
def krocc(x: Tensor, y: Tensor) -> Tensor:
    r"""Kendall rank-order correlation coefficient, tau-b (Kendall 1945), which allows for ties.

    Of all pairs of points, C are ordered alike by x and y and D oppositely; T and U are tied in x and in y alone:

    .. math::

        \tau_b = \frac{C - D}{\sqrt{(C + D + T) (C + D + U)}}

    Args:
        x: (..., N) objective scores, at least 2 points.
        y: (..., N) subjective scores, leading dimensions broadcast against those of `x`.

    Returns:
        (...), from -1 to 1; NaN for columns without information. Takes N log^2 N operations a problem.

    Raises:
        InputError: Arguments that are not tensors, shapes that do not broadcast, or fewer than 2 points.

    Example:
        >>> krocc(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 9.0, 4.0, 16.0]))
        tensor(0.6667)
    """
    pairs = pair(x, y, minimum=2, what="krocc")
    found = pairs.by_chunks(lambda x, y: _kendall(*torch.broadcast_tensors(x, y)), _PORTION // x.shape[-1])
    return pairs.unflatten(found)


def _masked(values: Tensor, good: Tensor) -> Tensor:
    return torch.where(good, values, torch.nan)


def _unit(rows: Tensor) -> Tensor:
    """Rows centred and divided by their norm; zeros, also in the gradient, where that is impossible."""
    good = rows.isfinite().all(-1, keepdim=True) & (rows != rows[:, :1]).any(-1, keepdim=True)
    # Stand-in scores keep 0/0 out of the gradient: NaN would spread to every problem that shares a row.
    ramp = torch.arange(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    rows = torch.where(good, rows, ramp)
    centred = rows - rows.mean(-1, keepdim=True)
    centred = centred - centred.mean(-1, keepdim=True)
    # Without the largest value, squares of very small or very large scores leave the range of floats.
    centred = centred / centred.detach().abs().amax(-1, keepdim=True)
    norm: Tensor = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    return centred / norm


def _pearson(x_unit: Tensor, y_unit: Tensor) -> Tensor:
    return (x_unit * y_unit).sum(-1).clamp(-1, 1)


def _ranks(rows: Tensor) -> Tensor:
    """Average ranks from 0."""
    rows = rows.contiguous()  # torch warns of others
    ordered = rows.sort(dim=-1).values
    first = torch.searchsorted(ordered, rows)
    last = torch.searchsorted(ordered, rows, right=True) - 1
    return (first + last).to(rows.dtype) / 2


def _kendall(x: Tensor, y: Tensor) -> Tensor:
    points = x.shape[-1]
    order = y.argsort(dim=-1, stable=True)
    order = order.gather(-1, x.gather(-1, order).argsort(dim=-1, stable=True))
    x, y = x.gather(-1, order), y.gather(-1, order)
    x_same, y_sorted = x[:, 1:] == x[:, :-1], y.sort(dim=-1, stable=True)
    ties_x = _tied_pairs(x_same)
    ties_y = _tied_pairs(y_sorted.values[:, 1:] == y_sorted.values[:, :-1])
    ties_both = _tied_pairs(x_same & (y[:, 1:] == y[:, :-1]))
    # Sorted by x, and by y within equal x; equal y are numbered as they come: only discordant pairs are
    # inverted.
    inverse = torch.empty_like(order).scatter_(
        -1, y_sorted.indices, torch.arange(points, device=x.device).expand_as(order)
    )
    discordant = _inversions(inverse)
    every = points * (points - 1) // 2
    surplus = every - ties_x - ties_y + ties_both - 2 * discordant
    scale = (every - ties_x).to(x.dtype).sqrt() * (every - ties_y).to(x.dtype).sqrt()
    tau: Tensor = surplus / scale
    return tau.clamp(-1, 1)


def _tied_pairs(same: Tensor) -> Tensor:
    """(P,) number of tied pairs, from (P, N - 1) whether a sorted value equals the one before it."""
    place = torch.arange(1, same.shape[-1] + 1, device=same.device)
    opened = torch.where(same, 0, place).cummax(dim=-1).values
    return torch.where(same, place - opened, 0).sum(-1)


def _inversions(numbers: Tensor) -> Tensor:
    """(P,) number of pairs out of order in each row, a permutation of 0 .. N - 1.

    Bit by bit from the highest: within the values that agree in all higher bits, each 0 that comes after a 1
    is an inversion; then zeros are moved before ones, in order. Padded to a power of two, all groups are
    equally long.
    """
    length = 1 << max(1, (numbers.shape[-1] - 1).bit_length())
    tail = torch.arange(numbers.shape[-1], length, device=numbers.device).expand(len(numbers), -1)
    values = torch.cat((numbers, tail), dim=-1)
    total = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    size = length
    while size > 1:
        groups = values.view(len(values), length // size, size)
        bit = groups.bitwise_and(size // 2).ne(0)
        ones = bit.cumsum(-1)
        total += torch.where(bit, 0, ones).sum((-2, -1))
        place = torch.arange(size, device=values.device)
        target = torch.where(bit, ones + (size // 2 - 1), place - ones)
        values = torch.empty_like(groups).scatter_(-1, target, groups).view_as(values)
        size //= 2
    return total
