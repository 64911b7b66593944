"""Is there anything in a selection? Its permutation null, and how stable its maps are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa._plotting import BLUE, ORANGE, SKY, axes
from fmiqa._progress import progress_bar
from fmiqa.correlation import Form
from fmiqa.correlation.bootstrap import group_numbers
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.criteria import Criterion, Objective
from fmiqa.selection.engine import Candidates, climb
from fmiqa.selection.forward import Direction, read_scores, usable
from fmiqa.selection.splits import counts_of, grouped_subsamples
from fmiqa.selection.stability import Stability, selection_frequency, stability
from fmiqa.selection.validation import groups_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["PermutationNull", "StabilitySelection", "permutation_null", "stability_selection"]

_BATCH = 32  # problems that advance together: their sets and values are held in memory


@dataclass(frozen=True, eq=False)
class PermutationNull:
    """The criterion that the whole procedure reaches on scores that have nothing to do with the images.

    Args:
        maps: the maps chosen on the real scores.
        observed: (K,) the criterion after each step on the real scores; a search that stops keeps its last value.
        null: (B, K) the same on permuted scores.
        options: how it was run.
    """

    maps: MapIndex
    observed: Tensor
    null: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def p_steps(self) -> Tensor:
        """(K,) p-value of a set of up to k maps: the share of permutations that reach as much in as many steps."""
        return (1 + (self.null >= self.observed - 1e-12).sum(0)).double() / (1 + len(self.null))

    @property
    def p_value(self) -> float:
        """p-value of the whole search, each with its own stopping."""
        return float(self.p_steps[-1])

    def evidence(self, level: float = 0.05) -> bool:
        """Whether the set does better than chance at this level."""
        return self.p_value <= level

    def __str__(self) -> str:
        null = self.null[:, -1]
        return (
            f"{len(self.maps)} maps reach {self.observed[-1]:.4f}; on {len(null)} permutations of the scores within "
            f"groups the same search reaches {null.mean():.4f} on average, {null.max():.4f} at most: "
            f"p = {self.p_value:.4g} ({'evidence' if self.evidence() else 'no evidence'} at .05)"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the null's distribution and the observed criterion of the whole set."""
        ax = axes(ax, height=3.2)
        ax.hist(self.null[:, -1].tolist(), bins=30, color=SKY, label="scores permuted within groups")
        ax.axvline(float(self.observed[-1]), color=ORANGE, label=f"real scores (p = {self.p_value:.3g})")
        ax.set_xlabel("criterion of the selected set (in sample)")
        ax.set_ylabel("permutations")
        ax.legend(fontsize=8)
        return ax


@dataclass(frozen=True, eq=False)
class StabilitySelection:
    """Which maps are chosen again and again on subsamples of the references.

    Args:
        maps: all candidate maps.
        selected: the maps chosen on each subsample, in order.
        frequency: (M,) the share of subsamples that chose each map.
        stability: Nogueira's estimate with its interval.
        options: how it was run.
    """

    maps: MapIndex
    selected: tuple[MapIndex, ...]
    frequency: Tensor
    stability: Stability
    options: dict[str, Any] = field(default_factory=dict)

    def stable(self, threshold: float = 0.5) -> MapIndex:
        """The maps chosen in at least this share of subsamples, most frequent first."""
        order = self.frequency.argsort(descending=True, stable=True)
        return self.maps.at(i for i in order.tolist() if self.frequency[i] >= threshold)

    def plot(self, ax: Axes | None = None, *, top: int = 30) -> Axes:
        """Draw the selection frequency of the maps chosen most often."""
        ax = axes(ax, width=7.2, height=3.6)
        order = self.frequency.argsort(descending=True, stable=True)[:top].tolist()
        ax.bar(range(len(order)), self.frequency[order].tolist(), color=BLUE)
        ax.set_xticks(range(len(order)), [str(self.maps[i]) for i in order], rotation=90, fontsize=7)
        ax.set_ylabel("share of subsamples")
        ax.set_ylim(0, 1)
        return ax


def permutation_null(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    groups: str | Sequence[str] = "reference",
    permutations: int = 199,
    seed: int = 0,
    max_maps: int = 10,
    tol: float = 0.0,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    pool: Pool = "mean",
    direction: Direction = "rising",
    progress: bool = False,
) -> PermutationNull:
    """Run the whole selection on permuted scores, to see what it reaches by chance.

    Scores are permuted among the images of a group (reference), so that differences between groups stay. The
    observed selection and the permuted ones are computed alike, as problems of one batch.

    Args:
        scores: a `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        groups: within what to permute: `"reference"`, `"distortion"`, or a name an image.
        permutations: how many; the smallest p-value is 1 / (1 + permutations).
        seed: of the permutations.
        max_maps, tol, criterion, fit, pool, direction: as for `forward_select`.
        progress: show a progress bar.

    Raises:
        InputError: as `forward_select`; no group with two images.
    """
    values, y, maps, source = read_scores(scores, targets)
    names = groups_of(scores, groups, len(y))
    if not is_count(permutations):
        raise InputError(f"permutations is at least 1, got {permutations!r}")
    if len(set(names)) == len(names):
        raise InputError("every group has a single image, so nothing can be permuted within groups")
    generator = torch.Generator().manual_seed(seed)
    number = group_numbers(names, len(y))
    permuted = [y]
    for _ in range(permutations):
        shuffled = torch.argsort(torch.rand(len(y), generator=generator, dtype=torch.float64, device="cpu"))
        # Rows sorted by group, at random within it, beside rows sorted by group: a permutation within groups.
        source_rows = shuffled[number[shuffled].argsort(stable=True)]
        own_rows = number.argsort(stable=True)
        target = torch.empty_like(y)
        target[own_rows.to(y.device)] = y[source_rows.to(y.device)]
        permuted.append(target)
    objective = Objective(criterion, fit)
    curves: list[list[float]] = []
    chosen: list[int] = []
    for batch in _batches(permuted, progress, "permutations"):
        all_targets = torch.stack(batch)
        candidates = Candidates(values, all_targets, maps, objective=objective, pool=pool, confirm=False)
        allowed = torch.stack([usable(values, t, direction) for t in batch])
        paths = climb(candidates, [[] for _ in batch], allowed, max_maps=max_maps, tol=tol)
        chosen = chosen or paths[0].chosen
        curves += [path.values or [0.0] for path in paths]
    # Every search keeps its own last value to the end. Cut at the observed length, the null would be held to a
    # stopping rule that only the observed search has met, and the p-value would be too small.
    size = max(len(c) for c in curves)
    padded = torch.tensor([(c + [c[-1]] * size)[:size] for c in curves], dtype=torch.float64, device="cpu")
    options = {"permutations": permutations, "seed": seed, "groups": groups if isinstance(groups, str) else "given"}
    options |= {"criterion": criterion, "fit": fit, "pool": pool, "max_maps": max_maps, "tol": tol, "source": source}
    return PermutationNull(maps.at(chosen), padded[0], padded[1:], options)


def stability_selection(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    groups: str | Sequence[str] = "reference",
    subsamples: int = 100,
    fraction: float = 0.5,
    seed: int = 0,
    max_maps: int = 10,
    tol: float = 0.0,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    pool: Pool = "mean",
    direction: Direction = "rising",
    progress: bool = False,
) -> StabilitySelection:
    """Repeat the selection on random subsamples of the references (Meinshausen & Buehlmann 2010).

    Args:
        scores: a `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        groups: what is drawn as a whole: `"reference"`, `"distortion"`, or a name an image.
        subsamples: how many.
        fraction: the share of groups in each.
        seed: of the drawing.
        max_maps, tol, criterion, fit, pool, direction: as for `forward_select`.
        progress: show a progress bar.

    Raises:
        InputError: as `forward_select`; fewer than two subsamples.
    """
    values, y, maps, source = read_scores(scores, targets)
    if subsamples < 2:
        raise InputError(f"stability needs at least 2 subsamples, got {subsamples}")
    splits = grouped_subsamples(groups_of(scores, groups, len(y)), fraction=fraction, repeats=subsamples, seed=seed)
    objective = Objective(criterion, fit)
    selected: list[MapIndex] = []
    member = torch.zeros(subsamples, len(maps), device="cpu")
    for batch in _batches(splits, progress, "subsamples"):
        counts = counts_of([s.train for s in batch], len(y)).to(y)
        candidates = Candidates(values, y, maps, objective=objective, pool=pool, counts=counts, confirm=False)
        allowed = torch.stack([usable(values[s.train], y[s.train], direction) for s in batch])
        for path in climb(candidates, [[] for _ in batch], allowed, max_maps=max_maps, tol=tol):
            member[len(selected), path.chosen] = 1
            selected.append(maps.at(path.chosen))
    options: dict[str, Any] = {"subsamples": subsamples, "fraction": fraction, "seed": seed}
    options |= {"max_maps": max_maps, "tol": tol, "criterion": criterion, "fit": fit, "pool": pool, "source": source}
    return StabilitySelection(maps, tuple(selected), selection_frequency(member), stability(member), options)


def _batches(items: list[Any], progress: bool, unit: str) -> Any:
    with progress_bar(show=progress, total=len(items), desc="selecting", unit=f" {unit}") as bar:
        for start in range(0, len(items), _BATCH):
            yield items[start : start + _BATCH]
            bar.update(len(items[start : start + _BATCH]))
