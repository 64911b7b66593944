"""Searches beyond greedy forward selection: floating, backward, beam.

Forward selection never takes back a map, and follows one set only. Floating search (P. Pudil, J. Novovičová,
J. Kittler, Floating search methods in feature selection, Pattern Recognition Letters 15, 1994) takes maps back,
backward elimination starts from a set and only takes away, a beam follows several sets. What they gain is gained
on the images that the maps are chosen on; whether it holds elsewhere, grouped validation has to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa.correlation import Form
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap
from fmiqa.pooling import Pool
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.criteria import Criterion
from fmiqa.selection.engine import ranked
from fmiqa.selection.forward import Direction, Problem, prepare, step_bar
from fmiqa.selection.result import Selection, Step

__all__ = ["backward_eliminate", "beam_select", "floating_select"]


def floating_select(
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
    progress: bool = False,
) -> Selection:
    """Forward selection that takes maps back (SFFS, Pudil et al. 1994).

    After each map that joins, the map whose leaving does best leaves, as long as the set without it is better,
    by more than `tol`, than every set of that size seen before. Then the next map joins, until none raises the
    criterion by more than `tol`. The best set on the way is the result; where forward selection found a better
    one, or an equal one, that is the result, so that the criterion is never below that of `forward_select` with
    the same options.

    Args:
        scores: as in `forward_select`, and so are `targets`, `criterion`, `fit`, `monotone`, `pool`,
            `direction`, `max_maps`, `exclude` and `progress`.
        targets: (N,) subjective scores.
        criterion: what is maximised.
        fit: the logistic under `"plcc"`.
        monotone: whether that logistic may not turn round.
        pool: how the maps' scores are combined.
        direction: which maps may join.
        max_maps: the set never has more maps.
        tol: the gain that a map's joining or leaving must exceed.
        start: maps that are in the set from the beginning, and stay.
        exclude: maps that may not join.
        progress: show a progress bar.

    Returns:
        The chosen maps; the path to them, with the maps that left (`Step.removed`).

    Raises:
        InputError: as `forward_select`.

    Example:
        The first map is the best alone, and in the way of two that are perfect together:

        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> [step.label(step.map) for step in floating_select(values, y, fit=None).steps]
        ['map:0', 'map:1', 'map:2', '-map:0']
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
    with step_bar(progress, problem.limit) as bar:
        found = _float(problem, tol, bar)
    return _not_worse_than_forward(problem, found, tol, search="floating")


def backward_eliminate(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    start: Iterable[FeatureMap | str] | None = None,
    min_maps: int = 1,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    monotone: bool = False,
    pool: Pool = "mean",
    direction: Direction = "rising",
    tol: float = 0.0,
    progress: bool = False,
) -> Selection:
    """Take maps from a set, one by one, while the criterion does not fall.

    In each step the map whose leaving does best leaves, if the criterion without it is no more than `tol` below
    the highest on the way so far. So the result is never more than `tol` below the start, however many maps
    leave, and with `tol=0` never below it. From a set of M maps, the first step fits M sets.

    Args:
        scores: as in `forward_select`, and so are `targets`, `criterion`, `fit`, `monotone` and `pool`.
        targets: (N,) subjective scores.
        start: the set to take from, such as all maps of a layer; by default what `forward_select` chooses.
        min_maps: stop at so few maps.
        criterion: what is maximised.
        fit: the logistic under `"plcc"`.
        monotone: whether that logistic may not turn round.
        pool: how the maps' scores are combined.
        direction: which maps may be in the default start; a start that is given is taken as it is.
        tol: how far the criterion may fall in all.
        progress: show a progress bar.

    Returns:
        The maps that stayed. The path begins from nothing where forward selection made the start, and from the
        start where one was given; maps that left are marked (`Step.removed`).

    Raises:
        InputError: as `forward_select`; an empty start, or one whose criterion is undefined (a map that is not
            finite, a combined score that is constant); `min_maps` below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> backward_eliminate(values, y, fit=None, start=["map:0", "map:1", "map:2"]).maps
        MapIndex(['map:1', 'map:2'])
    """
    if not is_count(min_maps):
        raise InputError(f"min_maps is at least 1, got {min_maps!r}")
    given = None if start is None else list(start)
    if given == []:
        raise InputError("start is empty: give the maps to take from, or leave it out for forward selection's")
    problem = prepare(
        scores,
        targets,
        criterion=criterion,
        fit=fit,
        monotone=monotone,
        pool=pool,
        direction=direction,
        max_maps=None,
        tol=tol,
        start=given or (),
        exclude=(),
    )
    steps: list[Step] = []
    chosen = list(problem.start) if given else problem.climb(0.0, steps.append)
    with step_bar(progress, max(0, len(chosen) - min_maps)) as bar:
        found = _eliminate(problem, chosen, steps, min_maps, tol, bar)
    return problem.selection(found.chosen, found.steps, search="backward", min_maps=min_maps)


def beam_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    width: int = 5,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    monotone: bool = False,
    pool: Pool = "mean",
    direction: Direction = "rising",
    max_maps: int | None = None,
    tol: float = 0.0,
    start: Iterable[FeatureMap | str] = (),
    exclude: Iterable[FeatureMap | str] = (),
    progress: bool = False,
) -> Selection:
    """Forward selection that follows the best few sets instead of one.

    In each step every map is tried beside every set kept, and the `width` best different sets, each better than
    the one it grew from by more than `tol`, are kept, until no set grows. The best set on the way is the result;
    where forward selection found a better one, or an equal one, that is the result, so that the criterion is
    never below that of `forward_select` with the same options. It takes about `width` + 1 times as long.

    Args:
        scores: as in `forward_select`, and so are the options that are not explained here.
        targets: (N,) subjective scores.
        width: how many sets are kept; 1 is forward selection.
        criterion: what is maximised.
        fit: the logistic under `"plcc"`.
        monotone: whether that logistic may not turn round.
        pool: how the maps' scores are combined.
        direction: which maps may join.
        max_maps: the set never has more maps.
        tol: the gain that a map's joining must exceed.
        start: maps that are in the set from the beginning.
        exclude: maps that may not join.
        progress: show a progress bar.

    Returns:
        The chosen maps and the path to them. A step's runner-up is the best other map beside the same set: it
        may have done better at that step, and less well later.

    Raises:
        InputError: as `forward_select`; a width below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> sorted(str(m) for m in beam_select(values, y, fit=None, width=3).maps)
        ['map:1', 'map:2']
    """
    if not is_count(width):
        raise InputError(f"width is at least 1, got {width!r}")
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
    with step_bar(progress, problem.limit) as bar:
        found = _beam(problem, width, tol, bar)
    return _not_worse_than_forward(problem, found, tol, search="beam", width=width)


class _Found(NamedTuple):
    """A set on the way: its criterion, its maps' positions, and the path to it."""

    value: float
    chosen: list[int]
    steps: list[Step]


def _not_worse_than_forward(problem: Problem, found: _Found, tol: float, **options: Any) -> Selection:
    steps: list[Step] = []
    plain = problem.climb(tol, steps.append)
    # Both judged by what the result will report, which may differ in the last digits from a step's figure.
    if float(problem.candidates.value([found.chosen])) > float(problem.candidates.value([plain])):
        return problem.selection(found.chosen, found.steps, **options)
    return problem.selection(plain, steps, **options)


def _float(problem: Problem, tol: float, bar: Any) -> _Found:
    c, allowed = problem.candidates, problem.allowed.clone()
    chosen, steps = list(problem.start), list[Step]()
    value = float(c.value([chosen]))
    found = _Found(value, list(chosen), [])
    best_of_size = {len(chosen): value}
    seen = {frozenset(chosen)}  # no map leaves for a set that was seen, whatever rounding says: the search must end

    while len(chosen) < problem.limit:
        (best,) = c.best([chosen], allowed[None])
        if best.position < 0 or not best.value > value + tol:
            break
        steps.append(problem.step(best, value, int(allowed.sum())))
        chosen.append(best.position)
        allowed[best.position] = False
        value = best.value
        while True:
            best_of_size[len(chosen)] = max(value, best_of_size.get(len(chosen), -math.inf))
            if value > found.value and frozenset(chosen) not in seen:
                found = _Found(value, list(chosen), list(steps))
            seen.add(frozenset(chosen))
            _show(bar, len(chosen), value)
            if len(chosen) < 3:
                break
            members = _members(problem, [m for m in chosen if m not in problem.start])
            (best,) = c.best([chosen], members[None], leaving=True)
            without = [m for m in chosen if m != best.position]
            # Where the map that has just joined does best to leave, the set without it has been seen.
            if not best.value > best_of_size[len(without)] + tol or frozenset(without) in seen:
                break
            steps.append(problem.step(best, value, int(members.sum()), removed=True))
            chosen, value = without, best.value
            allowed[best.position] = True
    return found


def _eliminate(problem: Problem, chosen: list[int], steps: list[Step], min_maps: int, tol: float, bar: Any) -> _Found:
    c = problem.candidates
    value = highest = float(c.value([chosen])) if chosen else 0.0
    if not math.isfinite(value):
        raise InputError(
            "the criterion of start is undefined: one of its maps is not finite, or its combined score is constant "
            "or not finite; leave such maps out"
        )
    while len(chosen) > min_maps:
        members = _members(problem, chosen)
        (best,) = c.best([chosen], members[None], leaving=True)
        without = [m for m in chosen if m != best.position]
        if best.position < 0:
            break
        # As in _not_worse_than_forward: what the result will report.
        best = best._replace(value=float(c.value([without])))
        if not best.value >= highest - tol:
            break
        steps.append(problem.step(best, value, len(chosen), removed=True))
        chosen, value, highest = without, best.value, max(highest, best.value)
        bar.update()
    return _Found(value, chosen, steps)


def _beam(problem: Problem, width: int, tol: float, bar: Any) -> _Found:
    c = problem.candidates
    found = _Found(float(c.value([problem.start])), problem.start, [])
    beam, size = [found], len(problem.start)
    while beam and size < problem.limit:
        allowed = torch.stack([problem.allowed & ~_members(problem, kept.chosen) for kept in beam])
        value = c.tried([kept.chosen for kept in beam], allowed)
        before = value.new_tensor([kept.value for kept in beam])
        gaining = torch.where(value > before[:, None] + tol, value, -math.inf).flatten()
        # A set can come from each of those kept, so among so many there are enough that differ.
        order = gaining.sort(descending=True, stable=True).indices[: width * len(beam)]
        grown: dict[frozenset[int], _Found] = {}
        for place in order[gaining[order].isfinite()].tolist():
            row, position = divmod(place, value.shape[1])
            kept = beam[row]
            best = ranked(value[row], position)
            step = problem.step(best, kept.value, int(allowed[row].sum()))
            chosen = [*kept.chosen, position]
            if len(grown) < width:
                grown.setdefault(frozenset(chosen), _Found(best.value, chosen, [*kept.steps, step]))
        beam, size = list(grown.values()), size + 1
        found = max([found, *beam], key=lambda kept: kept.value)
        if beam:
            _show(bar, size, beam[0].value)
    return found


def _members(problem: Problem, chosen: list[int]) -> Tensor:
    """(M,) which maps are in a set."""
    members = torch.zeros_like(problem.allowed)
    members[chosen] = True
    return members


def _show(bar: Any, maps: int, value: float) -> None:
    bar.update(maps - bar.n)
    bar.set_postfix(best=f"{value:.4f}")
