"""Forward selection of feature maps (steps 1 to 8 of the paper): every candidate map is tried at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import check_tensor
from fmiqa._progress import progress_bar
from fmiqa.correlation import LogisticFit, fit_logistic
from fmiqa.correlation.portions import rows_at_once
from fmiqa.correlation.problems import weighted_pearson
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.budget import Budget, with_costs
from fmiqa.selection.engine import Best, Candidates, Path, climb
from fmiqa.selection.options import Direction, SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.prior import dataset_rows, fitted_targets
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.splits import counts_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

_COLUMNS = 256  # maps whose correlation with the targets is computed together, at least

__all__ = [
    "Scores",
    "SearchTask",
    "as_matrix",
    "fit_of",
    "forward_select",
    "joinable",
    "largest_set",
    "source_of",
    "step_bar",
    "step_of",
    "usable",
    "usable_in_all",
]

Scores = ScoreMatrix | Tensor | Sequence[ScoreMatrix] | Mapping[str, ScoreMatrix]
"""What searches take: a score matrix, its values (N, M), or the score matrices of several data sets."""


@flat_keywords
def forward_select(
    scores: Scores | ScoreStore,
    targets: Tensor | None = None,
    *,
    options: SearchOptions | None = None,
    callback: Callable[[Step], object] | None = None,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Selection:
    """Select the few maps whose combined score agrees best with the subjective scores.

    The set begins with the best single map. In each step, every remaining map is tried beside the set, and the map
    with the highest criterion joins, until no map raises the criterion (paper, steps 1 to 8). All candidates of a
    step are evaluated in one batch of tensor operations. Of equally good maps, the first is taken.

    The criterion of the result is in sample: it is measured on the images that the maps were selected on. Of several
    data sets, each has a logistic of its own, and the mean (or the lowest, `across="worst"`) of their criteria is
    maximised. With `prior="consensus"`, the criterion is that of the blend which the search fits, see
    `fmiqa.selection.prior`.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M), whose columns are then named `map:0`, `map:1`, ... Several data
            sets are given as a list of matrices, as name -> matrix, or as one matrix (`ScoreMatrix.stack`). A
            `ScoreStore` is searched without being loaded, see `fmiqa.selection.beyond_memory`.
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        options: What is maximised, over which maps, and when the search stops.
        callback: A function that is called after each step with its `Step`.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`, such as `max_maps=10`.

    Returns:
        The selected maps in order, the criterion after each, and all options.

    Raises:
        InputError: Shapes do not match, targets or values are not usable, maps or options are unknown, or no map
            may join. A column that is constant or not finite never joins.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> targets = torch.linspace(0, 1, 60)
        >>> values = torch.rand(60, 5, generator=generator)
        >>> values[:, 3] = targets + 0.2 * values[:, 1]
        >>> forward_select(values, targets, max_maps=1).maps
        MapIndex(['map:3'])
    """
    if isinstance(scores, ScoreStore):
        from fmiqa.selection.beyond_memory import forward_select_store

        return forward_select_store(scores, targets, options=options, callback=callback, progress=progress, **keywords)
    task = SearchTask.of(scores, targets, SearchOptions.of(options, keywords))
    steps: list[Step] = []
    with step_bar(progress, task.limit) as bar:

        def on_step(step: Step) -> None:
            steps.append(step)
            bar.update()
            bar.set_postfix(map=str(step.map), **{task.options.criterion: f"{step.value:.4f}"})
            if callback is not None:
                callback(step)

        selected = task.climb(on_step)
    return task.selection(selected, steps, search="forward")


class SearchTask(NamedTuple):
    """What every search over sets of maps begins from, checked, and how its outcome becomes a `Selection`.

    Args:
        candidates: The maps, on a single problem.
        targets: (N,) subjective scores, NaN for those that have none.
        datasets: The positions of the images of each data set.
        start: Positions of the maps that are in the set from the beginning.
        allowed: (M,) which maps may join.
        limit: The largest number of maps that the set may have.
        options: The options of the search.
        source: The options of the score matrix.
    """

    candidates: Candidates
    targets: Tensor
    datasets: list[Tensor]
    start: list[int]
    allowed: Tensor
    limit: int
    options: SearchOptions
    source: dict[str, Any]

    @classmethod
    def of(cls, scores: Scores, targets: Tensor | None, options: SearchOptions) -> SearchTask:
        """Check scores and options, and prepare the search.

        Raises:
            InputError: As in `forward_select`.
        """
        matrix = as_matrix(scores, targets, options)
        options = with_costs(options, matrix)
        values, maps, datasets = matrix.values, matrix.maps, dataset_rows(matrix)
        y = fitted_targets(matrix.targets, options.prior_of(values), options.alpha, datasets)
        start, allowed = joinable(usable_in_all(values, y, options.direction, datasets), maps, options)
        several = len(datasets) > 1
        return cls(
            candidates=Candidates(
                values,
                y,
                maps,
                objective=options.objective,
                pool=options.pool,
                counts=counts_of(datasets, len(y)).to(y) if several else None,
                datasets=len(datasets),
                across=options.across,
                budget=Budget.of(matrix, options),
            ),
            targets=matrix.targets,
            datasets=datasets,
            start=start,
            allowed=allowed,
            limit=largest_set(start, allowed, options),
            options=options,
            source=source_of(matrix),
        )

    def climb(self, on_step: Callable[[Step], object], *, tol: float | None = None) -> list[int]:
        """The positions that forward selection selects; `on_step` is called with each step."""

        tol = self.options.tol if tol is None else tol
        if len(self.choices) == 1:
            return self._climb(on_step, tol).chosen
        kept: list[list[Step]] = [[] for _ in self.choices]
        paths = [choice._climb(steps.append, tol) for choice, steps in zip(self.choices, kept, strict=True)]
        best = max(range(len(paths)), key=lambda k: paths[k].values[-1:])
        for step in kept[best]:
            on_step(step)
        return paths[best].chosen

    @property
    def choices(self) -> list[SearchTask]:
        """The searches of which the best counts: this one, or under a budget, as its `choices` have it."""
        if self.candidates.budget is None:
            return [self]
        return [self._replace(allowed=self.allowed & maps) for maps in self.candidates.budget.choices]

    def _climb(self, on_step: Callable[[Step], object], tol: float) -> Path:
        def report(_: int, best: Best, before: float) -> None:
            on_step(self.step(best, before))

        (path,) = climb(self.candidates, [self.start], self.allowed[None], max_maps=self.limit, tol=tol, on_step=report)
        return path

    def step(self, best: Best, before: float, *, removed: bool = False) -> Step:
        """The step that takes the best of the maps tried."""
        return step_of(self.candidates.maps, best, before, removed=removed)

    def selection(self, selected: Sequence[int], steps: Iterable[Step], *, search: str, **more: Any) -> Selection:
        """The result for a set.

        Args:
            selected: The positions of its maps.
            steps: The path to it.
            search: The name of the search.
            more: The options that only this search has.

        Raises:
            InputError: The set is empty.
        """
        if not selected:
            raise InputError("no map agrees with the targets at all: every candidate's criterion is undefined")
        costs, maps = self.options.costs, self.candidates.maps.at(selected)
        if costs is not None:
            more["cost_share"] = costs.share(maps)
        pooled = self.candidates.pooled(selected)
        counts = {"images": len(self.targets), "maps": len(self.candidates.maps)}
        return Selection(
            maps=maps,
            steps=tuple(steps),
            value=float(self.candidates.value([selected])),
            options={"search": search, **self.options.to_dict(), **more, **counts},
            source=self.source,
            fit=fit_of(pooled, self.targets, self.datasets, self.options),
        )


def joinable(usable: Tensor, maps: MapIndex, options: SearchOptions) -> tuple[list[int], Tensor]:
    """The positions of the maps that a set starts from, and (M,) which of the usable ones may join it.

    Raises:
        InputError: Maps in the options are unknown, or no map may join.
    """
    start = maps.positions(options.start)
    allowed = usable.clone()
    allowed[maps.positions(options.exclude)] = False
    allowed[start] = False
    if not (allowed.any() or start):
        raise InputError(
            f"none of the {len(maps)} maps may join: each is constant, not finite, excluded, or "
            "(direction='rising') falls with quality; are the targets higher = better?"
        )
    return start, allowed


def largest_set(start: Sequence[int], allowed: Tensor, options: SearchOptions) -> int:
    """The largest number of maps that a set may have."""
    every = len(start) + int(allowed.sum())
    return every if options.max_maps is None else min(options.max_maps, every)


def step_of(maps: MapIndex, best: Best, before: float, *, removed: bool = False) -> Step:
    """The step that takes the best of the maps tried, from a set with the criterion `before`."""
    return Step(
        map=maps[best.position],
        value=best.value,
        gain=best.value - max(before, 0.0),
        candidates=best.tried,
        runner_up=None if best.second < 0 else maps[best.second],
        runner_up_value=best.second_value,
        removed=removed,
    )


def fit_of(pooled: Tensor, targets: Tensor, datasets: Sequence[Tensor], options: SearchOptions) -> LogisticFit | None:
    """The logistic from combined to subjective scores; None for several data sets, whose scales differ, or for none."""
    distilled = options.prior is not None and not options.alpha
    if distilled or len(datasets) > 1 or not targets.isfinite().all() or targets.min() == targets.max():
        return None
    return fit_logistic(pooled, targets, form=options.objective.fit or "logistic5", monotone=options.monotone)


def as_matrix(scores: Scores | ScoreStore, targets: Tensor | None, options: SearchOptions | None = None) -> ScoreMatrix:
    """Scores and targets, checked, as a score matrix with targets in float64.

    Args:
        scores: A `ScoreMatrix`; those of several data sets, in a list or by name; or values (N, M), whose images are
            then groups of their own.
        targets: (N,) subjective scores; by default those of the `ScoreMatrix`.
        options: The options of the search. With a prior, images may have no subjective scores: all NaN.

    Raises:
        InputError: As in `forward_select`.
    """
    prior = options is not None and options.prior is not None
    distilled = prior and options is not None and not options.alpha
    if isinstance(scores, ScoreStore):
        raise InputError(
            "a score store is read beyond memory by forward_select alone; give store.load(), or some of it, as in "
            "store.columns(maps) or store.rows(positions)"
        )
    if isinstance(scores, ScoreMatrix):
        matrix, targets = scores, scores.targets if targets is None else targets
    elif isinstance(scores, Tensor):
        if scores.ndim != 2 or not scores.shape[1]:
            raise InputError(
                f"scores is a ScoreMatrix or a tensor (N, M), N images and M maps, got {tuple(scores.shape)}"
            )
        names = [str(i) for i in range(len(scores))]
        maps = MapIndex.of_layers({"map": scores.shape[1]})
        matrix = ScoreMatrix(scores, maps, torch.zeros(len(scores), device=scores.device), names, names)
        if targets is None and distilled:
            targets = torch.full_like(matrix.targets, torch.nan)
    elif isinstance(scores, Mapping | list | tuple):
        matrix = ScoreMatrix.stack(scores if isinstance(scores, Mapping) else _named(scores))
        targets = matrix.targets if targets is None else targets
    else:
        check_tensor(scores, "scores must be a ScoreMatrix, or (N, M) values which")
    if targets is None:
        raise InputError("a plain tensor of scores needs targets: forward_select(values, targets)")
    check_tensor(targets, "targets (N,)")
    if targets.device != matrix.values.device:
        raise InputError(f"targets are on {targets.device}, scores on {matrix.values.device}; move them to one device")
    if targets.shape != matrix.values.shape[:1]:
        raise InputError(f"targets {tuple(targets.shape)} need one score for each of the {len(matrix)} images")
    matrix = replace(matrix, values=matrix.values.detach(), targets=targets.detach().double())
    for rows in dataset_rows(matrix):
        own = matrix.targets[rows]
        unused = distilled or (prior and own.isnan().all())
        if unused or (own.isfinite().all() and len(own) > 4 and own.min() < own.max()):
            continue
        named = "" if matrix.datasets is None else f" of {matrix.datasets[int(rows[0])]}"
        raise InputError(f"targets{named} must be at least 5 finite scores that are not all equal, got {own}")
    return matrix


def _named(matrices: Sequence[ScoreMatrix]) -> dict[str, ScoreMatrix]:
    """Matrices by the names of their data sets, which are numbered where they are unknown or repeated."""
    found: dict[str, ScoreMatrix] = {}
    for number, matrix in enumerate(matrices, 1):
        if not isinstance(matrix, ScoreMatrix):
            raise InputError(f"several data sets are given as ScoreMatrix objects, got {type(matrix).__name__}")
        name = str(matrix.options.get("dataset") or "data set")
        own = f"{name} {number}" if name in found or name == "data set" else name
        while own in found:
            own += " again"
        found[own] = matrix
    return found


def source_of(matrix: ScoreMatrix) -> dict[str, Any]:
    """What a result records of the score matrix that it was made from; nothing of plain numbers."""
    if not matrix.options:
        return {}
    found = {**matrix.options, "references": sorted(set(matrix.groups))}
    if matrix.datasets is not None:  # those of the images that are there
        counts = Counter(matrix.datasets)
        found |= {"dataset": " + ".join(counts), "datasets": dict(counts)}
    return found


def usable(values: Tensor, targets: Tensor, direction: Direction = "rising") -> Tensor:
    """(M,) which maps may join a set: finite, not constant, and, if `rising`, going up with quality."""
    low, high = values.aminmax(dim=0)
    good = low.isfinite() & high.isfinite() & (high > low)
    if direction == "rising":
        parts = values.split(max(_COLUMNS, rows_at_once(len(values), values.device)), 1)
        good &= torch.cat([weighted_pearson(part.T.double(), targets[None]) for part in parts]) > 0
    return good


def usable_in_all(values: Tensor, targets: Tensor, direction: Direction, datasets: Sequence[Tensor]) -> Tensor:
    """(M,) which maps are `usable` on each data set."""
    if len(datasets) == 1 and len(datasets[0]) == len(values):
        return usable(values, targets, direction)
    return torch.stack([usable(values[rows], targets[rows], direction) for rows in datasets]).all(0)


def step_bar(progress: bool, total: int) -> Any:
    """A progress bar over maps."""
    return progress_bar(show=progress, total=total, desc="selecting", unit="map")
