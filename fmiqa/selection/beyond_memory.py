"""Forward selection on score matrices that are larger than memory.

By the plain correlation (`fit=None`), one pass over the images gives the Gram matrix of the maps, see
`fmiqa.selection.gram`, and the search needs no image any more: it selects what it would select in memory.

By a fitted correlation, each step ranks all candidates on a sample of the images, drawn evenly along the subjective
scores, and fits the best of them again on all images, in the order of the sample, until the next is out of reach: by
four standard deviations of what all images changed so far. All values that are reported are those on all images. A poor
sample costs time: the more it errs, the more candidates are fitted again, all of them in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import CONFIRMED, Best, Candidates, ranked
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
from fmiqa.selection.prior import fitted_targets
from fmiqa.selection.result import Selection, Step
from fmiqa.selection.survey import stored_consensus, stratified, survey

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SAMPLE", "forward_select_store"]

SAMPLE = 20_000
"""Images on which all candidates of a step are ranked, unless more are asked for."""
_RETRIED = 32
_MARGIN = 4.0  # standard deviations by which candidates that are not fitted again are out of reach


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

    With n images in the sample and M maps it takes some 12 n M bytes, or with `fit=None` 24 M^2 bytes, beside a block
    of images and, for N images, 4 N bytes for each map that is selected or fitted again and some 400 N bytes more.

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
    if images.datasets is not None and len(set(images.datasets)) > 1:
        raise InputError("several data sets in one store are not searched beyond memory; give store.load()")
    where = torch.device(device)
    candidates: _Candidates
    if fits:
        candidates = _Sampled.of(store, images.targets, chosen, sample, retried, where, progress)
    else:
        candidates = _Linear.of(store, images.targets, chosen, where, progress)
    start, allowed = joinable(candidates.usable, store.maps, chosen)
    limit = largest_set(start, allowed, chosen)
    steps: list[Step] = []
    with step_bar(progress, limit) as bar:

        def on_step(best: Best, before: float, tried: int) -> None:
            steps.append(step_of(store.maps, best, before, tried))
            bar.update()
            bar.set_postfix(map=str(steps[-1].map), plcc=f"{best.value:.4f}")
            if callback is not None:
                callback(steps[-1])

        selected = grow(candidates, start, allowed, limit=limit, tol=chosen.tol, on_step=on_step)
    if not selected:
        raise InputError("no map agrees with the targets at all: every candidate's criterion is undefined")
    maps = store.maps.at(selected)
    combined = store.values_of(selected).mean(1, dtype=torch.float64)
    more = {} if chosen.costs is None else {"cost_share": chosen.costs.share(maps)}
    return Selection(
        maps=maps,
        steps=tuple(steps),
        value=candidates.value(selected),
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


class _Candidates(Protocol):
    """What the search asks for."""

    usable: Tensor
    """(M,) which maps may join a set."""
    record: dict[str, Any]
    """What the result's options say of how it was searched."""

    def value(self, chosen: Sequence[int]) -> float:
        """The criterion of a set; -inf for an empty one."""

    def best(self, chosen: Sequence[int], allowed: Tensor) -> Best:
        """The map among `allowed` (M,) with which a set does best."""


def grow(
    candidates: _Candidates,
    start: Sequence[int],
    allowed: Tensor,
    *,
    limit: int,
    tol: float,
    on_step: Callable[[Best, float, int], object],
) -> list[int]:
    """Forward selection of one set (steps 5 to 8 of the paper).

    Args:
        candidates: The maps.
        start: The positions that the set starts from.
        allowed: (M,) which maps may join.
        limit: Stop at so many maps.
        tol: Stop where the best candidate gains no more than this.
        on_step: Called with each step, the value before it, and how many candidates there were.
    """
    chosen, allowed = list(start), allowed.clone()
    value = candidates.value(chosen)
    while len(chosen) < limit and bool(allowed.any()):
        best = candidates.best(chosen, allowed)
        if best.position < 0 or not best.value > value + tol:
            break
        on_step(best, value, int(allowed.sum()))
        chosen.append(best.position)
        allowed[best.position] = False
        value = best.value
    return chosen


class _Linear(LinearCandidates):
    """Candidates by the plain correlation, which need one pass over the images."""

    record: dict[str, Any]
    usable: Tensor

    @classmethod
    def of(
        cls, store: ScoreStore, targets: Tensor, options: SearchOptions, device: torch.device, progress: bool
    ) -> _Linear:
        known = bool(targets.isfinite().all())
        (gram,) = grams_of(store, targets.nan_to_num(nan=0.0), device=device, progress=progress)
        found = cls(gram, target_weights(gram, options, known=known))
        found.usable = (gram.varying & (found.agreement > 0 if options.direction == "rising" else True)).cpu()
        found.record = {}
        return found


class _Sampled:
    """Candidates by a fitted correlation: ranked on a sample of the images, the best of them again on all.

    Args:
        store: The scores of all images.
        fitted: (N,) what is fitted.
        rows: (n,) the positions of the sample.
        values: (n, M) its scores.
        usable: (M,) which maps may join a set.
        objective: What is maximised.
        retried: How many candidates are fitted again at a time.
        device: Where it is computed.
    """

    def __init__(
        self,
        store: ScoreStore,
        fitted: Tensor,
        rows: Tensor,
        values: Tensor,
        usable: Tensor,
        *,
        objective: Objective,
        retried: int,
        device: torch.device,
    ) -> None:
        self.usable = usable
        self._store, self._objective, self._retried, self._device = store, objective, retried, device
        self._fitted = fitted.to(device)
        self._sample = self._candidates(values, fitted[rows].to(device), store.maps, confirm=False)
        self.record: dict[str, Any] = {"sampled": {"images": len(rows), "places": [], "retried": [], "margins": []}}

    @classmethod
    def of(
        cls,
        store: ScoreStore,
        targets: Tensor,
        options: SearchOptions,
        sample: int,
        retried: int,
        device: torch.device,
        progress: bool,
    ) -> _Sampled:
        """Draw the sample, and find out which maps may join."""
        every = torch.arange(len(store), device="cpu")
        prior = None if options.prior is None else stored_consensus(store, progress)
        fitted = fitted_targets(targets, prior, options.alpha, [every])
        rows = stratified(fitted, sample)
        values, usable = survey(store, fitted, rows, options.direction, progress)
        return cls(store, fitted, rows, values, usable, objective=options.objective, retried=retried, device=device)

    def value(self, chosen: Sequence[int]) -> float:
        """The criterion of a set on all images; -inf for an empty one."""
        if not len(chosen):
            return -math.inf
        return float(self._of_all(chosen, confirm=True).value([range(len(chosen))]))

    def best(self, chosen: Sequence[int], allowed: Tensor) -> Best:
        """The map among `allowed` (M,) with which a set does best on all images."""
        near = self._sample.tried([chosen], allowed[None].to(self._device))[0].cpu()
        order = near.argsort(descending=True, stable=True)[: int(near.isfinite().sum())]
        values = torch.full_like(near, -math.inf)
        last, margin = 0, 0.0
        while last < len(order) and margin < _MARGIN:
            again = order[last : last + self._retried]
            values[again] = self._tried_on_all(chosen, again, confirm=False)
            last += len(again)
            margin = _margin(near, values, order, last)
        if not self._objective.quick_is_exact:
            best = values.topk(min(CONFIRMED, last)).indices.sort().values
            values[best] = self._tried_on_all(chosen, best, confirm=True)
        winner = ranked(values, int(values.argmax()))
        if winner.position >= 0:
            place = 1 + int((order == winner.position).nonzero()[0])
            for name, found in (("places", place), ("retried", last), ("margins", margin)):
                self.record["sampled"][name].append(found if math.isfinite(found) else None)
        return winner

    def _tried_on_all(self, chosen: Sequence[int], again: Tensor, *, confirm: bool) -> Tensor:
        """(K,) the criterion on all images of a set with each of the maps at K positions."""
        every = self._of_all([*chosen, *again.tolist()], confirm=confirm)
        allowed = torch.arange(len(every.maps), device=self._device) >= len(chosen)
        return every.tried([range(len(chosen))], allowed[None])[0, len(chosen) :].cpu()

    def _of_all(self, positions: Sequence[int], *, confirm: bool) -> Candidates:
        """Some of the maps, on all images."""
        values, maps = self._store.values_of(positions), self._store.maps.at(positions)
        return self._candidates(values, self._fitted, maps, confirm=confirm)

    def _candidates(self, values: Tensor, fitted: Tensor, maps: MapIndex, *, confirm: bool) -> Candidates:
        return Candidates(values.to(self._device), fitted, maps, objective=self._objective, confirm=confirm)


def _margin(near: Tensor, values: Tensor, order: Tensor, last: int) -> float:
    """How far the next candidate is out of reach, in standard deviations.

    The values of the first candidates on all images differ from those on the sample by a mean and a standard deviation.
    With this mean, the next candidate stays below the best by the margin.

    Args:
        near: (M,) values on the sample.
        values: (M,) values on all images, of the first `last` candidates in `order`.
        order: The candidates by their values on the sample.
        last: How many are known on all images.
    """
    if last == len(order):
        return math.inf
    first = order[:last]
    first = first[values[first].isfinite()]
    change = values[first] - near[first]
    if len(first) < 2:
        return 0.0
    return float((values.max() - near[order[last]] - change.mean()) / change.std().clamp(min=1e-12))
