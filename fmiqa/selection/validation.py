"""Grouped validation: the whole selection repeated on a part of the references, judged on the others."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fmiqa._io import load_json, save_json
from fmiqa._plotting import BLUE, GREEN, GREY, ORANGE, axes, whole_numbers
from fmiqa._progress import progress_bar
from fmiqa._tables import html_table, text_table
from fmiqa.correlation import Form, plcc, srocc
from fmiqa.correlation.bootstrap import group_names
from fmiqa.errors import FileFormatError, FmiqaError, InputError
from fmiqa.maps import MapIndex
from fmiqa.pooling import Pool
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection.criteria import Criterion, Objective
from fmiqa.selection.engine import Candidates, climb
from fmiqa.selection.forward import Direction, read_scores, usable
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import Split, counts_of, grouped_folds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HeldOut", "Validation", "cross_validate", "groups_of", "held_out"]

_KIND = "fmiqa validation 1"


@dataclass(frozen=True, eq=False)
class Validation:
    """What a selection is worth on references that it has not seen.

    A fold whose selection stopped early keeps its last value for larger sizes.

    Args:
        selected: the maps chosen in each fold, in order.
        in_sample: (F, K) the criterion on the images chosen on, for sets of 1 to K maps.
        plcc: (F, K) fitted PLCC on the held-out images, the logistic fitted to these (as for any metric).
        srocc: (F, K) Spearman correlation on the held-out images.
        all_plcc: (F,) fitted PLCC of all maps pooled, on the same held-out images.
        all_srocc: (F,) Spearman correlation of all maps pooled.
        options: how it was run.
    """

    selected: tuple[MapIndex, ...]
    in_sample: Tensor
    plcc: Tensor
    srocc: Tensor
    all_plcc: Tensor
    all_srocc: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """(K,) mean held-out fitted PLCC by number of maps."""
        return self.plcc.mean(0)

    @property
    def standard_error(self) -> Tensor:
        """(K,) standard error of that mean over folds; folds share training images, so it is a little small."""
        return self.plcc.std(0) / math.sqrt(len(self.plcc))

    @property
    def best_size(self) -> int:
        """The number of maps with the highest mean held-out PLCC."""
        return int(self.mean.argmax()) + 1

    @property
    def one_standard_error_size(self) -> int:
        """The smallest number of maps within one standard error of the best."""
        best = self.best_size - 1
        return int((self.mean >= self.mean[best] - self.standard_error[best]).nonzero()[0]) + 1

    def table(self) -> list[tuple[str, ...]]:
        """A row for each number of maps, the header first."""
        rows: list[tuple[str, ...]] = [("maps", "in sample", "held-out PLCC", "± s.e.", "held-out SROCC")]
        for k in range(self.plcc.shape[1]):
            rows.append(
                (
                    str(k + 1),
                    f"{self.in_sample[:, k].mean():.4f}",
                    f"{self.mean[k]:.4f}",
                    f"{self.standard_error[k]:.4f}",
                    f"{self.srocc[:, k].mean():.4f}",
                )
            )
        rows.append(("all", "", f"{self.all_plcc.mean():.4f}", "", f"{self.all_srocc.mean():.4f}"))
        return rows

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw in-sample and held-out curves against the number of maps, with all maps as a level.

        Args:
            ax: where to draw; a new figure by default.
        """
        ax = axes(ax)
        sizes = range(1, self.plcc.shape[1] + 1)
        low, high = (self.mean - self.standard_error).tolist(), (self.mean + self.standard_error).tolist()
        ax.plot(sizes, self.in_sample.mean(0).tolist(), color=BLUE, linestyle="--", label="in sample")
        ax.plot(sizes, self.mean.tolist(), color=ORANGE, marker="o", markersize=4, label="held out")
        ax.fill_between(sizes, low, high, color=ORANGE, alpha=0.2, linewidth=0, label="± one standard error")
        ax.axhline(float(self.all_plcc.mean()), color=GREY, linestyle=":", label="all maps, held out")
        ax.axvline(self.one_standard_error_size, color=GREEN, linewidth=1, label="one-standard-error size")
        ax.set_xlabel("number of feature maps")
        ax.set_ylabel("fitted PLCC")
        whole_numbers(ax)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
        return ax

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON, written whole or not at all."""
        content = {
            "selected": [[str(m) for m in maps] for maps in self.selected],
            **{name: getattr(self, name).tolist() for name in _FIGURES},
            "options": self.options,
        }
        save_json(path, _KIND, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Validation:
        """What `save` saved.

        Raises:
            FileFormatError: the file is missing, damaged, or holds something else.
        """
        content = load_json(path, _KIND)
        try:
            return cls(
                selected=tuple(MapIndex(maps) for maps in content["selected"]),
                options=content["options"],
                **{name: torch.tensor(content[name], dtype=torch.float64, device="cpu") for name in _FIGURES},
            )
        except (KeyError, TypeError, ValueError, FmiqaError) as error:
            raise FileFormatError(f"{path} is not a whole saved validation: {error!r}") from error

    def __str__(self) -> str:
        return text_table(self.table())

    def _repr_html_(self) -> str:
        caption = f"held out by {self.options.get('groups', 'group')}, {len(self.selected)} folds"
        return html_table(self.table(), caption)


_FIGURES = ("in_sample", "plcc", "srocc", "all_plcc", "all_srocc")


def cross_validate(
    scores: ScoreMatrix | Tensor,
    targets: Tensor | None = None,
    *,
    groups: Literal["reference", "distortion"] | Sequence[str] = "reference",
    splits: Sequence[Split] | None = None,
    folds: int | Literal["leave_one_out"] = 5,
    repeats: int = 1,
    seed: int = 0,
    max_maps: int = 30,
    tol: float = 0.0,
    criterion: Criterion = "plcc",
    fit: Form | None = "logistic5",
    pool: Pool = "mean",
    direction: Direction = "rising",
) -> Validation:
    """Repeat the whole selection in each fold and judge it on the references held out.

    All folds advance together: candidates x folds are one batch.

    Args:
        scores: a `ScoreMatrix`, or its values (N, M).
        targets: (N,) subjective scores; a `ScoreMatrix` brings its own.
        groups: what is kept together: `"reference"`, `"distortion"` (both from the `ScoreMatrix`), or a name an image.
        splits: the splits to use instead of folds, such as `grouped_subsamples(...)`.
        folds: how many folds, or `"leave_one_out"`.
        repeats: how often to deal the groups out anew.
        seed: of the dealing.
        max_maps: the K of the curves.
        tol, criterion, fit, pool, direction: as for `forward_select`.

    Returns:
        In-sample and held-out figures of every fold for sets of 1 to K maps, and the maps chosen.

    Raises:
        InputError: as `forward_select`, groups that are missing or too few, held-out parts too small for a fit.
    """
    values, y, maps, source = read_scores(scores, targets)
    if splits is None:
        names = groups_of(scores, groups, len(y))
        splits = grouped_folds(names, folds=folds, repeats=repeats, seed=seed)
    smallest = min((len(s.held_out) for s in splits), default=0)
    if smallest < 5:
        raise InputError(f"a held-out part has {smallest} images, too few for a logistic fit; use fewer folds")
    counts = counts_of([s.train for s in splits], len(y)).to(y)
    objective = Objective(criterion, fit)
    candidates = Candidates(values, y, maps, objective=objective, pool=pool, counts=counts)
    allowed = torch.stack([usable(values[s.train], y[s.train], direction) for s in splits])
    paths = climb(candidates, [[] for _ in splits], allowed, max_maps=max_maps, tol=tol)
    if not all(path.chosen for path in paths):
        raise InputError("in some fold not one map may join: too few usable maps for this data")
    size = max(len(path.chosen) for path in paths)
    held = [_judged(candidates, path.chosen, s.held_out, y, size) for path, s in zip(paths, splits, strict=True)]
    every = candidates.pooled(range(len(maps)))
    reached = [torch.tensor(path.values, dtype=torch.float64, device="cpu") for path in paths]
    return Validation(
        selected=tuple(maps.at(path.chosen) for path in paths),
        in_sample=torch.stack([_extended(values, size) for values in reached]),
        plcc=torch.stack([p for p, _ in held]),
        srocc=torch.stack([s for _, s in held]),
        all_plcc=torch.stack([plcc(every[s.held_out], y[s.held_out]).cpu() for s in splits]),
        all_srocc=torch.stack([srocc(every[s.held_out], y[s.held_out]).cpu() for s in splits]),
        options={
            "groups": groups if isinstance(groups, str) else "given",
            "folds": folds,
            "repeats": repeats,
            "seed": seed,
            "criterion": criterion,
            "fit": fit if criterion == "plcc" else None,
            "pool": pool,
            "direction": direction,
            "max_maps": max_maps,
            "tol": tol,
            "source": source,
        },
    )


def groups_of(scores: ScoreMatrix | Tensor, groups: str | Sequence[str], images: int) -> Sequence[str]:
    """The group of each image, checked."""
    if isinstance(groups, str):
        if not isinstance(scores, ScoreMatrix):
            raise InputError(f"a plain tensor of scores has no {groups} names; pass groups=[a name for each image]")
        if groups not in ("reference", "distortion"):
            raise InputError(f"groups is 'reference', 'distortion' or a name for each image, got {groups!r}")
        found = scores.groups if groups == "reference" else scores.distortions
        if found is None:
            raise InputError("this score matrix has no distortion types; group by 'reference'")
        return found
    names = group_names(groups)
    if len(names) != images:
        raise InputError(f"groups needs a name for each of {images} images, got {len(names)}")
    return [str(name) for name in names]


def _judged(candidates: Candidates, chosen: list[int], rows: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Held-out PLCC and SROCC of the first 1, 2, ... maps of a path, each (size,)."""
    pooled = torch.stack([candidates.pooled(chosen[: k + 1])[rows] for k in range(len(chosen))])
    figures = (plcc(pooled, y[rows]), srocc(pooled, y[rows]))
    return _extended(figures[0].cpu(), size), _extended(figures[1].cpu(), size)


def _extended(values: Tensor, size: int) -> Tensor:
    return torch.cat([values, values[-1:].expand(size - len(values))])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a whole procedure predicts for references that it has not seen.

    Args:
        predictions: (N,) the score of each image by the selection that did not see its reference, mapped to the
            subjective scale by the logistic of that selection's own training images: nothing is refitted.
        plcc: (F,) fitted PLCC on each held-out part, the logistic fitted to that part (as for any metric).
        srocc: (F,) Spearman correlation on each held-out part.
        selections: of the folds.
    """

    predictions: Tensor
    plcc: Tensor
    srocc: Tensor
    selections: tuple[Selection, ...]


def held_out(
    scores: ScoreMatrix, select: Callable[[ScoreMatrix], Selection], *, splits: Sequence[Split], progress: bool = False
) -> HeldOut:
    """Run any procedure on the training part of each split, and judge it on the held-out part.

    Args:
        scores: the images, and all candidate maps.
        select: the whole procedure: a score matrix in, a `Selection` out, such as `forward_select` or
            `weighted_select`; whatever it tunes, it tunes on what it is given.
        splits: such as `grouped_folds(scores.groups)`; the held-out parts must cover each image once.
        progress: show a progress bar.

    Raises:
        InputError: splits that hold an image out never or twice; a selection without a fit.
    """
    held = torch.cat([s.held_out for s in splits]) if splits else torch.zeros(0, dtype=torch.long, device="cpu")
    if len(held) != len(scores) or not bool((torch.bincount(held, minlength=len(scores)) == 1).all()):
        raise InputError("the held-out parts must cover each image exactly once; use grouped_folds with repeats=1")
    predictions = torch.zeros(len(scores), dtype=torch.float64, device="cpu")
    figures, selections = [], []
    for split in progress_bar(splits, show=progress, desc="folds", unit="fold"):
        selection = select(scores.rows(split.train))
        rest = scores.rows(split.held_out)
        combined = selection.combine(rest)
        if selection.fit is None:
            raise InputError("the procedure gave a selection without a fit, so its scores have no common scale")
        predictions[split.held_out] = selection.fit.predict(combined)
        figures.append((plcc(combined, rest.targets), srocc(combined, rest.targets)))
        selections.append(selection)
    each = torch.tensor(figures, dtype=torch.float64, device="cpu")
    return HeldOut(predictions, each[:, 0], each[:, 1], tuple(selections))
