"""Weighted selection: few maps with non-negative weights, their number decided by held-out references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from fmiqa.correlation import fit_logistic, plcc
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import pool_scores, raised
from fmiqa.scores import ScoreMatrix
from fmiqa.selection.forward import read_scores, usable
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import counts_of, grouped_folds
from fmiqa.selection.validation import groups_of
from fmiqa.selection.weights import nonnegative_path

__all__ = ["Rule", "weighted_select"]

Rule = Literal["one_standard_error", "best"]

STRENGTHS = (0.3, 0.2, 0.12, 0.08, 0.05, 0.03)


def weighted_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    groups: str | Sequence[str] = "reference",
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
        scores: a `ScoreMatrix`, joined ones too (`ScoreMatrix.concat`), or its values (N, M).
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        groups: what the inner folds keep together: `"reference"`, `"distortion"`, or a name an image.
        strengths: penalties to try, see `nonnegative_path`; fewer maps are chosen at higher ones.
        powers: what map scores are raised to before they are combined, see `pool_scores`; of several, the one
            with the best strength.
        rule: `"one_standard_error"`, or `"best"` for the highest mean.
        folds: number of inner folds.
        seed: of their dealing.

    Returns:
        A `Selection` with weights, maps of largest contribution first. `options["inner"]` holds the inner
        held-out PLCC of everything tried.

    Raises:
        InputError: as `forward_select`, an unknown rule, no strength or power; no strength chooses a map.

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
    values, y, maps, source = read_scores(scores, targets)
    values = values.double()
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
    means = held_out.mean(0)
    best = int(means.argmax())
    power, strength = tried[best]
    if rule == "one_standard_error":
        enough = means[best] - held_out[:, best].std() / len(splits) ** 0.5
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
            "groups": groups if isinstance(groups, str) else "given",
            "folds": folds,
            "seed": seed,
            "inner": [
                {"power": p, "strength": s, "held_out_plcc": mean}
                for (p, s), mean in zip(tried, means.tolist(), strict=True)
            ],
            "images": len(y),
            "maps": len(maps),
        },
        source=source,
        fit=fit,
        weights=shares.cpu(),
    )
