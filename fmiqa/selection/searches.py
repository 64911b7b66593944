"""Searches beyond forward selection: floating, backward, beam.

Forward selection never removes a map and follows a single set. Floating search (P. Pudil, J. Novovičová, J. Kittler,
Floating search methods in feature selection, Pattern Recognition Letters 15, 1994) also removes maps, backward
elimination starts from a set and only removes, and a beam search follows several sets. What they gain is gained on the
images that the maps are selected on. Only grouped validation shows whether it holds on other images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa.errors import InputError
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.forward import SearchTask, step_bar
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.result import Selection, Step

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["backward_eliminate", "beam_select", "floating_select"]


@flat_keywords
def floating_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    options: SearchOptions | None = None,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Selection:
    """Forward selection that also removes maps (SFFS, Pudil et al. 1994).

    After each map that joins, the map whose removal is best is removed, as long as the smaller set is better than
    every set of its size seen before, by more than `tol`. Then the next map joins, until no map raises the criterion
    by more than `tol`. The result is the best set seen; where forward selection finds a set that is at least as good,
    the result is that set, so that the criterion is never below that of `forward_select` with the same options.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        options: What is maximised, over which maps, and when the search stops. The set never has more than
            `max_maps` maps, and maps in `start` are never removed.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`.

    Returns:
        The selected maps, and the path to them with the maps that were removed (`Step.removed`).

    Raises:
        InputError: As in `forward_select`.

    Example:
        The first map is the best single one, but two others are perfect together:

        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> [step.label(step.map) for step in floating_select(values, y, fit=None).steps]
        ['map:0', 'map:1', 'map:2', '-map:0']
    """
    task = SearchTask.of(scores, targets, SearchOptions.of(options, keywords))
    with step_bar(progress, task.limit) as bar:
        found = max((_float(choice, bar) for choice in task.choices), key=lambda kept: kept.value)
    return _not_worse_than_forward(task, found, search="floating")


@flat_keywords
def backward_eliminate(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    options: SearchOptions | None = None,
    min_maps: int = 1,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Selection:
    """Remove maps from a set, one by one, while the criterion does not fall.

    In each step the map whose removal is best is removed, if the criterion without it is no more than `tol` below the
    highest value so far. The result is therefore never more than `tol` below the start, however many maps are
    removed. The first step on a set of M maps fits M sets.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        options: What is maximised and when the search stops. `start` is the set that maps are removed from, such as
            all maps of a layer; it is taken as it is. By default it is the set that `forward_select` selects under
            these options, but with a `tol` of 0. `tol` says how far the criterion may fall in all.
        min_maps: The search stops at this number of maps.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`.

    Returns:
        The maps that stayed. The path begins with the steps of forward selection where that made the start, and with
        the start where one was given. Maps that were removed are marked (`Step.removed`).

    Raises:
        InputError: As in `forward_select`; the start is empty, or its criterion is undefined (a map is not finite, or
            the combined score is constant); `min_maps` is below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> backward_eliminate(values, y, fit=None, start=["map:0", "map:1", "map:2"]).maps
        MapIndex(['map:1', 'map:2'])
    """
    if not is_count(min_maps):
        raise InputError(f"min_maps is a whole number from 1, got {min_maps!r}")
    if "start" in keywords and not list(keywords["start"]):
        raise InputError("start is empty: name the maps to remove from, or leave it out for forward selection's set")
    task = SearchTask.of(scores, targets, SearchOptions.of(options, keywords))
    steps: list[Step] = []
    selected = list(task.start) or task.climb(steps.append, tol=0.0)
    with step_bar(progress, max(0, len(selected) - min_maps)) as bar:
        found = _eliminate(task, selected, steps, min_maps, bar)
    return task.selection(found.chosen, found.steps, search="backward", min_maps=min_maps)


@flat_keywords
def beam_select(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    width: int = 5,
    options: SearchOptions | None = None,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Selection:
    """Forward selection that follows the best few sets instead of one.

    In each step every map is tried beside every set that was kept. The `width` best distinct sets that are better by
    more than `tol` than the sets they grew from are kept, until no set grows. The result is the best set seen; where
    forward selection finds a set that is at least as good, the result is that set, so that the criterion is never
    below that of `forward_select` with the same options. The search takes about `width` + 1 times as long.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        width: The number of sets that are kept; 1 is forward selection.
        options: What is maximised, over which maps, and when the search stops. The set never has more than
            `max_maps` maps.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`.

    Returns:
        The selected maps and the path to them. A step's runner-up is the best other map beside the same set: it may
        have been better at that step and worse later.

    Raises:
        InputError: As in `forward_select`; the width is below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, noise, other = torch.rand(3, 60, generator=generator)
        >>> values = torch.stack([y + 0.8 * other, y + noise, y - noise], 1)
        >>> sorted(str(m) for m in beam_select(values, y, fit=None, width=3).maps)
        ['map:1', 'map:2']
    """
    if not is_count(width):
        raise InputError(f"width is a whole number from 1, got {width!r}")
    task = SearchTask.of(scores, targets, SearchOptions.of(options, keywords))
    with step_bar(progress, task.limit) as bar:
        found = max((_beam(choice, width, bar) for choice in task.choices), key=lambda kept: kept.value)
    return _not_worse_than_forward(task, found, search="beam", width=width)


class _Visited(NamedTuple):
    """A set on the way: its criterion, its maps' positions, and the path to it."""

    value: float
    chosen: list[int]
    steps: list[Step]


def _not_worse_than_forward(task: SearchTask, found: _Visited, *, search: str, **more: Any) -> Selection:
    steps: list[Step] = []
    plain = task.climb(steps.append)
    # Both judged by what the result will report, which may differ in the last digits from a step's figure.
    if float(task.candidates.value([found.chosen])) > float(task.candidates.value([plain])):
        return task.selection(found.chosen, found.steps, search=search, **more)
    return task.selection(plain, steps, search=search, **more)


def _float(task: SearchTask, bar: Any) -> _Visited:
    c, tol = task.candidates, task.options.tol
    chosen, steps = list(task.start), list[Step]()
    value = float(c.value([chosen]))
    found = _Visited(value, list(chosen), [])
    best_of_size = {len(chosen): value}
    seen = {frozenset(chosen)}  # no map leaves for a set that was seen, whatever rounding says: the search must end

    while len(chosen) < task.limit:
        (best,) = c.best([chosen], task.allowed[None])
        if not best.value > value + tol:
            break
        steps.append(task.step(best, value))
        chosen.append(best.position)
        value = best.value
        while True:
            best_of_size[len(chosen)] = max(value, best_of_size.get(len(chosen), -math.inf))
            if value > found.value and frozenset(chosen) not in seen:
                found = _Visited(value, list(chosen), list(steps))
            seen.add(frozenset(chosen))
            _show(bar, len(chosen), value)
            if len(chosen) < 3:
                break
            members = _members(task, [m for m in chosen if m not in task.start])
            (best,) = c.best([chosen], members[None], leaving=True)
            without = [m for m in chosen if m != best.position]
            # Where the map that has just joined does best to leave, the set without it has been seen.
            if not best.value > best_of_size[len(without)] + tol or frozenset(without) in seen:
                break
            steps.append(task.step(best, value, removed=True))
            chosen, value = without, best.value
    return found


def _eliminate(task: SearchTask, chosen: list[int], steps: list[Step], min_maps: int, bar: Any) -> _Visited:
    c, tol = task.candidates, task.options.tol
    value = highest = float(c.value([chosen])) if chosen else 0.0
    if not math.isfinite(value):
        raise InputError(
            "the criterion of start is undefined: one of its maps is not finite, or its combined score is constant "
            "or not finite; leave such maps out"
        )
    while len(chosen) > min_maps:
        members = _members(task, chosen)
        (best,) = c.best([chosen], members[None], leaving=True)
        without = [m for m in chosen if m != best.position]
        if best.position < 0:
            break
        # As in _not_worse_than_forward: what the result will report.
        best = best._replace(value=float(c.value([without])))
        if not best.value >= highest - tol:
            break
        steps.append(task.step(best, value, removed=True))
        chosen, value, highest = without, best.value, max(highest, best.value)
        bar.update()
    return _Visited(value, chosen, steps)


def _beam(task: SearchTask, width: int, bar: Any) -> _Visited:
    c, tol = task.candidates, task.options.tol
    found = _Visited(float(c.value([task.start])), task.start, [])
    beam, size = [found], len(task.start)
    while beam and size < task.limit:
        tried = c.tried([kept.chosen for kept in beam], task.allowed.expand(len(beam), -1))
        value = tried.values
        before = value.new_tensor([kept.value for kept in beam])
        gaining = torch.where(value > before[:, None] + tol, value, -math.inf).flatten()
        # A set can come from each of those kept, so among so many there are enough that differ.
        order = gaining.sort(descending=True, stable=True).indices[: width * len(beam)]
        rows = order // value.shape[1]
        grown: dict[frozenset[int], _Visited] = {}
        for row, best, gains in zip(
            rows.tolist(), tried.ranked(rows, order % value.shape[1]), gaining[order].isfinite().tolist(), strict=True
        ):
            if gains and len(grown) < width:
                kept = beam[row]
                chosen = [*kept.chosen, best.position]
                step = task.step(best, kept.value)
                grown.setdefault(frozenset(chosen), _Visited(best.value, chosen, [*kept.steps, step]))
        beam, size = list(grown.values()), size + 1
        found = max([found, *beam], key=lambda kept: kept.value)
        if beam:
            _show(bar, size, beam[0].value)
    return found


def _members(task: SearchTask, chosen: list[int]) -> Tensor:
    """(M,) which maps are in a set."""
    members = torch.zeros_like(task.allowed)
    members[chosen] = True
    return members


def _show(bar: Any, maps: int, value: float) -> None:
    bar.update(maps - bar.n)
    bar.set_postfix(best=f"{value:.4f}")
