"""Stability of selected feature sets: how much do repeated selections agree, beyond chance?

S. Nogueira, K. Sechidis, G. Brown, On the stability of feature selection algorithms, J. Machine Learning
Research 18(174), 2018: the estimator (Definition 4), its asymptotic variance and interval (Corollary 9). Sets
may differ in size; chance agreement is 0 whatever the sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa.correlation.significance import normal_quantile
from fmiqa.errors import InputError

__all__ = ["Stability", "jaccard", "selection_frequency", "stability"]


class Stability(NamedTuple):
    """How stable repeated selections are.

    Args:
        value: (...) 1 for equal sets, about 0 for sets drawn at random; the lowest possible is -1 / (R - 1).
            The paper's reading: below .4 poor, above .75 excellent.
        variance: (...) of the estimate.
        low: (...) lower end of its confidence interval.
        high: (...) upper end; may pass 1, the interval being a normal approximation.
    """

    value: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor


def stability(selections: Tensor, *, level: float = 0.95) -> Stability:
    """Stability of R selections from M candidates (Nogueira et al. 2018).

    Args:
        selections: (..., R, M) of 0 and 1 or booleans, a row for the set that each of R >= 2 repetitions
            chose.
        level: confidence level, between 0 and 1. The interval is asymptotic in R and takes the repetitions as
            independent; selections on overlapping parts of one data set are not, so it says how far the
            figure would move with more repetitions on these data, not with new data.

    Returns:
        Estimate, variance and interval; NaN where no repetition chose anything or all chose everything.

    Raises:
        InputError: other values than 0 and 1, fewer than two repetitions, no candidates, or a level that is
            none.

    Example:
        >>> chosen = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]])
        >>> round(stability(chosen).value.item(), 4)
        0.4444
    """
    reach = normal_quantile(level)
    chosen = _checked(selections, minimum=2)
    repetitions, candidates = chosen.shape[-2:]
    frequency = chosen.mean(-2)
    share = chosen.mean(-1)
    mean_share = share.mean(-1)
    chance = mean_share * (1 - mean_share)
    disagreement = (frequency * (1 - frequency)).mean(-1) * repetitions / (repetitions - 1)
    value = 1 - disagreement / chance

    agreement = (chosen * frequency.unsqueeze(-2)).sum(-1) / candidates
    product = share * mean_share.unsqueeze(-1)
    correction = value.unsqueeze(-1) / 2 * (2 * product - share - mean_share.unsqueeze(-1) + 1)
    influence = (agreement - product + correction) / chance.unsqueeze(-1)
    variance = 4 / repetitions**2 * (influence - influence.mean(-1, keepdim=True)).square().sum(-1)
    margin = reach * variance.sqrt()
    return Stability(value, variance, value - margin, value + margin)


def selection_frequency(selections: Tensor) -> Tensor:
    """How often each candidate was chosen.

    Args:
        selections: (..., R, M) of 0 and 1 or booleans.

    Returns:
        (..., M) shares of the R repetitions.

    Raises:
        InputError: other values than 0 and 1, no repetitions or candidates.

    Example:
        >>> selection_frequency(torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]))
        tensor([1.0000, 0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return _checked(selections, minimum=1).mean(-2)


def jaccard(selections: Tensor) -> Tensor:
    """Shared over joint members of every two sets: easy to read, but without a correction for chance.

    Args:
        selections: (..., R, M) of 0 and 1 or booleans.

    Returns:
        (..., R, R), 1 on the diagonal; two empty sets count as equal.

    Raises:
        InputError: other values than 0 and 1, no repetitions or candidates.

    Example:
        >>> jaccard(torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]))
        tensor([[1.0000, 0.3333],
                [0.3333, 1.0000]], dtype=torch.float64)
    """
    chosen = _checked(selections, minimum=1)
    shared = chosen @ chosen.mT
    sizes = chosen.sum(-1)
    joint = sizes.unsqueeze(-1) + sizes.unsqueeze(-2) - shared
    return torch.where(joint == 0, 1.0, shared / joint.clamp(min=1))


def _checked(selections: Tensor, *, minimum: int) -> Tensor:
    if not isinstance(selections, Tensor) or selections.ndim < 2:
        given = tuple(selections.shape) if isinstance(selections, Tensor) else type(selections).__name__
        raise InputError(f"selections must be a tensor (..., R, M), one row a repetition, got {given}")
    if selections.shape[-2] < minimum or selections.shape[-1] < 1:
        raise InputError(f"selections need {minimum} or more repetitions and candidates, got {tuple(selections.shape)}")
    if not ((selections == 0) | (selections == 1)).all():
        raise InputError("selections must hold 0 and 1 only, 1 where a candidate was chosen")
    return selections.to(torch.float32 if selections.device.type == "mps" else torch.float64)
