"""Is there anything in a selection? What the same search reaches on permuted subjective scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._checks import is_count
from fmiqa._result import Result, Rows
from fmiqa.correlation.bootstrap import group_numbers
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.forward import as_matrix, source_of
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.repeat import Part, Search, extended, repeat_search, search_to_dict
from fmiqa.selection.splits import Groups, groups_of, kind_of_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from typing_extensions import Self, Unpack

__all__ = ["PermutationNull", "permutation_null"]


@dataclass(frozen=True, eq=False, repr=False)
class PermutationNull(Result):
    """The criterion that a whole search reaches on subjective scores that have nothing to do with the images.

    Args:
        maps: The maps selected on the real scores.
        observed: (K,) the criterion in sample after each step on the real scores; a search that stops keeps its last
            value, and a search whose sets do not grow map by map has one column.
        null: (B, K) the same on permuted scores.
        options: How it was run.
    """

    maps: MapIndex
    observed: Tensor
    null: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa permutation null 1"

    @property
    def p_steps(self) -> Tensor:
        """(K,) the p-value of a set of up to k maps: the share of permutations that reach as much in as many steps."""
        return (1 + (self.null >= self.observed - 1e-12).sum(0)).double() / (1 + len(self.null))

    @property
    def p_value(self) -> float:
        """The p-value of the whole search, each with its own stopping."""
        return float(self.p_steps[-1])

    def evidence(self, level: float = 0.05) -> bool:
        """Whether the set does better than chance at this level."""
        return self.p_value <= level

    def table(self) -> Rows:
        """The criterion of the whole set on the real and on the permuted scores, and the p-value."""
        null = self.null[:, -1]
        figures = (self.observed[-1], null.mean(), null.max(), self.p_value)
        head = ("maps", "real scores", f"{len(null)} permutations, mean", "highest", "p-value")
        return [head, (str(len(self.maps)), *(f"{float(figure):.4g}" for figure in figures))]

    def tables(self) -> dict[str, Rows]:
        """The table, without a caption."""
        return {"": self.table()}

    def __str__(self) -> str:
        null = self.null[:, -1]
        return (
            f"{len(self.maps)} maps reach {self.observed[-1]:.4f}. On {len(null)} permutations of the scores within "
            f"groups, the same search reaches {null.mean():.4f} on average and at most {null.max():.4f}: "
            f"p = {self.p_value:.4g} ({'evidence' if self.evidence() else 'no evidence'} at the .05 level)"
        )

    def __repr__(self) -> str:
        return f"PermutationNull({self})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the null's distribution and the observed criterion of the whole set, see `plot_null`."""
        from fmiqa.selection.plots import plot_null

        return plot_null(self, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "maps": [str(m) for m in self.maps],
            "observed": self.observed.tolist(),
            "null": self.null.tolist(),
            "options": self.options,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The null again."""
        observed, null = (torch.tensor(content[k], dtype=torch.float64, device="cpu") for k in ("observed", "null"))
        return cls(MapIndex(content["maps"]), observed, null, content["options"])


@flat_keywords
def permutation_null(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    search: Search | None = None,
    options: SearchOptions | None = None,
    groups: Groups = "reference",
    permutations: int = 199,
    seed: int = 0,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> PermutationNull:
    """Run a whole search on permuted scores, to see what it reaches by chance.

    Scores are permuted among the images of a group (reference), so that differences between groups remain. The
    search on the real scores and those on permuted scores are run alike.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        search: The search, as in `cross_validate`; by default forward selection, all permutations as one batch.
        options: The options of forward selection; another search has its own.
        groups: The groups within which scores are permuted: `"reference"`, `"distortion"`, or a name for each image.
        permutations: The number of permutations; the smallest p-value is 1 / (1 + permutations).
        seed: Seed of the permutations.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`, such as `max_maps=10`, which makes the search shorter.

    Raises:
        InputError: As in `forward_select`; no group has two images.
    """
    matrix, chosen = as_matrix(scores, targets), SearchOptions.of(options, keywords)
    y = matrix.targets
    names = groups_of(scores, groups, len(y))
    if not is_count(permutations):
        raise InputError(f"permutations is a whole number from 1, got {permutations!r}")
    if chosen.prior is not None:
        raise InputError("a prior is the same for all permutations; leave it out to ask what chance reaches")
    if len(set(names)) == len(names):
        raise InputError("every group has a single image, so nothing can be permuted within groups")
    parts = [Part(y), *(Part(targets) for targets in _permuted(y, names, permutations, seed))]
    outcomes = repeat_search(matrix, parts, search, chosen, confirm=False, progress=progress, unit="permutation")
    curves = [outcome.curve if len(outcome.curve) else torch.zeros(1).double() for outcome in outcomes]
    # Every search keeps its own last value to the end. If all were cut at the observed length, the null would be held
    # to a stopping rule that only the observed search has met, and the p-value would be too small.
    size = max(len(curve) for curve in curves)
    padded = torch.stack([extended(curve, size) for curve in curves])
    recorded = {
        **search_to_dict(outcomes),
        "permutations": permutations,
        "seed": seed,
        "groups": kind_of_groups(groups),
        "source": source_of(matrix),
    }
    return PermutationNull(outcomes[0].maps, padded[0], padded[1:], recorded)


def _permuted(y: Tensor, names: Sequence[str], permutations: int, seed: int) -> list[Tensor]:
    """Permutations of scores within groups."""
    generator = torch.Generator().manual_seed(seed)
    number = group_numbers(names, len(y))
    own_rows = number.argsort(stable=True)
    found = []
    for _ in range(permutations):
        shuffled = torch.argsort(torch.rand(len(y), generator=generator, dtype=torch.float64, device="cpu"))
        # Rows sorted by group, at random within it, beside rows sorted by group: a permutation within groups.
        source_rows = shuffled[number[shuffled].argsort(stable=True)]
        target = torch.empty_like(y)
        target[own_rows.to(y.device)] = y[source_rows.to(y.device)]
        found.append(target)
    return found
