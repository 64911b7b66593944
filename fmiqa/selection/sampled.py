"""A search by a fitted correlation on a store: candidates are ranked on a sample, the best again on all images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fmiqa.maps import MapIndex
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.criteria import Objective
from fmiqa.selection.engine import CONFIRMED, Best, Candidates, Tried
from fmiqa.selection.options import SearchOptions
from fmiqa.selection.prior import fitted_targets
from fmiqa.selection.survey import stored_consensus, stratified, survey

__all__ = ["SampledCandidates"]

_MARGIN = 4.0  # standard deviations by which candidates that are not fitted again are out of reach


class SampledCandidates:
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
    ) -> SampledCandidates:
        """Draw the sample, and find out which maps may join."""
        every = torch.arange(len(store), device="cpu")
        prior = None if options.prior is None else stored_consensus(store, progress)
        fitted = fitted_targets(targets, prior, options.alpha, [every])
        rows = stratified(fitted, sample)
        values, usable = survey(store, fitted, rows, options.direction, progress)
        return cls(store, fitted, rows, values, usable, objective=options.objective, retried=retried, device=device)

    def value(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(1,) the criterion of the one set on all images; -inf for an empty one."""
        (chosen,) = sets
        if not len(chosen):
            return torch.tensor([-math.inf], dtype=torch.float64, device="cpu")
        return self._of_all(chosen, confirm=True).value([range(len(chosen))])

    def best(
        self, sets: Sequence[Sequence[int]], allowed: Tensor, *, searches: Sequence[int] | None = None
    ) -> list[Best]:
        """The map that is no member, among `allowed` (1, M), with which the one set does best on all images."""
        (chosen,) = sets
        near, is_open = (part[0].cpu() for part in self._sample.tried(sets, allowed.to(self._device)))
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
        (winner,) = Tried(values[None], is_open[None]).ranked()
        if winner.position >= 0:
            place = 1 + int((order == winner.position).nonzero()[0])
            for name, found in (("places", place), ("retried", last), ("margins", margin)):
                self.record["sampled"][name].append(found if math.isfinite(found) else None)
        return [winner]

    def _tried_on_all(self, chosen: Sequence[int], again: Tensor, *, confirm: bool) -> Tensor:
        """(K,) the criterion on all images of a set with each of the maps at K positions."""
        every = self._of_all([*chosen, *again.tolist()], confirm=confirm)
        allowed = torch.arange(len(every.maps), device=self._device) >= len(chosen)
        return every.tried([range(len(chosen))], allowed[None]).values[0, len(chosen) :].cpu()

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
