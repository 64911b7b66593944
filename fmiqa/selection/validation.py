"""Grouped validation: the whole search is repeated on a part of the references and judged on the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa.correlation import Coefficient, Form, fit_logistic, plcc, srocc
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.store import ScoreStore
from fmiqa.selection.beyond_memory import fold_outcomes
from fmiqa.selection.forward import Scores, as_matrix, forward_select, source_of
from fmiqa.selection.options import SearchKeywords, SearchOptions, flat_keywords
from fmiqa.selection.prior import dataset_rows, held_out_rows
from fmiqa.selection.repeat import Outcome, Part, Search, extended, repeat_search, search_to_dict
from fmiqa.selection.splits import Groups, Split, grouped_folds, groups_of, kind_of_groups, mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from typing_extensions import Self, Unpack

__all__ = ["Validation", "cross_validate", "held_out"]

_KINDS = {"distortion": "distortion types", "dataset": "data sets"}  # that a table shows one by one if left out alone
_FEW = 50  # images, to which a logistic of five parameters is fitted
_FIGURES = ("in_sample", "plcc", "srocc", "all_plcc", "all_srocc")


@dataclass(frozen=True, eq=False, repr=False)
class Validation(Result):
    """What a search is worth on references that it has not seen.

    The last column, `[:, -1]`, is always that of the whole set of each fold. Forward selection, whose sets grow map by
    map, also has the columns of its first 1, 2, ... maps; a fold that stopped early keeps its last value.

    Args:
        selected: The maps selected in each fold, in order.
        in_sample: (F, K) the criterion on the images that the maps were selected on.
        plcc: (F, K) fitted PLCC on the held-out images, with the logistic fitted to these, as for any metric.
        srocc: (F, K) Spearman correlation on the held-out images.
        all_plcc: (F,) fitted PLCC of all maps pooled on the same held-out images.
        all_srocc: (F,) Spearman correlation of all maps pooled.
        options: How the validation was run.
        predictions: (N,) the score of each image by the search that has not seen it, mapped to the scale of the
            subjective scores by the logistic of that search's own training images: nothing is refitted. None where an
            image was held out never or more than once.
        held_out: (F) the groups that each fold held out, such as references or distortion types.
    """

    selected: tuple[MapIndex, ...]
    in_sample: Tensor
    plcc: Tensor
    srocc: Tensor
    all_plcc: Tensor
    all_srocc: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    predictions: Tensor | None = None
    held_out: tuple[tuple[str, ...], ...] = ()

    kind: ClassVar[str] = "fmiqa validation 1"
    older_kinds: ClassVar[tuple[str, ...]] = ("fmiqa held out 1",)  # had one figure a fold, and none of all maps

    @property
    def grows(self) -> bool:
        """Whether the columns are those of sets of 1 to K maps, and not of the whole set alone."""
        return str(self.options.get("search", "forward")) == "forward"

    @property
    def mean(self) -> Tensor:
        """(K,) the mean held-out fitted PLCC."""
        return mean_and_error(self.plcc)[0]

    @property
    def standard_error(self) -> Tensor:
        """(K,) the standard error of that mean over folds, see `mean_and_error`."""
        return mean_and_error(self.plcc)[1]

    @property
    def best_size(self) -> int:
        """The number of maps with the highest mean held-out PLCC."""
        return int(self.mean.nan_to_num(-torch.inf).argmax()) + 1

    @property
    def one_standard_error_size(self) -> int:
        """The smallest number of maps whose mean is within one standard error of the best."""
        best = self.best_size - 1
        enough = self.mean >= self.mean[best] - self.standard_error[best].nan_to_num(0.0)
        return int(enough.int().argmax()) + 1

    def table(self) -> Rows:
        """A row for each number of maps, or for each figure of whole sets; the header first."""
        return self._curves() if self.grows else self._whole_sets()

    def tables(self) -> dict[str, Rows]:
        """The table, and that by group where each fold held out a single distortion type."""
        kind = self.options.get("groups", "group")
        one_by_one = {f"by {kind} left out": self.by_group()} if kind in _KINDS and self.leaves_one_out else {}
        return {f"held out by {kind}, {len(self.selected)} folds": self.table(), **one_by_one}

    @property
    def leaves_one_out(self) -> bool:
        """Whether each fold held out a single group."""
        return bool(self.held_out) and all(len(groups) == 1 for groups in self.held_out)

    def by_group(self) -> Rows:
        """A row for each fold and what it held out: the whole set beside all maps, the header first."""
        rows: Rows = [("held out", "maps", "PLCC", "all maps", "SROCC", "all maps", "")]
        figures = (self.plcc[:, -1], self.all_plcc, self.srocc[:, -1], self.all_srocc)
        for fold, groups in enumerate(self.held_out):
            cells = [f"{float(figure[fold]):.4f}" for figure in figures]
            worse = "below all maps" if self.srocc[fold, -1] < self.all_srocc[fold] else ""
            rows.append((", ".join(groups), str(len(self.selected[fold])), *cells, worse))
        return rows

    @property
    def failures(self) -> tuple[str, ...]:
        """The groups, each held out alone, on which the selected maps have a lower SROCC than all maps."""
        if not self.leaves_one_out:
            return ()
        worse = (self.srocc[:, -1] < self.all_srocc).tolist()
        return tuple(groups[0] for groups, is_worse in zip(self.held_out, worse, strict=True) if is_worse)

    @property
    def warning(self) -> str:
        """Where selected maps fail, if each fold held out a single distortion type or data set; else empty."""
        kind = _KINDS.get(self.options.get("groups", ""))
        if kind is None or not self.failures:
            return ""
        return (
            f"on {len(self.failures)} of {len(self.held_out)} {kind} that were left out of the selection, the selected "
            f"maps have a lower SROCC than all maps: {', '.join(self.failures)}"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What to take from the figures: where selected maps fail, how many are enough, and how far to trust PLCC."""
        found = [self.warning] if self.warning else []
        if self.grows:
            small, best = self.one_standard_error_size, self.best_size
            found.append(
                f"one-standard-error size: {small}, the fewest maps within one standard error of the best held-out "
                f"PLCC ({float(self.mean[best - 1]):.4f} with {best}). Select that many: max_maps={small}."
            )
        if self.options.get("judged", _FEW) < _FEW:
            found.append(
                f"Some folds judge only {self.options['judged']} images. The logistic of PLCC is fitted to them and "
                "flatters it, that of all maps too; SROCC is free of that."
            )
        group = self.options.get("groups")
        unit = f"{group}s" if group in ("reference", *_KINDS) else "groups"
        found.append(
            f"Held out is the figure to trust: the maps were selected without the {unit} that they are judged on. In "
            "sample they are judged on the images that they were selected on, which favours them."
        )
        return tuple(found)

    def _curves(self) -> Rows:
        rows: Rows = [("maps", f"in sample{_blend(self.options)}", "held-out PLCC", "± s.e.", "held-out SROCC")]
        for k in range(self.plcc.shape[1]):
            figures = (self.in_sample[:, k].mean(), self.mean[k], self.standard_error[k], self.srocc[:, k].mean())
            rows.append((str(k + 1), *(f"{figure:.4f}" for figure in figures)))
        return [*rows, ("all", "", f"{self.all_plcc.mean():.4f}", "", f"{self.all_srocc.mean():.4f}")]

    def _whole_sets(self) -> Rows:
        sizes = [len(maps) for maps in self.selected]
        criterion = str(self.options.get("criterion", "criterion")).upper() + _blend(self.options)
        figures = {
            f"in-sample {criterion}": self.in_sample[:, -1],
            "held-out PLCC": self.plcc[:, -1],
            "held-out SROCC": self.srocc[:, -1],
            "held-out PLCC of all maps": self.all_plcc,
            "held-out SROCC of all maps": self.all_srocc,
        }
        means = [(name, *(f"{float(v):.4f}" for v in mean_and_error(values))) for name, values in figures.items()]
        return [("", "mean", "± s.e."), *means, ("selected maps", f"{min(sizes)} to {max(sizes)}", "")]

    def plot(self, ax: Axes | None = None, *, figure: Coefficient = "plcc") -> Axes:
        """Draw in-sample and held-out figures against the number of maps, of `"plcc"` or `"srocc"`."""
        from fmiqa.selection.plots import plot_validation

        return plot_validation(self, figure=figure, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "selected": [[str(m) for m in maps] for maps in self.selected],
            **{name: getattr(self, name).tolist() for name in _FIGURES},
            "predictions": None if self.predictions is None else self.predictions.tolist(),
            "held_out": [list(groups) for groups in self.held_out],
            "options": self.options,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The validation again."""
        figures = {name: torch.tensor(v, dtype=torch.float64, device="cpu") for name, v in _columns(content).items()}
        predictions = content.get("predictions")
        values = list(predictions.values()) if isinstance(predictions, dict) else predictions
        return cls(
            selected=tuple(MapIndex(maps) for maps in content["selected"]),
            options=content["options"],
            predictions=None if values is None else torch.tensor(values, dtype=torch.float64, device="cpu"),
            held_out=tuple(tuple(groups) for groups in content.get("held_out", ())),
            **figures,
        )

    def __repr__(self) -> str:
        return f"Validation({len(self.selected)} folds, held-out PLCC {float(self.mean[-1]):.4f})"


def _blend(options: dict[str, Any]) -> str:
    """What the criterion in sample is measured with, unless it is the subjective scores."""
    return " with the blend" if options.get("prior") and options.get("search") != "weighted" else ""


def _columns(content: dict[str, Any]) -> dict[str, list[Any]]:
    """The figures of a saved validation; those of older files of one figure a fold as a column."""
    found = {name: content.get(name) or [float("nan")] * len(content["plcc"]) for name in _FIGURES}
    for name in ("in_sample", "plcc", "srocc"):
        found[name] = [row if isinstance(row, list) else [row] for row in found[name]]
    return found


@flat_keywords
def cross_validate(
    scores: Scores | ScoreStore,
    targets: Tensor | None = None,
    *,
    search: Search | None = None,
    options: SearchOptions | None = None,
    groups: Groups = "reference",
    splits: Sequence[Split] | None = None,
    folds: int | Literal["leave_one_out"] = 5,
    repeats: int = 1,
    seed: int = 0,
    progress: bool = False,
    **keywords: Unpack[SearchKeywords],
) -> Validation:
    """Repeat a whole search in each fold and judge it on the references held out.

    Args:
        scores: A `ScoreMatrix`, its values (N, M), or those of several data sets as `forward_select` takes them. Images
            held out of several data sets are judged on each, with a logistic of its own, and the mean is reported. A
            `ScoreStore` is read piece by piece by forward selection with `fit=None`.
        targets: (N,) subjective scores, higher = better; by default those of the `ScoreMatrix`.
        search: The search: a function from a `ScoreMatrix` to a `Selection`, such as `weighted_select` or
            `functools.partial(beam_select, width=8)`. Whatever it tunes, it tunes on the images that it is given. By
            default forward selection, whose folds advance together as one batch.
        options: The options of forward selection; another search has its own.
        groups: What is kept together: `"reference"`, `"distortion"`, `"dataset"` (all from the `ScoreMatrix`), or a
            name for each image.
        splits: The splits to use instead of folds, such as `grouped_subsamples(...)`.
        folds: The number of folds, or `"leave_one_out"`. With `groups="distortion"` or `"dataset"`, leaving one out
            shows where a selection fails that has not seen such images: see `Validation.by_group`.
        repeats: How often the groups are dealt to folds.
        seed: Seed of the dealing.
        progress: Whether to show a progress bar.
        keywords: The fields of `SearchOptions`, such as `max_maps=10`.

    Returns:
        The in-sample and held-out figures of every fold, and the selected maps.

    Warns:
        UserWarning: Distortion types or data sets are left out one by one, and on some of them the selected maps have a
            lower SROCC than all maps.

    Raises:
        InputError: As in `forward_select`; groups are missing or too few; a held-out part is too small for a fit.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> values = torch.rand(40, 3, generator=generator)
        >>> found = cross_validate(values, values[:, 1], groups=[f"r{i // 8}" for i in range(40)], folds=4, max_maps=1)
        >>> [str(*maps) for maps in found.selected], round(float(found.mean[-1]), 2)
        (['map:1', 'map:1', 'map:1', 'map:1'], 1.0)
    """
    chosen = SearchOptions.of(options, keywords)
    matrix = as_matrix(scores.columns([]) if isinstance(scores, ScoreStore) else scores, targets, chosen)
    y = matrix.targets
    if not y.isfinite().all():
        raise InputError("a validation judges by subjective scores, which some images lack; leave these images out")
    known = matrix if not isinstance(scores, Tensor) else scores
    names = groups_of(known, groups, len(y)) if splits is None or known is matrix else matrix.names
    if splits is None:
        splits = grouped_folds(names, folds=folds, repeats=repeats, seed=seed)
    judged = held_out_rows(matrix, splits, "a held-out part")
    parts = [Part(y, split.train) for split in splits]
    if isinstance(scores, ScoreStore):
        if search not in (None, forward_select):
            raise InputError("a store is validated by forward selection alone; give store.load(), or some of it")
        outcomes = fold_outcomes(scores, matrix, splits, chosen, progress=progress)
        every = torch.cat([values.mean(1, dtype=torch.float64) for values in scores.values_by_block()])
    else:
        outcomes = repeat_search(matrix, parts, search, chosen, progress=progress, unit="fold")
        every = matrix.pool(pool=outcomes[0].options.get("pool", "mean"))
    if not all(len(outcome.maps) for outcome in outcomes):
        raise InputError("in some fold no map may join: there are too few usable maps for these data")
    selected = [_judged(_combined(outcome), y, rows) for outcome, rows in zip(outcomes, judged, strict=True)]
    all_maps = [_judged(every[None], y, rows) for rows in judged]
    size = max(len(outcome.curve) for outcome in outcomes)
    found = Validation(
        selected=tuple(outcome.maps for outcome in outcomes),
        in_sample=torch.stack([extended(outcome.curve, size) for outcome in outcomes]),
        plcc=torch.stack([extended(figures[0], size) for figures in selected]),
        srocc=torch.stack([extended(figures[1], size) for figures in selected]),
        all_plcc=torch.stack([figures[0, 0] for figures in all_maps]),
        all_srocc=torch.stack([figures[1, 0] for figures in all_maps]),
        options={
            **search_to_dict(outcomes),
            "groups": kind_of_groups(groups),
            "folds": folds,
            "repeats": repeats,
            "seed": seed,
            "source": source_of(matrix),
            "judged": min(len(rows) for datasets in judged for rows in datasets),  # images, at least
        },
        predictions=_predictions(outcomes, splits, matrix),
        held_out=tuple(tuple(sorted({str(names[i]) for i in split.held_out.tolist()})) for split in splits),
    )
    if found.warning:
        warnings.warn(found.warning, stacklevel=2)
    return found


def held_out(scores: ScoreMatrix, select: Search, *, splits: Sequence[Split], progress: bool = False) -> Validation:
    """`cross_validate` of any search on given splits, whose held-out parts must cover each image exactly once.

    Raises:
        InputError: As in `cross_validate`; an image is held out never or more than once.
    """
    if not _covers(splits, len(scores)):
        raise InputError("the held-out parts must cover each image exactly once; use grouped_folds with repeats=1")
    return cross_validate(scores, search=select, splits=splits, progress=progress)


def _combined(outcome: Outcome) -> Tensor:
    """(K, N) the combined scores of all images by the sets of an outcome."""
    return torch.stack([outcome.combined(k) for k in range(1, len(outcome.curve) + 1)])


def _judged(combined: Tensor, y: Tensor, datasets: Sequence[Tensor]) -> Tensor:
    """(2, K) PLCC and SROCC of combined scores (K, N), the mean over the data sets whose positions are given."""
    each = [torch.stack([c(combined[:, rows], y[rows]) for c in (plcc, srocc)]) for rows in datasets]
    return torch.stack(each).mean(0).cpu()


def _predictions(outcomes: Sequence[Outcome], splits: Sequence[Split], matrix: ScoreMatrix) -> Tensor | None:
    y = matrix.targets
    if not _covers(splits, len(y)) or len(dataset_rows(matrix)) > 1:
        return None
    found = torch.zeros(len(y), dtype=torch.float64, device="cpu")
    for outcome, split in zip(outcomes, splits, strict=True):
        combined, options = outcome.combined(len(outcome.curve)), outcome.options
        form: Form = options.get("fit") or "logistic5"
        monotone = options.get("monotone", False)
        fit = fit_logistic(combined[split.train], y[split.train], form=form, monotone=monotone)
        found[split.held_out] = fit.predict(combined[split.held_out]).cpu()
    return found


def _covers(splits: Sequence[Split], images: int) -> bool:
    """Whether the held-out parts cover each image exactly once."""
    held = torch.cat([s.held_out for s in splits]) if splits else torch.zeros(0, dtype=torch.long, device="cpu")
    return len(held) == images and bool((torch.bincount(held, minlength=images) == 1).all())
