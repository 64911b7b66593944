"""Stability of selections: how much do repeated selections agree, beyond chance?

S. Nogueira, K. Sechidis, G. Brown, On the stability of feature selection algorithms, J. Machine Learning
Research 18(174), 2018: the estimator (Definition 4), its asymptotic variance and interval (Corollary 9). Sets
may differ in size; chance agreement is 0 whatever the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa.correlation.significance import normal_quantile
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.forward import as_matrix, source_of
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.repeat import Part, Search, repeat_search, search_to_dict
from fmiqa.selection.splits import Groups, grouped_subsamples, groups_of, kind_of_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self, Unpack

__all__ = ["Stability", "StabilitySelection", "membership", "selection_frequency", "stability", "stability_selection"]


class Stability(NamedTuple):
    """How stable repeated selections are.

    Args:
        value: (...) 1 for equal sets, about 0 for sets drawn at random; the lowest possible is -1 / (R - 1).
            The paper's reading: below .4 poor, above .75 excellent.
        variance: (...) of the estimate.
        low: (...) lower end of its confidence interval.
        high: (...) upper end; may pass 1, the interval being a normal approximation.
    """

    value: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor


def stability(selections: Tensor, *, level: float = 0.95) -> Stability:
    """Stability of R selections from M candidates (Nogueira et al. 2018).

    Args:
        selections: (..., R, M) of 0 and 1 or booleans, a row for the set that each of R >= 2 repetitions
            chose.
        level: Confidence level, between 0 and 1. The interval is asymptotic in R and takes the repetitions as
            independent; selections on overlapping parts of one data set are not, so it says how far the
            figure would move with more repetitions on these data, not with new data.

    Returns:
        Estimate, variance and interval; NaN where no repetition chose anything or all chose everything.

    Raises:
        InputError: Other values than 0 and 1, fewer than two repetitions, no candidates, or a level that is
            none.

    Example:
        >>> chosen = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]])
        >>> round(stability(chosen).value.item(), 4)
        0.4444
    """
    reach = normal_quantile(level)
    chosen = _checked(selections, minimum=2)
    repetitions, candidates = chosen.shape[-2:]
    frequency = chosen.mean(-2)
    share = chosen.mean(-1)
    mean_share = share.mean(-1)
    chance = mean_share * (1 - mean_share)
    disagreement = (frequency * (1 - frequency)).mean(-1) * repetitions / (repetitions - 1)
    value = 1 - disagreement / chance

    agreement = (chosen * frequency.unsqueeze(-2)).sum(-1) / candidates
    product = share * mean_share.unsqueeze(-1)
    correction = value.unsqueeze(-1) / 2 * (2 * product - share - mean_share.unsqueeze(-1) + 1)
    influence = (agreement - product + correction) / chance.unsqueeze(-1)
    variance = 4 / repetitions**2 * (influence - influence.mean(-1, keepdim=True)).square().sum(-1)
    margin = reach * variance.sqrt()
    return Stability(value, variance, value - margin, value + margin)


def selection_frequency(selections: Tensor) -> Tensor:
    """How often each candidate was chosen.

    Args:
        selections: (..., R, M) of 0 and 1 or booleans.

    Returns:
        (..., M) shares of the R repetitions.

    Raises:
        InputError: Other values than 0 and 1, no repetitions or candidates.

    Example:
        >>> selection_frequency(torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0]]))
        tensor([1.0000, 0.5000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return _checked(selections, minimum=1).mean(-2)


def _checked(selections: Tensor, *, minimum: int) -> Tensor:
    if not isinstance(selections, Tensor) or selections.ndim < 2:
        given = tuple(selections.shape) if isinstance(selections, Tensor) else type(selections).__name__
        raise InputError(f"selections must be a tensor (..., R, M), one row a repetition, got {given}")
    if selections.shape[-2] < minimum or selections.shape[-1] < 1:
        raise InputError(f"selections need {minimum} or more repetitions and candidates, got {tuple(selections.shape)}")
    if not ((selections == 0) | (selections == 1)).all():
        raise InputError("selections must hold 0 and 1 only, 1 where a candidate was selected")
    return selections.to(torch.float32 if selections.device.type == "mps" else torch.float64)


def membership(sets: Iterable[Iterable[FeatureMap | str]], maps: MapIndex) -> Tensor:
    """(R, M) float64, 1 where one of R sets holds one of M maps, and 0 elsewhere."""
    rows = []
    for selected in sets:
        row = torch.zeros(len(maps), dtype=torch.float64, device="cpu")
        row[maps.positions(selected)] = 1
        rows.append(row)
    return torch.stack(rows)


@dataclass(frozen=True, eq=False, repr=False)
class StabilitySelection(Result):
    """Which maps are selected again and again on subsamples of the references.

    Args:
        maps: All M candidate maps.
        selected: The maps selected on each subsample, in order.
        options: How it was run.
    """

    maps: MapIndex
    selected: tuple[MapIndex, ...]
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa stability selection 1"

    @property
    def frequency(self) -> Tensor:
        """(M,) the share of subsamples that selected each map."""
        return selection_frequency(membership(self.selected, self.maps))

    @property
    def stability(self) -> Stability:
        """Nogueira's estimate with its interval."""
        return stability(membership(self.selected, self.maps))

    def stable(self, threshold: float = 0.5) -> MapIndex:
        """The maps selected on at least this share of subsamples, most frequent first."""
        frequency = self.frequency
        order = frequency.argsort(descending=True, stable=True)
        return self.maps.at(i for i in order.tolist() if frequency[i] >= threshold)

    def table(self) -> Rows:
        """The maps that were selected more than once, most frequent first, with the share of subsamples."""
        frequency = dict(zip(self.maps, self.frequency.tolist(), strict=True))
        again = self.stable(1.5 / len(self.selected))
        return [("map", "share of subsamples"), *((str(m), f"{frequency[m]:.2f}") for m in again)]

    def tables(self) -> dict[str, Rows]:
        """The table, without a caption."""
        return {"": self.table()}

    @property
    def notes(self) -> tuple[str, ...]:
        """Nogueira's estimate in words."""
        value, low, high = (float(getattr(self.stability, name)) for name in ("value", "low", "high"))
        text = f"Stability over {len(self.selected)} subsamples (Nogueira et al. 2018): {value:.3f} "
        return (f"{text}[{low:.3f}, {high:.3f}]; below .4 is poor, above .75 is excellent.",)

    def __repr__(self) -> str:
        return f"StabilitySelection({len(self.selected)} subsamples, {len(self.maps)} maps)"

    def plot(self, ax: Axes | None = None, *, top: int = 30) -> Axes:
        """Draw the selection frequency of the maps selected most often, see `plot_frequency`."""
        from fmiqa.selection.plots import plot_frequency

        return plot_frequency(self, top=top, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "maps": [str(m) for m in self.maps],
            "selected": [[str(m) for m in maps] for maps in self.selected],
            "options": self.options,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The stability selection again."""
        selected = tuple(MapIndex(maps) for maps in content["selected"])
        return cls(MapIndex(content["maps"]), selected, content["options"])


@flat_keywords
def stability_selection(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    search: Search | None = None,
    options: SearchOptions | None = None,
    groups: Groups = "reference",
    subsamples: int = 100,
    fraction: float = 0.5,
    seed: int = 0,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> StabilitySelection:
    """Repeat a whole search on random subsamples of the references (Meinshausen and Bühlmann 2010).

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        search: The search, as in `cross_validate`; by default forward selection, all subsamples as one batch.
        options: The options of forward selection; another search has its own.
        groups: What is drawn as a whole: `"reference"`, `"distortion"`, or a name for each image.
        subsamples: The number of subsamples.
        fraction: The share of groups in each.
        seed: Seed of the drawing.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`, such as `max_maps=10`, which makes the search shorter.

    Raises:
        InputError: As in `forward_select`; there are fewer than two subsamples.
    """
    matrix, chosen = as_matrix(scores, targets), SearchOptions.of(options, keywords)
    if subsamples < 2:
        raise InputError(f"stability needs at least 2 subsamples, got {subsamples}")
    names = groups_of(scores, groups, len(matrix))
    splits = grouped_subsamples(names, fraction=fraction, repeats=subsamples, seed=seed)
    parts = [Part(matrix.targets, split.train) for split in splits]
    outcomes = repeat_search(matrix, parts, search, chosen, confirm=False, progress=progress, unit="subsample")
    recorded = {
        **search_to_dict(outcomes),
        "subsamples": subsamples,
        "fraction": fraction,
        "seed": seed,
        "groups": kind_of_groups(groups),
        "source": source_of(matrix),
    }
    return StabilitySelection(matrix.maps, tuple(outcome.maps for outcome in outcomes), recorded)
