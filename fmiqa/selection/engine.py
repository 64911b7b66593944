"""The machinery of a search: every candidate map beside every set under construction, in one batch.

A problem is one weighting of the images with its targets: the whole data set, a fold's training part, a
bootstrap sample, a permutation of the scores. All problems of a run share the map scores, and advance step by
step together: candidates x problems are the rows of the same tensor operations. A search over several data sets has
a problem on each of them, and its set grows by the criteria of all. In a `torch.distributed` process group the problems
are dealt to the processes, and all go on with the same values (see `fmiqa.distributed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fmiqa._runtime.compiled import ahead, is_fusing
from fmiqa._runtime.distributed import largest, share
from fmiqa.correlation.portions import by_portions
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool, pool_scores
from fmiqa.selection.budget import Budget
from fmiqa.selection.criteria import Objective

__all__ = ["CONFIRMED", "Across", "Best", "Candidates", "Path", "climb", "combined_across", "ranked"]

Across = Literal["mean", "worst"]
"""How the criteria of several data sets are combined: their mean, or the lowest."""

CONFIRMED = 8
"""Candidates of a step whose fit is searched globally."""
_POINTS = {"eager": 2**18, "compiled": 2**19, "gpu": 2**24}  # of a portion of rows, which processes are dealt
_COPIED = 2**28  # map scores up to which they are laid out again, a map together
_COMPILING_PAYS = 1e9  # points of a step: at some 50 ns saved a point, compiling (40 s) takes less than the one step


def combined_across(values: Tensor, across: Across, *, dim: int) -> Tensor:
    """Criteria of several data sets, which stand along `dim`, as one."""
    return values.mean(dim) if across == "mean" else values.amin(dim)


class Best(NamedTuple):
    """The winner of a step and its runner-up: positions of maps and the criterion with each; -1 for none."""

    position: int
    value: float
    second: int
    second_value: float


class Path(NamedTuple):
    """How one problem's set grew: the positions of its maps, and the criterion after each step."""

    chosen: list[int]
    values: list[float]


class Candidates:
    """Maps as candidates, on B problems.

    Args:
        values: (N, M) map scores; computed with in float64, portion by portion. Very large ones stay where they
            are: in its file, if a matrix was loaded from one.
        targets: (N,) or (B, N) subjective scores, float64.
        maps: The M maps.
        objective: What is maximised.
        pool: How map scores are combined.
        counts: (B, N) how often each image counts in each problem; all once by default.
        confirm: Whether the best candidates of a step get a global fit before one is taken.
        datasets: How many problems in a row are the data sets of one search, which share a set of maps.
        across: How the criteria of these are combined.
        budget: What a set may cost, see `affordable`.
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
        confirm: bool = True,
        datasets: int = 1,
        across: Across = "mean",
        budget: Budget | None = None,
    ) -> None:
        self._by_map = values.T.contiguous() if values.numel() <= _COPIED else values.T
        self.maps = maps
        self.objective = objective
        self.pool = pool
        self.confirm = confirm and not objective.quick_is_exact
        self.budget = budget
        targets = targets.reshape(-1, values.shape[0])
        self.problems = max(len(targets), 1 if counts is None else len(counts))
        self.datasets = datasets
        self.searches = self.problems // datasets
        self.across = across
        if counts is None:
            self.images = None
            self.targets, self.counts = targets, torch.ones_like(targets[:1])
        else:
            # Images of count 0 are left out; where problems differ in length, some of them stay as padding.
            counts = counts.to(targets.dtype).expand(self.problems, -1)
            length = int((counts > 0).sum(-1).max())
            self.images = (counts > 0).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :length]
            self.targets = targets.expand(self.problems, -1).gather(1, self.images)
            self.counts = counts.gather(1, self.images)
        layers = maps.layers
        self._layer = torch.tensor([layers.index(m.place) for m in maps], device=values.device)
        self._layers = len(layers)

    def pooled(self, chosen: Sequence[int]) -> Tensor:
        """(N,) the combined score of a set on all images."""
        return pool_scores(self._by_map[list(chosen)].T.double(), self.maps.at(chosen), pool=self.pool)

    def columns(self, positions: Tensor, problem: Tensor | int) -> Tensor:
        """(R, n) scores of maps on the images of their problems, one for each or one for all."""
        if self.images is None:
            return self._by_map.index_select(0, positions).double()
        images = self.images[0 if self.problems == 1 else problem % self.problems]
        if images.ndim == 1:
            return self._by_map[positions][:, images].double()
        return self._by_map[positions[:, None], images].double()

    def value(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(S,) the criterion of a set for each search; -inf for an empty one."""
        if not any(len(s) for s in sets):
            return self.targets.new_full((self.searches,), -math.inf)
        x = torch.stack([self.pooled(s) for s in sets]).repeat_interleave(self.datasets, 0)
        x = x if self.images is None else x.gather(1, self.images)
        evaluate = self.objective.exact if self.confirm or self.objective.quick_is_exact else self.objective.quick
        return self._combined(evaluate(x, self.targets, self.counts))

    def _combined(self, values: Tensor) -> Tensor:
        """(S, ...) criteria of searches, of (S x datasets, ...) criteria on their data sets."""
        return combined_across(values.unflatten(0, (-1, self.datasets)), self.across, dim=1)

    def affordable(self, sets: Sequence[Sequence[int]], allowed: Tensor) -> Tensor:
        """(S, M) which of the maps that are allowed beside each set it can afford: all, where there is no budget."""
        return allowed if self.budget is None else allowed & self.budget.affordable(sets)

    def best(self, sets: Sequence[Sequence[int]], allowed: Tensor, *, leaving: bool = False) -> list[Best]:
        """For each search, the map among `allowed` (S, M) with which (`leaving`: without which) its set does best.

        Ties go to the map that stands first; a search without candidates gets position -1.
        """
        return [ranked(row, int(row.argmax())) for row in self.tried(sets, allowed, leaving=leaving)]

    def tried(self, sets: Sequence[Sequence[int]], allowed: Tensor, *, leaving: bool = False) -> Tensor:
        """(S, M) the criterion of each set with each map among `allowed` (S, M); -inf for the others.

        Args:
            sets: One for each search, or any number for a single search.
            allowed: The maps to try beside each set.
            leaving: Whether they are tried by leaving the set, of which they must be members.
        """
        allowed = allowed.repeat_interleave(self.datasets, 0)
        problem, candidate = allowed.nonzero().unbind(1)
        state = _State(self, [s for s in sets for _ in range(self.datasets)])
        value = self.targets.new_full(allowed.shape, -math.inf)
        with ahead(pays=len(problem) * self.targets.shape[1] > _COMPILING_PAYS):
            value[problem, candidate] = self._evaluated(self.objective.quick, state, problem, candidate, leaving)
        combined = self._combined(value)
        if self.confirm:
            top = combined.topk(min(CONFIRMED, value.shape[1]), dim=1)
            search, place = top.values.isfinite().nonzero().unbind(1)
            candidate = top.indices[search, place]
            each = torch.arange(self.datasets, device=search.device)
            problem = (search[:, None] * self.datasets + each).flatten()
            confirmed = self._evaluated(
                self.objective.exact, state, problem, candidate.repeat_interleave(self.datasets), leaving
            )
            combined[search, candidate] = self._combined(confirmed)
        return combined

    def joined(self, chosen: Sequence[int], candidates: Tensor) -> Tensor:
        """(K, n) the first problem's set with each of K candidates joined to it."""
        return _State(self, [chosen]).joined(torch.zeros_like(candidates), candidates)

    def _evaluated(
        self,
        criterion: Callable[[Tensor, Tensor, Tensor], Tensor],
        state: _State,
        problem: Tensor,
        candidate: Tensor,
        leaving: bool,
    ) -> Tensor:
        """(R,) a criterion of each row's set with its candidate, in portions that are dealt to the processes.

        The portions do not depend on the number of processes: the last bits of a row depend on what it is
        computed together with.
        """
        value = self.targets.new_full(problem.shape, -math.inf)
        kind = "gpu" if not self.targets.is_cpu else "compiled" if is_fusing() else "eager"
        rows = max(1, _POINTS[kind] // self.targets.shape[1])
        for start in share(range(0, len(problem), rows)):
            p, m = problem[start : start + rows], candidate[start : start + rows]
            y, counts = (v if len(v) == 1 else v[p % len(v)] for v in (self.targets, self.counts))
            x = by_portions(lambda *row: state.joined(*row, leaving=leaving), p, m, points=self.targets.shape[1])
            value[start : start + rows] = criterion(x, y, counts)
        return largest(value)


def ranked(values: Tensor, position: int) -> Best:
    """The map at a position of (M,) criteria, and the best of the others, the first of equals."""
    value = float(values[position])
    if math.isinf(value):
        return Best(-1, value, -1, math.nan)
    others = values.clone()
    others[position] = -math.inf
    second = int(others.argmax())
    runner_up = float(others[second])
    return Best(position, value, *((second, runner_up) if math.isfinite(runner_up) else (-1, math.nan)))


class _State:
    """What the sets under construction contribute to a candidate's combined score."""

    def __init__(self, candidates: Candidates, sets: Sequence[Sequence[int]]) -> None:
        self._c = c = candidates
        n = c.targets.shape[1]
        groups = 1 if c.pool == "mean" else c._layers
        self._total = c.targets.new_zeros(len(sets), groups, n)
        self._count = c.targets.new_zeros(len(sets), groups)
        for b, chosen in enumerate(sets):
            if not len(chosen):
                continue
            index = torch.tensor(list(chosen), device=c.targets.device)
            own = c.columns(index, b)
            home = torch.zeros_like(index) if c.pool == "mean" else c._layer[index]
            self._total[b].index_add_(0, home, own)
            self._count[b].index_add_(0, home, torch.ones_like(home, dtype=own.dtype))
        if c.pool != "mean":
            filled = self._count > 0
            means = self._total / self._count.clamp(min=1)[..., None]
            self._logs = torch.where(filled[..., None], means, 1.0).log()
            self._log_sum = self._logs.sum(1)
            self._filled = filled.sum(1)

    def joined(self, problem: Tensor, candidate: Tensor, *, leaving: bool = False) -> Tensor:
        """(R, n) the combined score of each row's set with its candidate, or `leaving`, without it."""
        c = self._c
        own = c.columns(candidate, problem)
        group = torch.zeros_like(candidate) if c.pool == "mean" else c._layer[candidate]
        sign = -1 if leaving else 1
        shared = c.pool == "mean" and len(self._total) == 1  # one set: its total is not copied for each row
        row = (slice(1), 0) if shared else (problem, group)
        count = self._count[row][:, None]
        mean = torch.add(self._total[row], own, alpha=sign, out=own).div_(count + sign)
        if c.pool == "mean":
            return mean
        if leaving:  # the last map of a layer takes the layer with it
            mean = torch.where(count == 1, 1.0, mean)
        present = self._filled[problem][:, None] + sign * (count == int(leaving))
        return ((self._log_sum[problem] - self._logs[problem, group] + mean.log()) / present).exp()


def climb(
    candidates: Candidates,
    sets: Sequence[Sequence[int]],
    allowed: Tensor,
    *,
    max_maps: int,
    tol: float,
    on_step: Callable[[int, Best, float, int], object] | None = None,
) -> list[Path]:
    """Forward selection in every search at once (steps 5 to 8 of the paper).

    Args:
        candidates: The maps and problems.
        sets: (S) the positions that each set starts from.
        allowed: (S, M) which maps may join.
        max_maps: Stop a set at so many maps.
        tol: Stop a set when its best candidate gains no more than this.
        on_step: Called with search, step, the value before it, and how many candidates there were.
    """
    allowed = allowed.clone()
    chosen = [list(s) for s in sets]
    value = candidates.value(chosen).tolist()
    curves: list[list[float]] = [[] for _ in chosen]
    growing = [True] * len(chosen)
    while any(growing):
        for b, s in enumerate(chosen):
            growing[b] = growing[b] and len(s) < max_maps
        open_to = allowed & torch.tensor(growing, device=allowed.device)[:, None]
        open_to = candidates.affordable(chosen, open_to)
        if not bool(open_to.any()):
            break
        for b, best in enumerate(candidates.best(chosen, open_to)):
            if not growing[b]:
                continue
            if best.position < 0 or not best.value > value[b] + tol:
                growing[b] = False
                continue
            if on_step is not None:
                on_step(b, best, value[b], int(open_to[b].sum()))
            value[b] = best.value
            chosen[b].append(best.position)
            curves[b].append(best.value)
            allowed[b, best.position] = False
    return [Path(s, c) for s, c in zip(chosen, curves, strict=True)]
