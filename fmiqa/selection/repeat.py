"""A search repeated on many parts of the images, or on many sets of subjective scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._progress import progress_bar
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.budget import Budget, with_costs
from fmiqa.selection.engine import Candidates, climb
from fmiqa.selection.forward import forward_select, usable_in_all
from fmiqa.selection.options import SearchOptions
from fmiqa.selection.prior import dataset_rows, fitted_targets
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import counts_of

__all__ = ["Outcome", "Part", "Search", "extended", "repeat_search", "search_to_dict"]

Search = Callable[[ScoreMatrix], Selection]
"""A whole search: `forward_select`, `weighted_select`, or `functools.partial(beam_select, width=8)`."""

_BATCH = 32  # parts that forward selection advances together: their sets and scores are held in memory


class Part(NamedTuple):
    """What one search sees.

    Args:
        targets: (N,) subjective scores of all images, float64.
        rows: Positions of the images that the search sees; None stands for all images.
    """

    targets: Tensor
    rows: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search selected on one part.

    Args:
        maps: The selected maps in order.
        curve: (K,) the criterion in sample: of the first 1, 2, ... K maps under forward selection, whose sets grow
            map by map, and of the whole set alone (K = 1) under any other search.
        combined: A function from k = 1 ... K to the combined score (N,) of all images by that set.
        options: The options that the search recorded.
    """

    maps: MapIndex
    curve: Tensor
    combined: Callable[[int], Tensor]
    options: dict[str, Any]


def repeat_search(
    matrix: ScoreMatrix,
    parts: Sequence[Part],
    search: Search | None,
    options: SearchOptions,
    *,
    confirm: bool = True,
    progress: bool = False,
    unit: str = "part",
) -> list[Outcome]:
    """Run a search on each part.

    Args:
        matrix: The images and all candidate maps.
        parts: What each search sees.
        search: The search; None stands for forward selection, which advances all parts as one batch.
        options: The options of forward selection.
        confirm: Whether forward selection fits the best candidates of each step globally before one is taken.
        progress: Whether to show a progress bar.
        unit: What the progress bar calls a part.

    Raises:
        InputError: As the search raises it; options are given along with a search, which has its own; no map may
            join on some part.
    """
    if search is not None and search is not forward_select and options != SearchOptions():
        raise InputError(
            "options of the search are given along with a search of its own: give them to the search, as in "
            "functools.partial(fmiqa.beam_select, max_maps=8)"
        )
    found: list[Outcome] = []
    with progress_bar(show=progress, total=len(parts), desc="selecting", unit=f" {unit}s") as bar:
        if search is None or search is forward_select:
            outcomes = _forward(matrix, parts, options, confirm)
        else:
            outcomes = (_any(matrix, part, search) for part in parts)
        for outcome in outcomes:
            found.append(outcome)
            bar.update()
    return found


def search_to_dict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The options that all searches have in common, for the options of the result."""
    first = outcomes[0].options
    shared = {k: v for k, v in first.items() if all(o.options.get(k) == v for o in outcomes)}
    return {k: v for k, v in shared.items() if k not in ("images", "maps", "inner", "cost_share")}


def extended(curve: Tensor, size: int) -> Tensor:
    """A curve that keeps its last value up to a size."""
    return torch.cat([curve, curve[-1:].expand(size - len(curve))])


def _any(matrix: ScoreMatrix, part: Part, search: Search) -> Outcome:
    seen = replace(matrix, targets=part.targets)
    selection = search(seen if part.rows is None else seen.rows(part.rows))
    if not isinstance(selection, Selection):
        raise InputError(f"a search takes a ScoreMatrix and returns a Selection, got {type(selection).__name__}")
    curve = torch.tensor([selection.value], dtype=torch.float64, device="cpu")
    return Outcome(selection.maps, curve, lambda _: selection.combine(matrix), selection.options)


def _forward(matrix: ScoreMatrix, parts: Sequence[Part], options: SearchOptions, confirm: bool) -> Iterator[Outcome]:
    """Forward selection on all parts, a batch of them at a time."""
    options = with_costs(options, matrix)
    values, maps, budget = matrix.values, matrix.maps, Budget.of(matrix, options)
    start, excluded = maps.positions(options.start), maps.positions(options.exclude)
    limit = len(maps) if options.max_maps is None else options.max_maps
    recorded = {"search": "forward", **options.to_dict()}
    prior = options.prior_of(values)
    choices = torch.ones(1, len(maps), dtype=torch.bool, device=values.device) if budget is None else budget.choices
    for own, rows_of in _batches(matrix, parts, max(1, _BATCH // len(choices))):
        batch = [part for part in own for _ in choices]
        datasets = [rows for rows in rows_of for _ in choices]
        fitted = [
            fitted_targets(p.targets, prior, options.alpha, rows) for p, rows in zip(batch, datasets, strict=True)
        ]
        shared = all(targets is fitted[0] for targets in fitted)
        targets = fitted[0] if shared else torch.stack(fitted)
        several = len(datasets[0])
        everything = several == 1 and all(part.rows is None for part in batch)
        counts = None if everything else counts_of([r for rows in datasets for r in rows], len(matrix)).to(targets)
        candidates = Candidates(
            values,
            targets if shared else targets.repeat_interleave(several, 0),
            maps,
            objective=options.objective,
            pool=options.pool,
            counts=counts,
            confirm=confirm,
            datasets=several,
            across=options.across,
            budget=budget,
        )
        allowed = torch.stack(
            [usable_in_all(values, y, options.direction, rows) for y, rows in zip(fitted, datasets, strict=True)]
        )
        allowed[:, [*start, *excluded]] = False
        allowed &= choices.repeat(len(batch) // len(choices), 1)
        before = [candidates.value([start[:k]] * len(batch)).cpu() for k in range(1, len(start) + 1)]
        paths = climb(candidates, [start] * len(batch), allowed, max_maps=limit, tol=options.tol)
        for part in range(0, len(batch), len(choices)):
            b = max(range(part, part + len(choices)), key=lambda k: paths[k].values[-1:])
            path = paths[b]
            grown = torch.tensor(path.values, dtype=torch.float64, device="cpu")
            curve = torch.cat([*(value[b : b + 1] for value in before), grown])
            yield Outcome(maps.at(path.chosen), curve, _pooled(candidates, path.chosen), recorded)


def _batches(matrix: ScoreMatrix, parts: Sequence[Part], size: int) -> Iterator[tuple[list[Part], list[list[Tensor]]]]:
    """Up to `size` parts that have images of equally many data sets, with the positions of the images of each."""
    rows = [dataset_rows(matrix, part.rows) for part in parts]
    for _, alike in groupby(zip(parts, rows, strict=True), key=lambda each: len(each[1])):
        own = list(alike)
        for first in range(0, len(own), size):
            batch = own[first : first + size]
            yield [part for part, _ in batch], [datasets for _, datasets in batch]


def _pooled(candidates: Candidates, chosen: list[int]) -> Callable[[int], Tensor]:
    return lambda size: candidates.pooled(chosen[:size])
