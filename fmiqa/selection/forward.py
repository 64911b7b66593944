"""Forward selection of feature maps (steps 1 to 8 of the paper), every candidate at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fmiqa.correlation import Form, fit_logistic, krocc, plcc, srocc
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.pooling import Pool, check_pool, pool_scores
from fmiqa.scores import ScoreMatrix
from fmiqa.selection.result import Selection, Step

__all__ = ["Criterion", "Direction", "forward_select"]

Criterion = Literal["plcc", "srocc", "krocc"]
Direction = Literal["rising", "any"]


def forward_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    monotone: bool = False,
    pool: Pool = "mean",
    direction: Direction = "rising",
    max_maps: int | None = None,
    tol: float = 0.0,
    start: Iterable[FeatureMap | str] = (),
    exclude: Iterable[FeatureMap | str] = (),
    callback: Callable[[Step], object] | None = None,
    progress: bool = False,
) -> Selection:
    """Choose the few maps whose combined score agrees best with the subjective scores.

    The best map opens the set; then, step by step, every remaining map is tried beside the set and the one
    with the highest criterion joins, until none raises it (paper, steps 1 to 8). All candidates of a
    step are evaluated in one batch of tensor operations. Ties go to the map that stands first.

    The criterion of the result is in sample: measured on the images that the maps were chosen on.

    Args:
        scores: a `ScoreMatrix`, or its values (N, M); plain columns are named `map:0`, `map:1`, ...
        targets: (N,) subjective scores, higher = better; a `ScoreMatrix` brings its own.
        criterion: `"plcc"`, `"srocc"` or `"krocc"` of the combined score with the targets.
        fit: under `"plcc"`, the logistic fitted before the correlation (non-linear PLCC), None for the
            plain one.
        monotone: whether that logistic may not turn round inside the data range.
        pool: how the maps' scores are combined, see `fmiqa.pooling.Pool`.
        direction: `"rising"` lets only maps in whose own score rises with quality (Spearman above 0):
            a fitted correlation has no sign. `"any"` lets all in.
        max_maps: stop at so many maps.
        tol: stop when the best candidate raises the criterion by no more than this.
        start: maps that are in the set from the beginning.
        exclude: maps that may not join.
        callback: called after each step with its `Step`.
        progress: show a progress bar.

    Returns:
        The chosen maps in order, the criterion after each, and all options.

    Raises:
        InputError: shapes that do not go together, targets or values that are not usable, unknown maps or
            options, or not one map that may join. A column that is constant, or not finite, never joins.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> targets = torch.linspace(0, 1, 60)
        >>> values = torch.rand(60, 5, generator=generator)
        >>> values[:, 3] = targets + 0.2 * values[:, 1]
        >>> forward_select(values, targets, max_maps=1).maps
        MapIndex(['map:3'])
    """
    values, y, maps, source = _read(scores, targets)
    _check(criterion, direction, pool, max_maps, tol)
    evaluate = _criterion(criterion, fit, monotone)
    chosen = maps.positions(start)
    if len(set(chosen)) < len(chosen):
        raise InputError("start names a map twice")
    allowed = _usable(values, y, direction)
    allowed[maps.positions(exclude)] = False
    allowed[chosen] = False
    if not (allowed.any() or chosen):
        raise InputError(
            f"none of the {len(maps)} maps may join: each is constant, not finite, excluded, or "
            "(direction='rising') falls with quality; are the targets higher = better?"
        )
    columns = values.T.contiguous()
    steps: list[Step] = []
    best = -math.inf
    if chosen:
        best = float(evaluate(pool_scores(values[:, chosen], maps.at(chosen), pool=pool), y))
    limit = min(len(maps) if max_maps is None else max_maps, len(chosen) + int(allowed.sum()))
    bar = _bar(progress, limit)
    while len(chosen) < limit:
        candidates = allowed.nonzero()[:, 0]
        combined = _with_each(columns, maps, chosen, candidates, pool)
        result = evaluate(combined, y).nan_to_num(nan=-math.inf)
        place = int(result.argmax())
        value = float(result[place])
        if not value > best + tol:
            break
        winner = int(candidates[place])
        chosen.append(winner)
        allowed[winner] = False
        result[place] = -math.inf
        second = int(result.argmax())
        steps.append(
            Step(
                map=maps[winner],
                value=value,
                gain=value - best if steps or math.isfinite(best) else value,
                candidates=len(candidates),
                runner_up=maps[int(candidates[second])] if len(candidates) > 1 else None,
                runner_up_value=float(result[second]) if len(candidates) > 1 else math.nan,
            )
        )
        best = value
        bar.update()
        bar.set_postfix(map=str(maps[winner]), **{criterion: f"{value:.4f}"})
        if callback is not None:
            callback(steps[-1])
    bar.close()
    selected = maps.at(chosen)
    final = pool_scores(values[:, chosen], selected, pool=pool)
    return Selection(
        maps=selected,
        steps=tuple(steps),
        value=best,
        options={
            "search": "forward",
            "criterion": criterion,
            "fit": fit if criterion == "plcc" else None,
            "monotone": monotone,
            "pool": pool,
            "direction": direction,
            "max_maps": max_maps,
            "tol": tol,
            "start": [str(m) for m in MapIndex(start)],
            "exclude": [str(m) for m in MapIndex(exclude)],
            "images": len(y),
            "maps": len(maps),
        },
        source=source,
        fit=fit_logistic(final, y, form=fit or "logistic5", monotone=monotone),
    )


def _read(scores: ScoreMatrix | Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor, MapIndex, dict[str, object]]:
    if isinstance(scores, ScoreMatrix):
        values, maps, source = scores.values, scores.maps, scores.options
        targets = scores.targets if targets is None else targets
    else:
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"scores is a ScoreMatrix or a tensor (N, M) of N images and M maps, got {given}")
        values, maps, source = scores, MapIndex.of_layers({"map": scores.shape[1]}), {}
    if targets is None:
        raise InputError("a plain tensor of scores needs targets: forward_select(values, targets)")
    targets = torch.as_tensor(targets, device=values.device)
    if targets.shape != values.shape[:1]:
        raise InputError(f"targets {tuple(targets.shape)} need one score for each of the {len(values)} images")
    if not targets.isfinite().all() or len(targets) < 5 or targets.min() == targets.max():
        raise InputError(f"targets must be at least 5 finite scores that are not all equal, got {targets}")
    return values.double(), targets.double(), maps, dict(source)


def _check(criterion: str, direction: str, pool: str, max_maps: int | None, tol: float) -> None:
    if criterion not in get_args(Criterion):
        raise InputError(f"criterion is one of {', '.join(get_args(Criterion))}, got {criterion!r}")
    if direction not in get_args(Direction):
        raise InputError(f"direction is one of {', '.join(get_args(Direction))}, got {direction!r}")
    if max_maps is not None and max_maps < 1:
        raise InputError(f"max_maps is at least 1, got {max_maps}")
    if not tol >= 0:
        raise InputError(f"tol is a gain of at least 0, got {tol}")
    check_pool(pool)


def _criterion(criterion: str, fit: Form | None, monotone: bool) -> Callable[[Tensor, Tensor], Tensor]:
    if criterion == "srocc":
        return srocc
    if criterion == "krocc":
        return krocc
    return lambda x, y: plcc(x, y, fit=fit, monotone=monotone)


def _usable(values: Tensor, targets: Tensor, direction: str) -> Tensor:
    """(M,) which maps may join at all."""
    low, high = values.aminmax(dim=0)
    usable = low.isfinite() & high.isfinite() & (high > low)
    if direction == "rising":
        usable &= srocc(values.T, targets) > 0
    return usable


def _with_each(columns: Tensor, maps: MapIndex, chosen: list[int], candidates: Tensor, pool: Pool) -> Tensor:
    """(K, N) the set's score with each of K candidates joined to it."""
    joined = columns[candidates]
    if not chosen:
        return joined
    if pool == "mean":
        return (joined + columns[chosen].sum(0)) / (len(chosen) + 1)
    layers = list(dict.fromkeys(m.layer for m in maps.at([*chosen, *candidates.tolist()])))
    home = torch.tensor([layers.index(maps[i].layer) for i in chosen], device=columns.device)
    total = columns.new_zeros(len(layers), columns.shape[1]).index_add_(0, home, columns[chosen])
    count = torch.bincount(home, minlength=len(layers)).to(columns.dtype)[:, None]
    logs = torch.where(count > 0, total / count.clamp(min=1), 1.0).log()
    at = torch.tensor([layers.index(maps[i].layer) for i in candidates.tolist()], device=columns.device)
    grown = ((total[at] + joined) / (count[at] + 1)).log()
    present = (count > 0).sum() + (count[at] == 0)
    return ((logs.sum(0) - logs[at] + grown) / present).exp()


def _bar(progress: bool, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="selecting", unit="map", disable=not progress)
