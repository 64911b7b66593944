"""Non-negative weights on map scores: a lasso by coordinate descent, all folds in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NonNegativeFit", "nonnegative_path"]

_ADDED = 40  # maps that may enter the working set at once, a problem


class NonNegativeFit(NamedTuple):
    """Solutions of B problems at L strengths.

    Args:
        strengths: (L,) the penalties, from strong to weak.
        weights: (B, L, M) non-negative weights, for scores in their own units.
        intercepts: (B, L).
    """

    strengths: Tensor
    weights: Tensor
    intercepts: Tensor


def nonnegative_path(
    values: Tensor,
    targets: Tensor,
    counts: Tensor,
    strengths: Sequence[float],
    *,
    sweeps: int = 300,
    tolerance: float = 1e-4,
) -> NonNegativeFit:
    """Minimise |y - a - X w|^2 / 2n + strength sum(w) over w >= 0, columns and y standardised.

    Standardising treats all maps alike. Coordinate descent runs on a working set that grows by the maps whose
    optimality condition is violated, until none is (Friedman, Hastie & Tibshirani 2010); every problem at once,
    each strength started from the one before it.

    Args:
        values: (N, M) map scores, float64.
        targets: (N,) subjective scores.
        counts: (B, N) how often each image counts in each problem.
        strengths: penalties, strongest first; above 1 nothing is chosen, near 0 it is plain least squares.
        sweeps: the most passes over the working set between two looks at all maps.
        tolerance: a problem is solved when no standardised weight moves by more, and no other map pulls harder
            than the strength by more.
    """
    w = counts / counts.sum(-1, keepdim=True)  # (B, N)
    mean = w @ values  # (B, M)
    spread = (w @ values.square() - mean.square()).clamp(min=0).sqrt()
    live = spread > 1e-7
    scale = torch.where(live, spread, 1.0)
    y_mean = w @ targets  # (B,)
    y_spread = (w @ targets.square() - y_mean.square()).sqrt()
    y = (targets - y_mean[:, None]) / y_spread[:, None]  # (B, N)

    working = torch.zeros(0, dtype=torch.long, device=values.device)
    z = values.new_zeros(len(counts), len(targets), 0)  # standardised columns of the working set
    beta = values.new_zeros(len(counts), 0)
    found = []
    for strength in strengths:
        while True:
            beta = _descend(z, y, w, beta, float(strength), sweeps, tolerance)
            residual = w * (y - (z @ beta[..., None])[..., 0])
            pull = (residual @ values - mean * residual.sum(-1, keepdim=True)) / scale
            pull = torch.where(live, pull, -torch.inf)
            pull[:, working] = -torch.inf
            strongest = pull.topk(min(_ADDED, pull.shape[1]), dim=1)
            new = strongest.indices[strongest.values > strength + tolerance].unique()
            if not len(new):
                break
            working = torch.cat([working, new])
            added = (values[:, new] - mean[:, None, new]) / scale[:, None, new]
            z = torch.cat([z, torch.where(live[:, None, new], added, 0.0)], 2)
            beta = torch.cat([beta, beta.new_zeros(len(beta), len(new))], 1)
        full = values.new_zeros(mean.shape)
        full[:, working] = beta
        found.append(full)
    weights = torch.stack(found, 1) * (y_spread[:, None] / scale)[:, None]  # (B, L, M)
    intercepts = y_mean[:, None] - (weights * mean[:, None]).sum(-1)
    return NonNegativeFit(values.new_tensor(strengths), weights, intercepts)


def _descend(z: Tensor, y: Tensor, w: Tensor, beta: Tensor, strength: float, sweeps: int, tolerance: float) -> Tensor:
    """Cyclic coordinate descent on the working set of every problem, (B, K), to `tolerance`."""
    if not z.shape[2]:
        return beta
    weighted = z * w[..., None]
    gram = weighted.mT @ z
    pull = (weighted.mT @ y[..., None])[..., 0] - (gram @ beta[..., None])[..., 0]
    diagonal = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
    beta = beta.clone()
    for _ in range(sweeps):
        largest = 0.0
        moving = ((beta > 0) | (pull > strength)).any(0).nonzero()[:, 0].tolist()
        for j in moving:
            new = (beta[:, j] + (pull[:, j] - strength) / diagonal[:, j]).clamp(min=0)
            change = new - beta[:, j]
            moved = float(change.abs().max())
            if moved:
                pull -= gram[:, :, j] * change[:, None]
                beta[:, j] = new
                largest = max(largest, moved)
        if largest < tolerance:
            break
    return beta
