"""Weighted selection: few maps with non-negative weights, their number decided by held-out references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fmiqa.correlation import fit_logistic, plcc
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import pool_scores, raised
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.forward import as_matrix, source_of, usable
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import Groups, counts_of, grouped_folds, groups_of, kind_of_groups, mean_and_error

__all__ = ["NonNegativeFit", "Rule", "nonnegative_path", "weighted_select"]

Rule = Literal["one_standard_error", "best"]

STRENGTHS = (0.3, 0.2, 0.12, 0.08, 0.05, 0.03)
_ADDED = 40  # maps that may enter the working set at once, a problem


def weighted_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    groups: Groups = "reference",
    strengths: Sequence[float] = STRENGTHS,
    powers: Sequence[float] = (1.0,),
    rule: Rule = "one_standard_error",
    folds: int = 5,
    seed: int = 0,
) -> Selection:
    """Choose maps and non-negative weights by a lasso whose strength grouped validation decides.

    The subjective scores are regressed on the map scores with weights from 0; the penalty leaves most weights at
    0. Each strength is judged by its mean fitted PLCC over folds of whole references inside the data given. The
    strongest within one standard error of the best is taken (Breiman et al. 1984): fewer maps, as good as can be
    told, and less tied to this data set. The weights are then fitted to all of the data.

    Args:
        scores: A `ScoreMatrix`, joined ones too (`ScoreMatrix.concat`), or its values (N, M).
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        groups: What the inner folds keep together: `"reference"`, `"distortion"`, or a name an image.
        strengths: Penalties to try, see `nonnegative_path`; fewer maps are selected at higher ones.
        powers: What map scores are raised to before they are combined, see `pool_scores`; of several, the one
            with the best strength.
        rule: `"one_standard_error"`, or `"best"` for the highest mean.
        folds: Number of inner folds.
        seed: Seed of the dealing of groups to inner folds.

    Returns:
        A `Selection` with weights, maps of largest contribution first. `options["inner"]` holds the inner
        held-out PLCC of everything tried.

    Raises:
        InputError: As `forward_select`, an unknown rule, no strength or power; no strength chooses a map.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y = torch.rand(80, generator=generator)
        >>> values = torch.rand(80, 20, generator=generator)
        >>> values[:, 4] += y; values[:, 9] += 2 * y
        >>> selection = weighted_select(values, y, groups=[f"r{i // 8}" for i in range(80)])
        >>> print(selection.maps[0])
        map:9
    """
    if rule not in get_args(Rule):
        raise InputError(f"rule is one of {', '.join(get_args(Rule))}, got {rule!r}")
    matrix = as_matrix(scores, targets)
    values, y, maps = matrix.values.double(), matrix.targets, matrix.maps
    splits = grouped_folds(groups_of(scores, groups, len(y)), folds=folds, seed=seed)
    order = sorted((float(s) for s in strengths), reverse=True)
    live = usable(values, y, "any").nonzero()[:, 0]
    if not (len(live) and order and powers):
        raise InputError("there is no usable map, or no strength or power to try")
    counts = counts_of([s.train for s in splits], len(y)).to(y)
    tried = [(float(power), strength) for power in powers for strength in order]
    predictions = []  # (splits, strengths, N) a power
    for power in powers:
        columns = raised(values[:, live], power)
        predictions.append(nonnegative_path(columns, y, counts, order).weights @ columns.T)
    every = torch.cat(predictions, 1)
    held_out = torch.stack([plcc(every[b][:, s.held_out], y[s.held_out]) for b, s in enumerate(splits)])
    held_out = held_out.nan_to_num(nan=0.0)
    means, errors = mean_and_error(held_out)
    best = int(means.argmax())
    power, strength = tried[best]
    if rule == "one_standard_error":
        enough = means[best] - errors[best]
        strength = next(s for (p, s), mean in zip(tried, means, strict=True) if p == power and mean >= enough)
    columns = raised(values[:, live], power)
    upto = order[: order.index(strength) + 1]
    weights = nonnegative_path(columns, y, torch.ones_like(y)[None], upto).weights[0, -1]
    weight = weights * columns.std(0)
    chosen = weight.argsort(descending=True, stable=True)[: int((weights > 0).sum())]
    if not len(chosen):
        raise InputError("the weakest strength still chooses no map; give smaller strengths")
    picked, shares = maps.at(live[chosen].tolist()), weights[chosen]
    combined = pool_scores(values[:, live[chosen]], picked, weights=shares, power=power)
    fit = fit_logistic(combined, y)
    return Selection(
        maps=MapIndex(picked),
        steps=(),
        value=float(fit.plcc),
        options={
            "search": "weighted",
            "criterion": "plcc",
            "fit": "logistic5",
            "pool": "mean",
            "power": power,
            "strength": strength,
            "rule": rule,
            "groups": kind_of_groups(groups),
            "folds": folds,
            "seed": seed,
            "inner": [
                {"power": p, "strength": s, "held_out_plcc": mean}
                for (p, s), mean in zip(tried, means.tolist(), strict=True)
            ],
            "images": len(y),
            "maps": len(maps),
        },
        source=source_of(matrix),
        fit=fit,
        weights=shares.cpu(),
    )


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
        strengths: Penalties, strongest first; above 1 nothing is chosen, near 0 it is plain least squares.
        sweeps: The most passes over the working set between two looks at all maps.
        tolerance: A problem is solved when no standardised weight moves by more, and no other map pulls harder
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
