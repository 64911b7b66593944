"""A budget of cost: which maps a set can still afford, layers being paid once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.features.cost import Costs

if TYPE_CHECKING:
    from fmiqa.maps import MapIndex
    from fmiqa.scoring.matrix import ScoreMatrix
    from fmiqa.selection.options import SearchOptions

__all__ = ["Budget", "with_costs"]

_MOST_CHOICES = 16  # searches that one search may become
_MOST_SEEN = 1000  # sets of layers that are looked at for these


class Budget:
    """What a search may spend: maps of a layer are affordable or not together.

    Args:
        costs: What sets of maps cost.
        share: The largest share of `costs.all`.
        maps: The M candidates, all of layers that `costs` knows.
        start: The maps that are in the set from the beginning.
        device: Where the candidates' scores are.

    Raises:
        InputError: The budget does not pay for the start, or, without one, for any layer.
    """

    def __init__(
        self, costs: Costs, share: float, maps: MapIndex, *, start: MapIndex, device: torch.device | str
    ) -> None:
        self._costs, self._share, layers = costs, share, maps.layers
        self._needs = [frozenset(costs.needs[layer]) for layer in layers]
        place = {layer: i for i, layer in enumerate(layers)}
        self._places = [place[m.place] for m in maps]
        self._layer = torch.tensor(self._places, device=device)
        self._start = self._paid(maps.positions(start))
        self._known: dict[frozenset[str], list[bool]] = {}
        needed = costs.share(start)
        if needed > share:
            raise InputError(f"the maps in start take {needed:.4g} of what all maps cost, more than budget={share:g}")
        if not any(self._beside(self._start)):
            cheapest = min(layers, key=lambda layer: costs.of_layers([layer]))
            least = costs.of_layers([cheapest]) / costs.all
            raise InputError(
                f"budget={share:g} pays for no map: those of {cheapest}, the cheapest layer, take {least:.4g} of what "
                "all maps cost; give a larger budget"
            )

    @classmethod
    def of(cls, matrix: ScoreMatrix, options: SearchOptions) -> Budget | None:
        """The budget of a search, if it has one; its options are those that `with_costs` gave."""
        if options.budget is None or options.costs is None:
            return None
        start = matrix.maps.at(matrix.maps.positions(options.start))
        return cls(options.costs, options.budget, matrix.maps, start=start, device=matrix.values.device)

    def affordable(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(S, M) which maps each of S sets, positions of maps, can afford; those of layers that it has, always."""
        is_open = [self._beside(self._paid(chosen)) for chosen in sets]
        return torch.tensor(is_open, device=self._layer.device)[:, self._layer]

    @cached_property
    def choices(self) -> Tensor:
        """(K, M) the maps of each of the K largest sets of layers that are affordable beside the start.

        A greedy search can spend badly: on a layer that is best at first and leaves no room for others. The best of
        the searches within each of these sets is never worse than the one search among all maps, which stays within
        one of them and finds what the search there finds. Where they are more than 16, there is one choice: all maps.
        """
        largest: list[Tensor] = []
        seen, found = {self._start}, [self._start]
        while found:
            paid = found.pop()
            is_open = self._beside(paid)
            dearer = {paid | needs for needs, is_one in zip(self._needs, is_open, strict=True) if is_one} - {paid}
            if not dearer:
                largest.append(self._maps_of(is_open))
            found += dearer - seen
            seen |= dearer
            if len(largest) > _MOST_CHOICES or len(seen) > _MOST_SEEN:
                return torch.ones_like(self._layer, dtype=torch.bool)[None]
        return torch.stack(largest)

    def _paid(self, chosen: Iterable[int]) -> frozenset[str]:
        """The parts that run for a set of maps."""
        return frozenset[str]().union(*(self._needs[self._places[m]] for m in chosen))

    def _beside(self, paid: frozenset[str]) -> list[bool]:
        """(L) which layers are affordable where some parts are paid."""
        if paid not in self._known:
            parts, every = self._costs.parts, self._costs.all
            costs = [math.fsum(parts[part] for part in paid | needs) for needs in self._needs]
            self._known[paid] = [cost / every <= self._share for cost in costs]
        return self._known[paid]

    def _maps_of(self, is_open: list[bool]) -> Tensor:
        """(M,) the maps of some of the layers."""
        return torch.tensor(is_open, device=self._layer.device)[self._layer]


def with_costs(options: SearchOptions, matrix: ScoreMatrix) -> SearchOptions:
    """The options with the costs that a budget is a share of: by default, the multiplications for the matrix.

    Raises:
        InputError: There is a budget without costs, and the matrix does not say what its maps cost; or costs are given
            that lack one of its layers.
    """
    if options.costs is not None:
        options.costs.of(matrix.maps)
    elif options.budget is not None:
        options = replace(options, costs=Costs.of_matrix(matrix))
    return options
