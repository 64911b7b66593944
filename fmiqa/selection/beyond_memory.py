"""Forward selection on score matrices that are larger than memory.

By the plain correlation (`fit=None`), one pass over the images gives the Gram matrix of the maps, see
`fmiqa.selection.gram`, and the search needs no image any more: it selects what it would select in memory.

By a fitted correlation, each step ranks all candidates on a sample of the images, drawn evenly along the subjective
scores, and fits the best of them again on all images, in the order of the sample, until the next is out of reach: by
four standard deviations of what all images changed so far. All values that are reported are those on all images. A poor
sample costs time: the more it errs, the more candidates are fitted again, all of them in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa.errors import InputError
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.engine import Best, climb
from fmiqa.selection.forward import (
    as_matrix,
    fit_of,
    forward_select,
    joinable,
    largest_set,
    source_of,
    step_bar,
    step_of,
)
from fmiqa.selection.gram import LinearCandidates, grams_of, target_weights
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.repeat import Outcome
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.sampled import SampledCandidates
from fmiqa.selection.splits import Split

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SAMPLE", "fold_outcomes", "forward_select_store"]

SAMPLE = 20_000
"""Images on which all candidates of a step are ranked, unless more are asked for."""
_RETRIED = 32


@flat_keywords
def forward_select_store(
    store: ScoreStore,
    targets: Tensor | None = None,
    *,
    options: SearchOptions | None = None,
    sample: int = SAMPLE,
    retried: int = _RETRIED,
    device: torch.device | str = "cpu",
    callback: Callable[[Step], object] | None = None,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Selection:
    """`forward_select` on a store, which is what `forward_select(store)` calls, with the options that only this has.

    For N images and M maps it takes some 1000 N bytes for a logistic fit, 82,000 M for a block of images, and with
    `fit=None` 8 M^2 for the Gram matrix; otherwise, 4 M for each image of the sample, and 4 N for each map that is
    selected or fitted again at a time.

    Args:
        store: The scores.
        targets: (N,) subjective scores, higher = better; by default those of the store.
        options: As of `forward_select`. The criterion is `"plcc"` and the pooling `"mean"`; there is no budget.
        sample: With a fit, the number of images on which all candidates of a step are ranked. A store of no more
            images is loaded and searched in memory.
        retried: With a fit, how many of the best candidates are fitted again on all images at a time.
        device: Where correlations are computed.
        callback: A function that is called after each step with its `Step`.
        progress: Whether to show progress bars.
        keywords: The fields of `SearchOptions`, such as `max_maps=10`.

    Returns:
        The selection. With a fit, runner-ups are the best of those fitted again, and `options["sampled"]` has the
        number of images in the sample and for each step the winner's place among the candidates by the sample
        (`places`), how many were fitted again (`retried`), and by how many standard deviations the next was out of
        reach (`margins`; None where all were fitted again).

    Raises:
        InputError: As in `forward_select`; an option is not to be had beyond memory, or the store holds several data
            sets.
        FileFormatError: A block of the store is missing or damaged.

    Example:
        >>> import tempfile
        >>> from fmiqa import MapIndex, ScoreMatrix
        >>> generator = torch.Generator().manual_seed(0)
        >>> targets = torch.linspace(0, 1, 60).double()
        >>> values = torch.rand(60, 5, generator=generator)
        >>> values[:, 3] = targets + 0.2 * values[:, 1]
        >>> names = [str(i) for i in range(60)]
        >>> scores = ScoreMatrix(values, MapIndex.of_layers({"map": 5}), targets, names, names)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     forward_select_store(scores.to_store(f"{folder}/scores"), fit=None, max_maps=1).maps
        MapIndex(['map:3'])
    """
    chosen = SearchOptions.of(options, keywords)
    for name, value in {"sample": sample, "retried": retried}.items():
        if not is_count(value):
            raise InputError(f"{name} is a whole number from 1, got {value!r}")
    _check_options(chosen)
    fits = chosen.fit is not None
    if fits and len(store) <= sample:
        return forward_select(store.load(), targets, options=chosen, callback=callback, progress=progress)
    if chosen.costs is not None:
        chosen.costs.of(store.maps)
    images = as_matrix(store.columns([]), targets, chosen)  # without any map
    _check_datasets(images)
    where = torch.device(device)
    candidates: SampledCandidates | LinearCandidates
    if fits:
        candidates = SampledCandidates.of(store, images.targets, chosen, sample, retried, where, progress)
    else:
        known = bool(images.targets.isfinite().all())
        (gram,) = grams_of(store, images.targets.nan_to_num(nan=0.0), device=where, progress=progress)
        candidates = LinearCandidates(gram, target_weights(gram, chosen, known=known), chosen.direction)
    start, allowed = joinable(candidates.usable, store.maps, chosen)
    limit = largest_set(start, allowed, chosen)
    steps: list[Step] = []
    with step_bar(progress, limit) as bar:

        def on_step(_: int, best: Best, before: float) -> None:
            steps.append(step_of(store.maps, best, before))
            bar.update()
            bar.set_postfix(map=str(steps[-1].map), plcc=f"{best.value:.4f}")
            if callback is not None:
                callback(steps[-1])

        (path,) = climb(candidates, [start], allowed[None], max_maps=limit, tol=chosen.tol, on_step=on_step)
    selected = path.chosen
    if not selected:
        raise InputError("no map agrees with the targets at all: every candidate's criterion is undefined")
    maps = store.maps.at(selected)
    combined = store.values_of(selected).mean(1, dtype=torch.float64)
    more = {} if chosen.costs is None else {"cost_share": chosen.costs.share(maps)}
    return Selection(
        maps=maps,
        steps=tuple(steps),
        value=float(candidates.value([selected])),
        options={
            "search": "forward",
            **chosen.to_dict(),
            **more,
            **candidates.record,
            "images": len(store),
            "maps": len(store.maps),
        },
        source=source_of(images),
        fit=fit_of(combined, images.targets, [torch.arange(len(store), device="cpu")], chosen),
    )


def _check_options(options: SearchOptions) -> None:
    """Raise `InputError` where an option needs all scores in memory."""
    refused = {
        "criterion": options.criterion if options.criterion != "plcc" else None,
        "pool": options.pool if options.pool != "mean" else None,
        "budget": options.budget,
    }
    given = [f"{name}={value!r}" for name, value in refused.items() if value is not None]
    if given:
        raise InputError(
            f"a search beyond memory has criterion='plcc', pool='mean' and no budget, got {', '.join(given)}; "
            "give store.load(), where it fits into memory, or some of it: store.rows(positions), store.columns(maps)"
        )


def _check_datasets(images: ScoreMatrix) -> None:
    if images.datasets is not None and len(set(images.datasets)) > 1:
        raise InputError("several data sets in one store are not searched beyond memory; give store.load()")


def fold_outcomes(
    store: ScoreStore, images: ScoreMatrix, splits: Sequence[Split], options: SearchOptions, *, progress: bool = False
) -> list[Outcome]:
    """What forward selection by the plain correlation selects where each fold in turn is left out, in one pass.

    What was summed over a fold is subtracted from the sums over all images. A map that is not finite on some image
    joins in no fold. Each fold takes 8 M^2 bytes.

    Args:
        store: The scores.
        images: The images without any map, with the targets to use.
        splits: Folds, which hold out each image exactly once.
        options: The options of forward selection, with `fit=None`.
        progress: Whether to show a progress bar.

    Raises:
        InputError: An option is not to be had beyond memory, or the splits are no folds.
    """
    _check_options(options)
    if options.fit is not None:
        raise InputError(
            f"a store is validated by the plain correlation, fit=None, got fit={options.fit!r}; give store.load(), "
            "where it fits into memory, or some of it: store.rows(positions), store.columns(maps)"
        )
    _check_datasets(images)
    held = torch.cat([split.held_out for split in splits]).sort().values
    whole = all(len(split.train) + len(split.held_out) == len(store) for split in splits)
    if not whole or not torch.equal(held, torch.arange(len(store), device="cpu")):
        raise InputError("a store is validated on folds that hold out each image exactly once; give repeats=1")
    folds = torch.empty(len(store), dtype=torch.long, device="cpu")
    for number, split in enumerate(splits):
        folds[split.held_out] = number
    parts = grams_of(store, images.targets, folds, progress=progress)
    total = reduce(add, parts)
    outcomes = []
    for number, part in enumerate(parts):
        gram = total.without(part, parts[:number] + parts[number + 1 :])
        weights = target_weights(gram, options, known=True, finite=total.finite)
        candidates = LinearCandidates(gram, weights, options.direction)
        start, allowed = joinable(candidates.usable & total.finite.cpu(), store.maps, options)
        limit = largest_set(start, allowed, options)
        (path,) = climb(candidates, [start], allowed[None], max_maps=limit, tol=options.tol)
        chosen = path.chosen
        curve = candidates.value([chosen[:size] for size in range(1, len(chosen) + 1)])
        recorded = {"search": "forward", **options.to_dict()}
        outcomes.append(Outcome(store.maps.at(chosen), curve, _combined(store.values_of(chosen)), recorded))
    return outcomes


def _combined(values: Tensor) -> Callable[[int], Tensor]:
    return lambda size: values[:, :size].mean(1, dtype=torch.float64)
