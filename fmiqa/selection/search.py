"""The machinery of a search: score every candidate map beside a set, confirm the best, take one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool, pool_scores
from fmiqa.selection.criteria import Objective

__all__ = ["Best", "Candidates"]

_CONFIRMED = 8  # candidates of a step whose fit is searched globally


class Best(NamedTuple):
    """The winner of a step and its runner-up: positions of maps and the criterion with each; -1 for none."""

    position: int
    value: float
    second: int
    second_value: float


class Candidates:
    """Maps as candidates for a set, on one weighting of the images.

    Args:
        values: (N, M) map scores, float64.
        targets: (N,) subjective scores, float64.
        maps: the M maps.
        objective: what is maximised.
        pool: how map scores are combined.
        counts: (N,) how often each image counts; all once by default.
    """

    def __init__(
        self,
        values: Tensor,
        targets: Tensor,
        maps: MapIndex,
        *,
        objective: Objective,
        pool: Pool = "mean",
        counts: Tensor | None = None,
    ) -> None:
        self.columns = values.T.contiguous()
        self.targets = targets
        self.maps = maps
        self.objective = objective
        self.pool = pool
        self.counts = torch.ones_like(targets) if counts is None else counts.to(targets.dtype)

    def value(self, chosen: Sequence[int]) -> float:
        """The criterion of a set."""
        return float(self.objective.exact(self.pooled(chosen)[None], self.targets, self.counts))

    def pooled(self, chosen: Sequence[int]) -> Tensor:
        """(N,) the combined score of a set."""
        return pool_scores(self.columns[list(chosen)].T, self.maps.at(chosen), pool=self.pool)

    def best(self, chosen: Sequence[int], allowed: Tensor) -> Best:
        """The map among `allowed` (M,) with which the set does best; ties go to the one that stands first."""
        positions = allowed.nonzero()[:, 0]
        combined = self.joined(chosen, positions)
        value = self.objective.quick(combined, self.targets, self.counts)
        if not self.objective.quick_is_exact:
            top = value.topk(min(_CONFIRMED, len(value))).indices
            exact = self.objective.exact(combined[top], self.targets, self.counts)
            value = value.index_copy(0, top, torch.maximum(exact, value[top]))
        first = int(value.argmax())
        best = float(value[first])
        value[first] = -math.inf
        second = int(value.argmax())
        if math.isinf(float(value[second])):
            return Best(int(positions[first]), best, -1, math.nan)
        return Best(int(positions[first]), best, int(positions[second]), float(value[second]))

    def joined(self, chosen: Sequence[int], candidates: Tensor) -> Tensor:
        """(K, N) the set's combined score with each of K candidates joined to it."""
        own = self.columns[candidates]
        if not chosen:
            return own
        members = self.columns[list(chosen)]
        if self.pool == "mean":
            return (own + members.sum(0)) / (len(chosen) + 1)
        layers = list(dict.fromkeys(m.layer for m in self.maps))
        layer_of = torch.tensor([layers.index(m.layer) for m in self.maps], device=own.device)
        home, at = layer_of[list(chosen)], layer_of[candidates]
        total = own.new_zeros(len(layers), own.shape[1]).index_add_(0, home, members)
        count = torch.bincount(home, minlength=len(layers)).to(own.dtype)[:, None]
        logs = torch.where(count > 0, total / count.clamp(min=1), 1.0).log()
        grown = ((total[at] + own) / (count[at] + 1)).log()
        present = (count > 0).sum() + (count[at] == 0)
        return ((logs.sum(0) - logs[at] + grown) / present).exp()
