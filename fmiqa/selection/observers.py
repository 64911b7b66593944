"""One selection for each observer: do people look at the same maps? The future work that the paper names.

From a matrix of images x observers: the maps that each observer's ratings select, how far these sets agree (Nogueira et
al. 2018), how well the maps selected for one observer predict another, and how well maps selected on the mean rating of
all others predict the one left out, beside what that mean rating itself predicts. Every prediction is judged on
references that its maps were not selected on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from fmiqa._checks import check_tensor
from fmiqa._result import Result, Rows
from fmiqa.correlation import Coefficient, plcc, srocc
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.forward import as_matrix, source_of
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.repeat import Outcome, Part, Search, repeat_search, search_to_dict
from fmiqa.selection.splits import Groups, Split, grouped_folds, groups_of, kind_of_groups, mean_and_error
from fmiqa.selection.stability import Stability, membership, selection_frequency, stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self, Unpack

__all__ = ["ObserverStudy", "observer_study"]

_FIGURES = ("in_sample", "ratings", "plcc", "srocc", "left_out_plcc", "left_out_srocc")
_FEWEST = 5  # ratings of an observer that a logistic can be fitted to


@dataclass(frozen=True, eq=False, repr=False)
class ObserverStudy(Result):
    """Which maps each of O observers' ratings select, and whom these maps predict.

    Args:
        observers: The names of the O observers.
        maps: The M candidate maps.
        selected: (O) The maps selected on all images that the observer rated, in order.
        in_sample: (O,) the criterion that these reach on the same images.
        ratings: (O,) how many images each observer rated.
        fold_selected: (F)(O) The maps selected on the training references of each fold.
        plcc: (F, O, O) at `[f, a, b]` the fitted PLCC of a's maps of fold f with b's ratings of the references
            held out, the logistic fitted to these ratings.
        srocc: (F, O, O) the same by Spearman correlation, which has nothing fitted.
        left_out_plcc: (F, 3, O) fitted PLCC with each observer's ratings of the references held out: of the
            maps selected on the others' mean rating, of all maps pooled, and of the others' mean rating itself.
        left_out_srocc: (F, 3, O) the same by Spearman correlation.
        options: How it was run.
    """

    observers: tuple[str, ...]
    maps: MapIndex
    selected: tuple[MapIndex, ...]
    in_sample: Tensor
    ratings: Tensor
    fold_selected: tuple[tuple[MapIndex, ...], ...]
    plcc: Tensor
    srocc: Tensor
    left_out_plcc: Tensor
    left_out_srocc: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa observer study 1"

    @property
    def stability(self) -> Stability:
        """Agreement of the observers' sets, all images used; the observers are the repetitions."""
        return stability(membership(self.selected, self.maps))

    @property
    def stability_within(self) -> Stability:
        """(O,) agreement of one observer's sets over the folds: what other references alone change."""
        return stability(torch.stack([membership(own, self.maps) for own in zip(*self.fold_selected, strict=True)]))

    @property
    def stability_between(self) -> Stability:
        """(F,) agreement of the observers' sets in one fold: what other observers alone change."""
        return stability(torch.stack([membership(fold, self.maps) for fold in self.fold_selected]))

    @property
    def frequency(self) -> Tensor:
        """(M,) the share of observers whose set, all images used, holds each map."""
        return selection_frequency(membership(self.selected, self.maps))

    def cross_prediction(self, figure: Coefficient = "plcc") -> Tensor:
        """(O, O) mean over folds: row a holds the maps selected for a; column b is judged on b's held-out ratings."""
        return self._of(figure)[0].mean(0)

    def own_advantage(self, figure: Coefficient = "plcc") -> Tensor:
        """(F,) by how much an observer's own maps predict better than another's; mean over observers."""
        cross = self._of(figure)[0]
        own = cross.diagonal(dim1=-2, dim2=-1)
        return (own - _of_others(cross)).mean(-1)

    def table(self, figure: Coefficient = "plcc") -> Rows:
        """A row for each observer and their mean, the header first.

        After the name, the number of ratings and the in-sample criterion stands what predicts this observer on
        held-out references: own maps, another observer's maps (mean), maps selected on the others' mean rating,
        all maps, and the others' mean rating; then the maps selected on all images.
        """
        cross, left_out = self._of(figure)
        columns = [
            self.in_sample,
            cross.mean(0).diagonal(),
            _of_others(cross).mean(0),
            *left_out.mean(0),
        ]
        heads = ("own maps", "another's maps", "maps of others' mean", "all maps", "others' mean rating")
        rows: Rows = [("observer", "ratings", "in sample", *heads, "maps (all images)")]
        for o, name in enumerate(self.observers):
            cells = [f"{float(column[o]):.4f}" for column in columns]
            rows.append((name, str(int(self.ratings[o])), *cells, " ".join(map(str, self.selected[o]))))
        means = [f"{float(column.mean()):.4f}" for column in columns]
        count = float(self.ratings.double().mean())
        rows.append(("mean", f"{count:.4g}", *means, f"{int((self.frequency > 0).sum())} different"))
        return rows

    def tables(self) -> dict[str, Rows]:
        """The table, without a caption."""
        return {"": self.table()}

    def cross_table(self, figure: Coefficient = "plcc") -> Rows:
        """`cross_prediction` as rows of text, the header first."""
        cells = [[f"{v:.3f}" for v in row] for row in self.cross_prediction(figure).tolist()]
        rows = [("maps of", *self.observers)]
        return rows + [(name, *row) for name, row in zip(self.observers, cells, strict=True)]

    def plot(self, ax: Axes | None = None, *, figure: Coefficient = "plcc") -> Axes:
        """Draw the cross-prediction matrix as a heat map, see `plot_cross_prediction`."""
        from fmiqa.selection.plots import plot_cross_prediction

        return plot_cross_prediction(self, figure=figure, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "observers": list(self.observers),
            "maps": [str(m) for m in self.maps],
            "selected": [[str(m) for m in maps] for maps in self.selected],
            "fold_selected": [[[str(m) for m in maps] for maps in fold] for fold in self.fold_selected],
            **{name: getattr(self, name).tolist() for name in _FIGURES},
            "options": self.options,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The study again."""
        return cls(
            observers=tuple(content["observers"]),
            maps=MapIndex(content["maps"]),
            selected=tuple(MapIndex(maps) for maps in content["selected"]),
            fold_selected=tuple(tuple(MapIndex(maps) for maps in fold) for fold in content["fold_selected"]),
            options=content["options"],
            **{name: torch.tensor(content[name], dtype=torch.float64, device="cpu") for name in _FIGURES},
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the study says of the agreement of observers."""
        whole = self.stability
        gain, error = mean_and_error(self.own_advantage())
        between, within = (float(s.value.mean()) for s in (self.stability_between, self.stability_within))
        return (
            f"Held out by {self.options.get('groups', 'group')}, {len(self.plcc)} folds, fitted PLCC. The sets of "
            f"{len(self.observers)} observers agree to {float(whole.value):.2f} (95% {float(whole.low):.2f} to "
            f"{float(whole.high):.2f}); within a fold, those of different observers to {between:.2f}, and between "
            f"folds, those of one observer to {within:.2f}. An observer's own maps predict better than another's by "
            f"{float(gain):+.4f} (s.e. over folds {float(error):.4f}).",
        )

    def __repr__(self) -> str:
        return f"ObserverStudy({len(self.observers)} observers, {len(self.maps)} maps)"

    def _of(self, figure: Coefficient) -> tuple[Tensor, Tensor]:
        if figure not in get_args(Coefficient):
            raise InputError(f"figure is 'plcc' or 'srocc', got {figure!r}")
        return (self.plcc, self.left_out_plcc) if figure == "plcc" else (self.srocc, self.left_out_srocc)


@flat_keywords
def observer_study(
    scores: ScoreMatrix | Tensor,
    ratings: Tensor,
    *,
    names: Sequence[str] | None = None,
    search: Search | None = None,
    options: SearchOptions | None = None,
    groups: Groups = "reference",
    folds: int | Literal["leave_one_out"] = 5,
    seed: int = 0,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> ObserverStudy:
    """Select maps for every observer, and judge every observer's maps on every observer.

    An observer, an observer in a fold, and the mean of all but one observer in a fold are one search each. An image
    that an observer did not rate does not count for that observer. The others' mean rating of an image is the mean
    over those who rated it. Where observers rated different images and use the scale differently, standardise their
    ratings beforehand.

    Held-out parts are small, and a logistic with five parameters that is fitted to few ratings flatters every PLCC
    (but not the Spearman correlation): compare figures within one study, not with other publications. The others'
    mean rating is a yardstick, not a limit: maps may predict an observer better than the other observers do.

    Args:
        scores: A `ScoreMatrix`, or its values (N, M).
        ratings: (N, O) the ratings of O >= 2 observers, higher = better; NaN where an observer did not rate.
        names: The names of the observers; `observer 1`, ... by default.
        search: The search, as in `cross_validate`; by default forward selection, all observers as one batch.
        options: The options of forward selection; another search has its own.
        groups: What is kept together: `"reference"`, `"distortion"` (both from the `ScoreMatrix`), or a name for
            each image.
        folds: The number of folds, or `"leave_one_out"`.
        seed: Seed of the dealing of groups to folds.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`, such as `max_maps=5`, which makes the searches shorter.

    Returns:
        The sets, their agreement, cross-prediction and leave-one-observer-out figures.

    Raises:
        InputError: Shapes do not match, ratings are infinite, an observer has fewer than 5 ratings or equal ones, in
            all or in a part of a fold; no map may join.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> values = torch.rand(40, 4, generator=generator)
        >>> ratings = torch.stack([values[:, 1], values[:, 1].square(), values[:, 2]], 1)
        >>> study = observer_study(values, ratings, groups=[f"r{i // 10}" for i in range(40)], folds=2, max_maps=1)
        >>> [str(*maps) for maps in study.selected]
        ['map:1', 'map:1', 'map:2']
        >>> (study.cross_prediction() > 0.9).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    labels = _checked_ratings(scores, ratings, names)
    chosen = SearchOptions.of(options, keywords)
    # The observers are the targets here; the numbers stand in for a mean score that nothing uses.
    device = scores.values.device if isinstance(scores, ScoreMatrix) else scores.device
    matrix = as_matrix(scores, torch.arange(len(ratings), device=device))
    y = ratings.to(matrix.values.device, torch.float64).T
    own = _Raters(y, y.isfinite(), labels)
    mean = _Raters(*_mean_of_others(y, own.rated), [f"mean of all but {label}" for label in labels])
    splits = grouped_folds(groups_of(scores, groups, len(matrix)), folds=folds, seed=seed)
    images = torch.arange(len(matrix), device="cpu")
    own.check([images], "all images")
    for raters in (own, mean):
        raters.check([s.train for s in splits], "the training part of a fold")
        raters.check([s.held_out for s in splits], "the held-out part of a fold")

    parts = own.parts(images)
    for raters in (own, mean):
        for split in splits:
            parts += raters.parts(split.train)
    outcomes = repeat_search(matrix, parts, search, chosen, progress=progress, unit="search")
    for number, outcome in enumerate(outcomes):
        if not len(outcome.maps):
            raise InputError(f"no map may join for {labels[number % len(labels)]}; are the ratings higher = better?")

    size = len(labels)
    whole, in_folds = outcomes[:size], outcomes[size:]
    pooled = torch.stack([_whole_set(outcome) for outcome in in_folds]).reshape(2, len(splits), size, -1)
    every = matrix.pool(pool=outcomes[0].options.get("pool", "mean"))
    crossed, left_out = _judge(splits, own, mean, pooled[0], pooled[1], every)
    selected = [outcome.maps for outcome in in_folds[: len(splits) * size]]
    return ObserverStudy(
        observers=tuple(labels),
        maps=matrix.maps,
        selected=tuple(outcome.maps for outcome in whole),
        in_sample=torch.stack([outcome.curve[-1] for outcome in whole]),
        ratings=own.rated.sum(1).double().cpu(),
        fold_selected=tuple(tuple(selected[f : f + size]) for f in range(0, len(selected), size)),
        plcc=crossed[0],
        srocc=crossed[1],
        left_out_plcc=left_out[0],
        left_out_srocc=left_out[1],
        options={
            **search_to_dict(outcomes),
            "groups": kind_of_groups(groups),
            "folds": folds,
            "seed": seed,
            "source": source_of(matrix),
        },
    )


def _whole_set(outcome: Outcome) -> Tensor:
    return outcome.combined(len(outcome.curve))


@dataclass(frozen=True)
class _Raters:
    """Ratings (O, N) of observers or of means of them, and where there are any."""

    y: Tensor
    rated: Tensor
    labels: list[str]

    def parts(self, rows: Tensor) -> list[Part]:
        """One search for each rater, on those of the images that it rated."""
        seen = [rows[rated.cpu()[rows]] for rated in self.rated]
        return [Part(y.nan_to_num(0.0), own) for y, own in zip(self.y, seen, strict=True)]

    def check(self, parts: Sequence[Tensor], where: str) -> None:
        """Every rater has enough different ratings in each part."""
        for label, y, rated in zip(self.labels, self.y, self.rated, strict=True):
            for part in parts:
                given = y[part.to(y.device)][rated[part.to(y.device)]]
                if len(given) < _FEWEST:
                    problem = f"has {len(given)} ratings in {where}, at least {_FEWEST} are needed"
                elif given.min() == given.max():
                    problem = f"gave the same rating ({float(given[0]):g}) to all images in {where}"
                else:
                    continue
                raise InputError(f"{label} {problem}; leave that observer out, or use fewer folds")


def _judge(
    splits: Sequence[Split], own: _Raters, mean: _Raters, sets: Tensor, of_mean: Tensor, every: Tensor
) -> tuple[Tensor, Tensor]:
    """Held-out PLCC and SROCC of every set with every observer (2, F, O, O), and of leaving one out (2, F, 3, O)."""
    crossed, left_out = [], []
    for f, split in enumerate(splits):
        held = torch.zeros_like(own.rated[0])
        held[split.held_out.to(held.device)] = True
        for o, y in enumerate(own.y):
            rows = held & own.rated[o]
            crossed.append((sets[f][:, rows], y[rows]))
            rows = rows & mean.rated[o]  # where nobody else rated an image, the three cannot be compared on it
            left_out.append((torch.stack([of_mean[f, o], every, mean.y[o]])[:, rows], y[rows]))
    figures = _figures(crossed + left_out)
    parts = figures[: len(crossed)], figures[len(crossed) :]
    shape = (len(splits), len(own.y))
    a, b = (torch.stack(part).reshape(*shape, 2, -1).permute(2, 0, 3, 1).contiguous() for part in parts)
    return a, b


def _figures(jobs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """(2, R) fitted PLCC and SROCC of each job's scores (R, n) with its ratings (n,); those of one n together."""
    by_length: dict[int, list[int]] = {}
    for number, (_, y) in enumerate(jobs):
        by_length.setdefault(len(y), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in by_length.values():
        x = torch.cat([jobs[number][0] for number in numbers])
        y = torch.cat([jobs[number][1].expand_as(jobs[number][0]) for number in numbers])
        both = torch.stack([plcc(x, y), srocc(x, y)]).cpu()
        found |= zip(numbers, both.split([len(jobs[number][0]) for number in numbers], dim=1), strict=True)
    return [found[number] for number in range(len(jobs))]


def _mean_of_others(y: Tensor, rated: Tensor) -> tuple[Tensor, Tensor]:
    """(O, N) the mean rating by all but each observer, and where at least one of these rated."""
    total = y.nan_to_num(0.0)
    others = rated.sum(0) - rated.int()
    # A sum over the others themselves: total minus own would leave rounding that breaks ties between images.
    kept = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    sums = torch.stack([total[keep].sum(0) for keep in kept])
    return torch.where(others > 0, sums / others, torch.nan), others > 0


def _of_others(cross: Tensor) -> Tensor:
    """(..., O) for each judged observer, the mean over the sets of all other observers."""
    size = cross.shape[-1]
    return (cross.sum(-2) - cross.diagonal(dim1=-2, dim2=-1)) / (size - 1)


def _checked_ratings(scores: ScoreMatrix | Tensor, ratings: Tensor, names: Sequence[str] | None) -> list[str]:
    check_tensor(ratings, "ratings (N, O)")
    if ratings.ndim != 2 or ratings.shape[1] < 2:
        raise InputError(f"ratings is a tensor (N, O) of N images and O >= 2 observers, got {tuple(ratings.shape)}")
    if len(scores) != len(ratings):
        raise InputError(f"ratings {tuple(ratings.shape)} need a row for each of the {len(scores)} images")
    count = ratings.shape[1]
    labels = [f"observer {o + 1}" for o in range(count)] if names is None else list(names)
    if len(labels) != count or len(set(labels)) != count:
        raise InputError(f"names needs a different name for each of {count} observers, got {labels}")
    infinite = ratings.isinf().any(0)
    if bool(infinite.any()):
        raise InputError(f"ratings of {labels[int(infinite.int().argmax())]} hold infinite values; NaN is 'not rated'")
    return labels
