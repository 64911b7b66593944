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
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from fmiqa._runtime.compiled import ahead, is_fusing
from fmiqa._runtime.distributed import largest, share
from fmiqa.correlation.portions import by_portions
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool, pool_scores
from fmiqa.selection.budget import Budget
from fmiqa.selection.criteria import Objective

__all__ = ["CONFIRMED", "Across", "Best", "Candidates", "Climbable", "Path", "Tried", "climb", "combined_across"]

Across = Literal["mean", "worst"]
"""How the criteria of several data sets are combined: their mean, or the lowest."""

CONFIRMED = 8
"""Candidates of a step whose fit is searched globally."""
_POINTS = {"eager": 2**18, "compiled": 2**19, "gpu": 2**24}  # of a portion of rows, which processes are dealt
_COPIED = 2**28  # map scores up to which they are laid out again, a map together
# Points of a step: on a CPU, at some 50 ns saved a point, compiling (40 s) takes less than the one step; on a GPU, at
# 8000 launches of 5 us saved a portion, less than some 20 steps.
_COMPILING_PAYS = 1e9


def combined_across(values: Tensor, across: Across, *, dim: int) -> Tensor:
    """Criteria of several data sets, which stand along `dim`, as one."""
    return values.mean(dim) if across == "mean" else values.amin(dim)


class Best(NamedTuple):
    """The winner of a step and its runner-up: positions of maps and the criterion with each; -1 for none."""

    position: int
    value: float
    second: int
    second_value: float
    tried: int  # how many maps there were


class Tried(NamedTuple):
    """What a step tried: a row for each set, a column for each map.

    Args:
        values: (S, M) the criterion; -inf for maps that were not tried, or without information.
        was_open: (S, M) which maps were tried.
    """

    values: Tensor
    was_open: Tensor

    def ranked(self, rows: Tensor | None = None, positions: Tensor | None = None) -> list[Best]:
        """The best map of each row, or those at some positions of some rows (R), and the best of the others there.

        Of equally good maps, the first is taken. All is read from the device at once.
        """
        values, was_open = self if rows is None else (self.values[rows], self.was_open[rows])
        position = (values.argmax(1) if positions is None else positions)[:, None]
        others = values.scatter(1, position, -math.inf)
        second = others.argmax(1, keepdim=True)
        tried = was_open.sum(1, keepdim=True)
        figures = (position, values.gather(1, position), second, others.gather(1, second), tried)
        return [_best(*row) for row in torch.cat([v.double() for v in figures], 1).tolist()]


def _best(position: float, value: float, second: float, second_value: float, tried: float) -> Best:
    if math.isinf(value):
        return Best(-1, value, -1, math.nan, int(tried))
    if math.isinf(second_value):
        return Best(int(position), value, -1, math.nan, int(tried))
    return Best(int(position), value, int(second), second_value, int(tried))


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
            self.images = self.counts = None
            self.targets = targets
        else:
            # Images of count 0 are left out; where problems differ in length, some of them stay as padding.
            counts = counts.to(targets.dtype).expand(self.problems, -1)
            length = int((counts > 0).sum(-1).max())
            self.images = (counts > 0).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :length]
            self.targets = targets.expand(self.problems, -1).gather(1, self.images)
            counts = counts.gather(1, self.images)
            self.counts = None if bool((counts == 1).all()) else counts
        layers = maps.layers
        self._layer = torch.tensor([layers.index(m.place) for m in maps], device=values.device)
        self._layers = len(layers)

    def pooled(self, chosen: Sequence[int]) -> Tensor:
        """(N,) the combined score of a set on all images."""
        return pool_scores(self._by_map[list(chosen)].T.double(), self.maps.at(chosen), pool=self.pool)

    def columns(self, positions: Tensor, problem: Tensor) -> Tensor:
        """(R, n) scores of maps on the images of their problems."""
        if self.images is None:
            return self._by_map.index_select(0, positions).double()
        if self.problems == 1:
            return self._by_map[positions][:, self.images[0]].double()
        return self._by_map[positions[:, None], self.images[problem]].double()

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

    def best(
        self,
        sets: Sequence[Sequence[int]],
        allowed: Tensor,
        *,
        searches: Sequence[int] | None = None,
        leaving: bool = False,
    ) -> list[Best]:
        """For each set, the map with which (`leaving`: without which) it does best, see `tried`.

        A set without candidates gets position -1.
        """
        return self.tried(sets, allowed, searches=searches, leaving=leaving).ranked()

    def tried(
        self,
        sets: Sequence[Sequence[int]],
        allowed: Tensor,
        *,
        searches: Sequence[int] | None = None,
        leaving: bool = False,
    ) -> Tried:
        """The criterion of each set with each map that may join it, or `leaving`, without each that may leave it.

        The operations and their shapes follow from the arguments, not from values on the device: it is not waited for.

        Args:
            sets: Positions of maps.
            allowed: (S, M) the maps that may join each set, members left out; or those of its members that may leave.
            searches: The search of each set; by default one each, or all of the one there is.
            leaving: Whether maps leave their set.
        """
        own = searches if searches is not None else range(self.searches) if self.searches > 1 else [0] * len(sets)
        problems = [search * self.datasets + k for search in own for k in range(self.datasets)]
        state = _State(self, [s for s in sets for _ in range(self.datasets)], problems)
        if not leaving:
            allowed = state.without_members(allowed, self.datasets)
            allowed = allowed if self.budget is None else allowed & self.budget.affordable(sets)
        row, candidate = self._pairs(allowed, state, leaving)
        with ahead(pays=len(row) * self.targets.shape[1] > _COMPILING_PAYS):
            found = self._evaluated(self.objective.quick, state, row, candidate, leaving)
            value = found.new_full((len(problems), allowed.shape[1]), -math.inf).index_put((row, candidate), found)
            combined = self._combined(value).masked_fill(~allowed, -math.inf)
            if self.confirm:
                combined = self._confirmed(combined, state, leaving)
        return Tried(combined, allowed)

    def _pairs(self, allowed: Tensor, state: _State, leaving: bool) -> tuple[Tensor, Tensor]:
        """(R,) rows of the state and maps to try with them; on a GPU more than are allowed, whose number it knows."""
        if allowed.is_cpu:
            row, candidate = allowed.repeat_interleave(self.datasets, 0).nonzero().unbind(1)
            return row, candidate
        every = torch.arange(allowed.shape[1], device=allowed.device)
        own = torch.where(state.members < 0, state.members[:, :1], state.members)  # the first again beyond a set
        return _paired(own if leaving else every.expand(len(own), -1))

    def _confirmed(self, combined: Tensor, state: _State, leaving: bool) -> Tensor:
        """The criteria (S, M), those of the best maps of each set by a fit that is searched globally."""
        top = combined.topk(min(CONFIRMED, combined.shape[1]), dim=1)
        candidates = top.indices.repeat_interleave(self.datasets, 0)
        found = self._evaluated(self.objective.exact, state, *_paired(candidates), leaving)
        exact = self._combined(found.view_as(candidates))
        return combined.scatter(1, top.indices, torch.where(top.values.isfinite(), exact, -math.inf))

    def joined(self, chosen: Sequence[int], candidates: Tensor) -> Tensor:
        """(K, n) the first problem's set with each of K candidates joined to it."""
        return _State(self, [chosen], [0]).joined(torch.zeros_like(candidates), candidates)

    def _evaluated(
        self,
        criterion: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        state: _State,
        row: Tensor,
        candidate: Tensor,
        leaving: bool,
    ) -> Tensor:
        """(R,) a criterion of each row's set with its candidate, in portions that are dealt to the processes.

        The portions do not depend on the number of processes: the last bits of a row depend on what it is
        computed together with.
        """
        value = self.targets.new_full(row.shape, -math.inf)
        kind = "gpu" if not self.targets.is_cpu else "compiled" if is_fusing() else "eager"
        rows = max(1, _POINTS[kind] // self.targets.shape[1])
        for start in share(range(0, len(row), rows)):
            part = row[start : start + rows], candidate[start : start + rows]
            problem = state.problem[part[0]]
            y = self.targets if len(self.targets) == 1 else self.targets[problem]
            counts = self.counts if self.counts is None or len(self.counts) == 1 else self.counts[problem]
            x = by_portions(lambda *own: state.joined(*own, leaving=leaving), *part, points=self.targets.shape[1])
            value[start : start + rows] = criterion(x, y, counts)
        return largest(value)


def _paired(candidates: Tensor) -> tuple[Tensor, Tensor]:
    """(S K,) the number of each candidate's set, and the candidate, of (S, K) candidates."""
    rows = torch.arange(len(candidates), device=candidates.device)[:, None].expand_as(candidates)
    return rows.flatten(), candidates.flatten()


class _State:
    """What the sets under construction contribute to a candidate's combined score.

    Args:
        candidates: The maps and problems.
        sets: Positions of maps.
        problems: The problem of each set.

    Attributes:
        problem: (S,) the problem of each set.
        members: (S, K) the positions of its maps; -1 beyond those that it has.
    """

    def __init__(self, candidates: Candidates, sets: Sequence[Sequence[int]], problems: Sequence[int]) -> None:
        self._c = c = candidates
        longest = max(map(len, sets))
        rows = [[p, *s, *[-1] * (longest - len(s))] for p, s in zip(problems, sets, strict=True)]
        table = torch.tensor(rows, device=c.targets.device)
        self.problem, self.members = table[:, 0], table[:, 1:]
        groups = 1 if c.pool == "mean" else c._layers
        if longest:
            points = longest * groups * c.targets.shape[1]
            self._total, self._count = by_portions(self._totals, self.members, self.problem, points=points)
        else:
            self._total = c.targets.new_zeros(len(sets), groups, c.targets.shape[1])
            self._count = c.targets.new_zeros(len(sets), groups)
        if c.pool != "mean":
            filled = self._count > 0
            means = self._total / self._count.clamp(min=1)[..., None]
            self._logs = torch.where(filled[..., None], means, 1.0).log()
            self._log_sum = self._logs.sum(1)
            self._filled = filled.sum(1)

    def without_members(self, allowed: Tensor, datasets: int) -> Tensor:
        """(S, M) the allowed maps that are not in their set; sets stand `datasets` times in a row."""
        members = self.members[::datasets]
        taken = allowed.new_zeros(len(allowed), allowed.shape[1] + 1)
        # What lies beyond a set goes to a column of its own.
        taken.scatter_(1, members.remainder(allowed.shape[1] + 1), True)
        return allowed & ~taken[:, :-1]

    def joined(self, row: Tensor, candidate: Tensor, *, leaving: bool = False) -> Tensor:
        """(R, n) the combined score of each row's set with its candidate, or `leaving`, without it."""
        c = self._c
        own = c.columns(candidate, self.problem[row])
        group = torch.zeros_like(candidate) if c.pool == "mean" else c._layer[candidate]
        sign = -1 if leaving else 1
        shared = c.pool == "mean" and len(self._total) == 1  # one set: its total is not copied for each row
        place = (slice(1), 0) if shared else (row, group)
        count = self._count[place][:, None]
        mean = torch.add(self._total[place], own, alpha=sign, out=own).div_(count + sign)
        if c.pool == "mean":
            return mean
        if leaving:  # the last map of a layer takes the layer with it
            mean = torch.where(count == 1, 1.0, mean)
        present = self._filled[row][:, None] + sign * (count == int(leaving))
        return ((self._log_sum[row] - self._logs[row, group] + mean.log()) / present).exp()

    def _totals(self, members: Tensor, problem: Tensor) -> tuple[Tensor, Tensor]:
        """(R, groups, n) the sums of the members' scores, one after another, and (R, groups) their number."""
        c, k = self._c, members.shape[1]
        own = c.columns(members.clamp(min=0).flatten(), problem.repeat_interleave(k)).unflatten(0, (-1, k))
        home = torch.zeros_like(members) if c.pool == "mean" else c._layer[members.clamp(min=0)]
        totals, numbers = [], []
        for group in range(1 if c.pool == "mean" else c._layers):
            here = (members >= 0) & (home == group)
            totals.append(torch.where(here[..., None], own, 0.0).cumsum(1)[:, -1])
            numbers.append(here.sum(1))
        return torch.stack(totals, 1), torch.stack(numbers, 1).to(own.dtype)


class Climbable(Protocol):
    """What `climb` asks of the candidates of one or more searches."""

    def value(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """(S,) the criterion of a set for each search; -inf for an empty one."""

    def best(
        self, sets: Sequence[Sequence[int]], allowed: Tensor, *, searches: Sequence[int] | None = None
    ) -> list[Best]:
        """For each set, the map that is no member, among `allowed` (S, M), with which it does best."""


def climb(
    candidates: Climbable,
    sets: Sequence[Sequence[int]],
    allowed: Tensor,
    *,
    max_maps: int,
    tol: float,
    on_step: Callable[[int, Best, float], object] | None = None,
) -> list[Path]:
    """Forward selection in every search at once (steps 5 to 8 of the paper).

    Args:
        candidates: The maps and problems.
        sets: (S) the positions that each set starts from.
        allowed: (S, M) which maps may join.
        max_maps: Stop a set at so many maps.
        tol: Stop a set when its best candidate gains no more than this.
        on_step: Called with search, step, and the value before it.
    """
    chosen = [list(s) for s in sets]
    value = candidates.value(chosen).tolist()
    curves: list[list[float]] = [[] for _ in chosen]
    growing = list(range(len(chosen)))
    while growing := [b for b in growing if len(chosen[b]) < max_maps]:
        own = allowed if len(growing) == len(chosen) else allowed[growing]
        found = candidates.best([chosen[b] for b in growing], own, searches=growing)
        steps = [(b, best) for b, best in zip(growing, found, strict=True) if best.value > value[b] + tol]
        for b, best in steps:
            if on_step is not None:
                on_step(b, best, value[b])
            value[b] = best.value
            chosen[b].append(best.position)
            curves[b].append(best.value)
        growing = [b for b, _ in steps]
    return [Path(s, c) for s, c in zip(chosen, curves, strict=True)]
