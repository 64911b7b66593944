"""Forward selection of feature maps (steps 1 to 8 of the paper), every candidate at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fmiqa._checks import check_tensor, is_count, is_number
from fmiqa._progress import progress_bar
from fmiqa.correlation import Form, fit_logistic
from fmiqa.correlation.problems import weighted_pearson
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.pooling import Pool, check_pool
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.criteria import Criterion, Objective
from fmiqa.selection.engine import Best, Candidates, climb
from fmiqa.selection.result import Selection, Step

_COLUMNS = 256  # maps whose agreement with the targets is looked at together

__all__ = ["Direction", "Problem", "forward_select", "prepare", "read_scores", "step_bar", "usable"]

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
        direction: `"rising"` lets only maps in whose own score rises with quality (plain Pearson above 0):
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
    problem = prepare(
        scores,
        targets,
        criterion=criterion,
        fit=fit,
        monotone=monotone,
        pool=pool,
        direction=direction,
        max_maps=max_maps,
        tol=tol,
        start=start,
        exclude=exclude,
    )
    steps: list[Step] = []
    with step_bar(progress, problem.limit) as bar:

        def on_step(step: Step) -> None:
            steps.append(step)
            bar.update()
            bar.set_postfix(map=str(step.map), **{criterion: f"{step.value:.4f}"})
            if callback is not None:
                callback(step)

        chosen = problem.climb(tol, on_step)
    return problem.selection(chosen, steps)


class Problem(NamedTuple):
    """What every search over maps begins from, checked, and how its outcome becomes a `Selection`.

    Args:
        candidates: the maps, on one problem.
        targets: (N,) subjective scores.
        start: positions of the maps that are in the set from the beginning.
        allowed: (M,) which maps may join.
        limit: how many maps the set may have at most.
        options: how the search is run.
        source: the options of the score matrix.
    """

    candidates: Candidates
    targets: Tensor
    start: list[int]
    allowed: Tensor
    limit: int
    options: dict[str, Any]
    source: dict[str, Any]

    def climb(self, tol: float, on_step: Callable[[Step], object]) -> list[int]:
        """The positions that forward selection chooses; `on_step` is called with each step."""

        def report(_: int, best: Best, before: float, tried: int) -> None:
            on_step(self.step(best, before, tried))

        ((chosen, _),) = climb(
            self.candidates, [self.start], self.allowed[None], max_maps=self.limit, tol=tol, on_step=report
        )
        return chosen

    def step(self, best: Best, before: float, tried: int, *, removed: bool = False) -> Step:
        """The step that takes the best of the maps tried."""
        maps = self.candidates.maps
        return Step(
            map=maps[best.position],
            value=best.value,
            gain=best.value - max(before, 0.0),
            candidates=tried,
            runner_up=None if best.second < 0 else maps[best.second],
            runner_up_value=best.second_value,
            removed=removed,
        )

    def selection(self, chosen: Sequence[int], steps: Iterable[Step], **options: Any) -> Selection:
        """The result for a set, with options beyond the problem's own.

        Raises:
            InputError: the set is empty.
        """
        if not chosen:
            raise InputError("no map agrees with the targets at all: every candidate's criterion is undefined")
        objective, pooled = self.candidates.objective, self.candidates.pooled(chosen)
        return Selection(
            maps=self.candidates.maps.at(chosen),
            steps=tuple(steps),
            value=float(self.candidates.value([chosen])),
            options={**self.options, **options},
            source=self.source,
            fit=fit_logistic(pooled, self.targets, form=objective.fit or "logistic5", monotone=objective.monotone),
        )


def prepare(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None,
    *,
    criterion: Criterion,
    fit: Form | None,
    monotone: bool,
    pool: Pool,
    direction: Direction,
    max_maps: int | None,
    tol: float,
    start: Iterable[FeatureMap | str],
    exclude: Iterable[FeatureMap | str],
) -> Problem:
    """The problem of a search, its options as in `forward_select`, checked."""
    values, y, maps, source = read_scores(scores, targets)
    objective = Objective(criterion, fit, monotone)
    _check(direction, pool, max_maps, tol)
    start, exclude = MapIndex(start), MapIndex(exclude)
    chosen = maps.positions(start)
    allowed = usable(values, y, direction)
    allowed[maps.positions(exclude)] = False
    allowed[chosen] = False
    if not (allowed.any() or chosen):
        raise InputError(
            f"none of the {len(maps)} maps may join: each is constant, not finite, excluded, or "
            "(direction='rising') falls with quality; are the targets higher = better?"
        )
    return Problem(
        candidates=Candidates(values, y, maps, objective=objective, pool=pool),
        targets=y,
        start=chosen,
        allowed=allowed,
        limit=min(len(maps) if max_maps is None else max_maps, len(chosen) + int(allowed.sum())),
        options={
            "search": "forward",
            "criterion": criterion,
            "fit": fit if criterion == "plcc" else None,
            "monotone": monotone,
            "pool": pool,
            "direction": direction,
            "max_maps": max_maps,
            "tol": tol,
            "start": [str(m) for m in start],
            "exclude": [str(m) for m in exclude],
            "images": len(y),
            "maps": len(maps),
        },
        source=source,
    )


def read_scores(
    scores: ScoreMatrix | Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor, MapIndex, dict[str, Any]]:
    """Values (N, M) as they are, targets (N,) in float64, the maps, and the options of a score matrix, checked."""
    if isinstance(scores, ScoreMatrix):
        values, maps = scores.values, scores.maps
        source = {**scores.options, "references": sorted(set(scores.groups))}
        targets = scores.targets if targets is None else targets
    else:
        check_tensor(scores, "scores must be a ScoreMatrix, or (N, M) values which")
        if scores.ndim != 2 or not scores.shape[1]:
            raise InputError(
                f"scores is a ScoreMatrix or a tensor (N, M), N images and M maps, got {tuple(scores.shape)}"
            )
        values, maps, source = scores, MapIndex.of_layers({"map": scores.shape[1]}), {}
    if targets is None:
        raise InputError("a plain tensor of scores needs targets: forward_select(values, targets)")
    check_tensor(targets, "targets (N,)")
    if targets.device != values.device:
        raise InputError(f"targets are on {targets.device}, scores on {values.device}; move them to one device")
    if targets.shape != values.shape[:1]:
        raise InputError(f"targets {tuple(targets.shape)} need one score for each of the {len(values)} images")
    if not targets.isfinite().all() or len(targets) < 5 or targets.min() == targets.max():
        raise InputError(f"targets must be at least 5 finite scores that are not all equal, got {targets}")
    return values.detach(), targets.detach().double(), maps, dict(source)


def usable(values: Tensor, targets: Tensor, direction: Direction = "rising") -> Tensor:
    """(M,) which maps may join a set: finite, not constant, and, if `rising`, going up with quality."""
    low, high = values.aminmax(dim=0)
    good = low.isfinite() & high.isfinite() & (high > low)
    if direction == "rising":
        parts = values.split(_COLUMNS, 1)
        good &= torch.cat([weighted_pearson(part.T.double(), targets[None]) for part in parts]) > 0
    return good


def _check(direction: str, pool: str, max_maps: int | None, tol: float) -> None:
    if not isinstance(direction, str) or direction not in get_args(Direction):
        raise InputError(f"direction is one of {', '.join(get_args(Direction))}, got {direction!r}")
    if max_maps is not None and not is_count(max_maps):
        raise InputError(f"max_maps is at least 1, a whole number, or None, got {max_maps!r}")
    if not is_number(tol) or not tol >= 0:
        raise InputError(f"tol is a gain of at least 0, got {tol!r}")
    check_pool(pool)


def step_bar(progress: bool, total: int) -> Any:
    """A progress bar over maps."""
    return progress_bar(show=progress, total=total, desc="selecting", unit="map")
