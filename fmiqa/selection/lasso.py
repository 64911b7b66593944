"""Weighted selection: few maps with non-negative weights that shrink towards the consensus of all maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fmiqa.correlation import plcc
from fmiqa.errors import InputError
from fmiqa.features.cost import Costs
from fmiqa.maps import FeatureMap
from fmiqa.pooling import pool_scores, raised
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.budget import Budget, with_costs
from fmiqa.selection.engine import Across, combined_across
from fmiqa.selection.forward import Scores, as_matrix, fit_of, source_of, usable_in_all
from fmiqa.selection.options import SearchOptions
from fmiqa.selection.prior import Prior, dataset_rows, fitted_targets, held_out_rows
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import Groups, Split, grouped_folds, groups_of, kind_of_groups, mean_and_error

__all__ = ["NonNegativeFit", "Rule", "nonnegative_path", "weighted_select"]

Rule = Literal["one_standard_error", "best"]

STRENGTHS = (0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.015)
_ADDED = 40  # maps that may enter the working set at once, a problem


def weighted_select(
    scores: Scores,
    targets: Tensor | None = None,
    *,
    prior: Prior | None = "consensus",
    alpha: float = 0.75,
    groups: Groups = "reference",
    strengths: Sequence[float] = STRENGTHS,
    powers: Sequence[float] = (2.0,),
    rule: Rule = "best",
    folds: int = 5,
    seed: int = 0,
    budget: float | None = None,
    costs: Costs | None = None,
    across: Across = "mean",
    exclude: Iterable[FeatureMap | str] = (),
) -> Selection:
    """Choose maps and non-negative weights by a lasso that shrinks towards the consensus of all maps.

    A blend of the subjective scores and the consensus (`fmiqa.selection.prior`) is regressed on the map scores with
    weights from 0; the penalty leaves most weights at 0. Each strength is judged by its mean fitted PLCC with the
    subjective scores over folds of whole references inside the data given. The weights are then fitted to all of the
    data. The defaults were decided on distortion types and data sets that were left out of the selection
    (`benchmarks/robustness.py`): without the prior, it falls below all maps on more of them.

    Args:
        scores: A `ScoreMatrix`, joined ones too (`ScoreMatrix.concat`); its values (N, M); or several data sets, as
            `forward_select` takes them.
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        prior: What the selection shrinks towards; None stands for the subjective scores alone, and towards zero.
        alpha: The share of the subjective scores in the blend with the prior.
        groups: What the inner folds keep together: `"reference"`, `"distortion"`, or one name per image.
        strengths: Penalties to try, see `nonnegative_path`; fewer maps are selected at higher ones.
        powers: What map scores are raised to before they are combined, see `pool_scores`; of several, the one
            with the best strength.
        rule: `"best"` for the highest mean, or `"one_standard_error"` for the strongest penalty within one standard
            error of it (Breiman et al. 1984), which selects fewer maps.
        folds: Number of inner folds.
        seed: Seed of the dealing of groups to inner folds.
        budget: The share of what all candidates cost that the set may cost, see `SearchOptions`. Where the largest sets
            of layers that it pays for are more than 16, there is one: layers are paid in the order of what their maps
            contribute without a budget.
        costs: What maps cost, see `SearchOptions`.
        across: How the inner figures of several data sets are combined, `"mean"` or `"worst"`.
        exclude: Maps that may not be selected; they count for the consensus all the same.

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
    options = SearchOptions(prior=prior, alpha=alpha, budget=budget, costs=costs, across=across, exclude=exclude)
    matrix = as_matrix(scores, targets, options)
    options = with_costs(options, matrix)
    order = sorted((float(s) for s in strengths), reverse=True)
    live = usable_in_all(matrix.values, matrix.targets.nan_to_num(), "any", dataset_rows(matrix))
    live[matrix.maps.positions(options.exclude)] = False
    if not (live.any() and order and powers):
        raise InputError("there is no usable map, or no strength or power to try")
    known = scores if isinstance(scores, Tensor) else matrix
    splits = grouped_folds(groups_of(known, groups, len(matrix)), folds=folds, seed=seed)
    limits = Budget.of(matrix, options)
    task = _Task(matrix, options, splits, [float(power) for power in powers], order, rule)
    choices = live[None] if limits is None else live & _paid(matrix, limits, options, task, live)
    if not choices.any():
        raise InputError(f"budget={budget:g} pays for no usable map; give a larger budget")
    found = max((task.within(maps.nonzero()[:, 0]) for maps in choices if maps.any()), key=lambda found: found.inner)
    if not len(found.maps):
        raise InputError("the weakest strength still chooses no map; give smaller strengths")
    picked = matrix.maps.at(found.maps.tolist())
    combined = pool_scores(matrix.values[:, found.maps].double(), picked, weights=found.weights, power=found.power)
    datasets = dataset_rows(matrix)
    cost = (
        {} if options.costs is None else {"costs": options.costs.to_dict(), "cost_share": options.costs.share(picked)}
    )
    return Selection(
        maps=picked,
        steps=(),
        value=float(task.agreement(combined[None], datasets)),
        options={
            "search": "weighted",
            "criterion": "plcc",
            "fit": "logistic5",
            "pool": "mean",
            "prior": prior,
            "alpha": alpha,
            "power": found.power,
            "strength": found.strength,
            "rule": rule,
            "groups": kind_of_groups(groups),
            "folds": folds,
            "seed": seed,
            "budget": budget,
            **cost,
            "across": across,
            "exclude": [str(m) for m in options.exclude],
            "inner": found.tried,
            "images": len(matrix),
            "maps": len(matrix.maps),
        },
        source=source_of(matrix),
        fit=fit_of(combined, matrix.targets, datasets, options),
        weights=found.weights.cpu(),
    )


def _paid(matrix: ScoreMatrix, limits: Budget, options: SearchOptions, task: _Task, live: Tensor) -> Tensor:
    """(K, M) the maps of each set of layers that the budget pays for, of which the best counts."""
    maps, choices = matrix.maps, limits.choices
    every = maps.at(choices[0].nonzero()[:, 0].tolist())
    if len(choices) > 1 or not options.costs or options.costs.share(every) <= (options.budget or 1):
        return choices
    free = live.nonzero()[:, 0]
    leading: dict[str, int] = {}  # the map of each layer that contributes most
    for m in [*task.within(free).maps.tolist(), *free.tolist()]:
        leading.setdefault(maps[m].place, m)
    chosen: list[int] = []
    for m in leading.values():
        if limits.affordable([chosen])[0, m]:
            chosen.append(m)
    places = {maps[m].place for m in chosen}
    return torch.tensor([[m.place in places for m in maps]], device=live.device)


class _Found(NamedTuple):
    """What the weighted search found among some maps: positions, largest contribution first, and weights."""

    maps: Tensor
    weights: Tensor
    power: float
    strength: float
    inner: float
    tried: list[dict[str, float]]


class _Task:
    """The weighted search among any of a matrix's maps.

    Args:
        matrix: The images and all maps.
        options: The prior and how data sets are combined.
        splits: The inner folds.
        powers: Powers to try.
        strengths: Penalties to try, strongest first.
        rule: Which of them is taken.
    """

    def __init__(
        self,
        matrix: ScoreMatrix,
        options: SearchOptions,
        splits: Sequence[Split],
        powers: Sequence[float],
        strengths: Sequence[float],
        rule: Rule,
    ) -> None:
        self._values, y = matrix.values, matrix.targets
        prior = options.prior_of(matrix.values)
        self._powers, self._strengths, self._rule = powers, strengths, rule
        self._across = options.across
        # Where there is no subjective score, the prior is all there is to agree with.
        self._judged = fitted_targets(y, prior, float(options.alpha > 0), dataset_rows(matrix))
        every = torch.arange(len(y), device="cpu")
        parts = [dataset_rows(matrix, rows) for rows in (*(split.train for split in splits), every)]
        self._held_out = held_out_rows(matrix, splits, "an inner held-out part")
        self._fitted = torch.stack([fitted_targets(y, prior, options.alpha, part) for part in parts])
        counts = torch.zeros(len(parts), len(y), dtype=torch.float64, device="cpu")
        for row, part in zip(counts, parts, strict=True):
            for rows in part:
                row[rows] = 1 / len(rows)  # data sets of all sizes weigh the same
        self._counts = counts.to(y.device)

    def within(self, maps: Tensor) -> _Found:
        """The search among the maps at these positions."""
        tried = [(power, strength) for power in self._powers for strength in self._strengths]
        columns = {power: raised(self._values[:, maps].double(), power) for power in self._powers}
        predictions = []  # (splits, strengths, N) a power
        for x in columns.values():
            predictions.append(nonnegative_path(x, self._fitted[:-1], self._counts[:-1], self._strengths).weights @ x.T)
        every = torch.cat(predictions, 1)
        held_out = torch.stack([self.agreement(own, rows) for own, rows in zip(every, self._held_out, strict=True)])
        means, errors = mean_and_error(held_out.nan_to_num(nan=0.0))
        best = int(means.argmax())
        power, strength = tried[best]
        if self._rule == "one_standard_error":
            enough = means[best] - errors[best]
            strength = next(s for (p, s), mean in zip(tried, means, strict=True) if p == power and mean >= enough)
        upto = self._strengths[: self._strengths.index(strength) + 1]
        weights = nonnegative_path(columns[power], self._fitted[-1:], self._counts[-1:], upto).weights[0, -1]
        contribution = weights * columns[power].std(0)
        chosen = contribution.argsort(descending=True, stable=True)[: int((weights > 0).sum())]
        figures = [
            {"power": p, "strength": s, "held_out_plcc": mean}
            for (p, s), mean in zip(tried, means.tolist(), strict=True)
        ]
        return _Found(maps[chosen], weights[chosen], power, strength, float(means[best]), figures)

    def agreement(self, combined: Tensor, datasets: Sequence[Tensor]) -> Tensor:
        """(K,) fitted PLCC of combined scores (K, N) with the subjective scores, over data sets."""
        each = torch.stack([plcc(combined[:, rows], self._judged[rows]) for rows in datasets])
        return combined_across(each, self._across, dim=0)


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
        targets: (N,) what is fitted, or (B, N) for each problem.
        counts: (B, N) how much each image counts in each problem.
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
    y_mean = (w * targets).sum(-1)  # (B,)
    y_spread = ((w * targets.square()).sum(-1) - y_mean.square()).sqrt()
    y = (targets - y_mean[:, None]) / y_spread[:, None]  # (B, N)

    working = torch.zeros(0, dtype=torch.long, device=values.device)
    z = values.new_zeros(len(counts), len(values), 0)  # standardised columns of the working set
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
            places = torch.where(strongest.values > strength + tolerance, strongest.indices, -1)
            new = places.cpu().unique()  # all that is read back of a look at all maps
            new = new[new >= 0].to(values.device)
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
    """Cyclic coordinate descent on the working set of every problem, (B, K), to `tolerance`.

    One coordinate follows another, on matrices of the working set alone: the CPU does that, wherever the scores are.
    """
    if not z.shape[2]:
        return beta
    weighted = z * w[..., None]
    gram = weighted.mT @ z
    pull = (weighted.mT @ y[..., None])[..., 0] - (gram @ beta[..., None])[..., 0]
    home, size = beta.device, len(beta[0])
    gram, pull, beta = torch.cat((gram, pull[..., None], beta[..., None]), 2).cpu().split((size, 1, 1), 2)
    pull, beta = pull[..., 0].contiguous(), beta[..., 0].contiguous()
    diagonal = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
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
    return beta.to(home)
