"""Plots of the results of selections and validations.

The colours are those of Okabe and Ito (Color universal design, 2008), which colour-blind readers tell apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fmiqa._plotting import BLUE, GREEN, GREY, ORANGE, SKY, axes, whole_numbers
from fmiqa.correlation import Coefficient, check_coefficient
from fmiqa.errors import InputError
from fmiqa.selection.null import PermutationNull
from fmiqa.selection.observers import ObserverStudy
from fmiqa.selection.options import SearchOptions
from fmiqa.selection.result import Selection
from fmiqa.selection.splits import mean_and_error
from fmiqa.selection.stability import StabilitySelection
from fmiqa.selection.validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

__all__ = [
    "check_same_search",
    "plot_cross_prediction",
    "plot_curve",
    "plot_frequency",
    "plot_null",
    "plot_validation",
    "plot_weights",
]

_NAMED = 40  # maps along an axis whose names can still be read
_HELD_OUT = {("plcc", "logistic5"): "plcc", ("srocc", None): "srocc"}  # the criteria that a validation holds


def plot_curve(selection: Selection, *, validation: Validation | None = None, ax: Axes | None = None) -> Axes:
    """Draw the criterion against the number of maps: in sample, and on references held out.

    Args:
        selection: A selection by a search with steps.
        validation: A validation of the same search on the same score matrix, which adds the held-out mean
            over folds with a band of one standard error either side, and all maps pooled as a level.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: A selection without steps; a validation of another search, or of a criterion that it has not
            measured on the images held out (it has PLCC after a logistic5, and SROCC).

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from fmiqa import forward_select
        >>> targets = torch.linspace(0, 1, 60)
        >>> selection = forward_select(targets[:, None] ** torch.arange(1, 4), targets, max_maps=2)
        >>> plot_curve(selection, ax=Figure().subplots()).get_ylabel()
        'PLCC (logistic5), in sample'
    """
    if selection.weights is not None:
        raise InputError("this selection has no steps to draw a curve of; plot_weights draws its weights")
    if validation is not None:
        check_same_search(selection, validation)
    ax = axes(ax)
    before = len(ax.texts)
    _path(ax, selection)
    if validation is not None:
        _held_out(ax, selection, validation)
        for name in ax.texts[before:]:
            _above(name)  # the held-out curve runs below
    ax.set_xlim(None, 1.1 * ax.dataLim.x1 + 0.5)  # room for the last map's name
    ax.legend(fontsize=8, loc="best")
    return ax


def plot_weights(selection: Selection, *, top: int = _NAMED, ax: Axes | None = None) -> Axes:
    """Draw the weights of the maps in a weighted selection, as shares of their sum.

    Args:
        selection: Such as `weighted_select` gives.
        top: How many of its maps at most, from the first.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: A selection whose maps all weigh the same; fewer than one map.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from fmiqa.maps import MapIndex
        >>> weights = torch.tensor([3.0, 1.0])
        >>> selection = Selection(MapIndex(["conv1:0", "conv2:5"]), (), 0.9, weights=weights)
        >>> [float(bar.get_height()) for bar in plot_weights(selection, ax=Figure().subplots()).patches]
        [0.75, 0.25]
    """
    if selection.weights is None:
        raise InputError("the maps of this selection have no weights: all count the same; plot_curve draws its steps")
    if top < 1:
        raise InputError(f"top is at least 1 map, got {top}")
    share = (selection.weights / selection.weights.sum())[:top].tolist()
    ax = axes(ax, width=7.2)
    ax.bar(range(len(share)), share, color=BLUE)
    ax.set_xticks(range(len(share)), [str(m) for m in selection.maps[: len(share)]], rotation=90, fontsize=7)
    ax.set_xlabel("feature map")
    ax.set_ylabel("share of the weights")
    if len(share) < len(selection):
        ax.set_title(f"the first {len(share)} of {len(selection)} maps", fontsize=9)
    return ax


def plot_validation(validation: Validation, *, figure: Coefficient = "plcc", ax: Axes | None = None) -> Axes:
    """Draw in-sample and held-out curves against the number of maps, with all maps as a level.

    The curve in sample is that of the criterion which the search maximised. It is drawn only beside the held-out figure
    of the same kind. SROCC is not fitted to the scores held out; the logistic of PLCC flatters small folds.

    Args:
        validation: A validation of forward selection.
        figure: Which held-out figure, `"plcc"` or `"srocc"`.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: The validation is of a search whose sets do not grow map by map; another figure.
    """
    check_coefficient(figure)
    if not validation.grows:
        raise InputError(
            f"a validation of {validation.options['search']} search has no curve by number of maps; print() shows it"
        )
    ax = axes(ax)
    held, level = getattr(validation, figure), getattr(validation, f"all_{figure}")
    mean, error = mean_and_error(held)
    sizes = range(1, held.shape[1] + 1)
    if validation.options.get("criterion", "plcc") == figure:
        ax.plot(sizes, validation.in_sample.mean(0).tolist(), color=BLUE, linestyle="--", label="in sample")
    ax.plot(sizes, mean.tolist(), color=ORANGE, marker="o", markersize=4, label="held out")
    _band(ax, mean, error, label="± one standard error")
    ax.axhline(float(level.mean()), color=GREY, linestyle=":", label="all maps, held out")
    ax.axvline(validation.one_standard_error_size, color=GREEN, linewidth=1, label="one-standard-error size (of PLCC)")
    ax.set_xlabel("number of feature maps")
    ax.set_ylabel("fitted PLCC" if figure == "plcc" else "SROCC")
    whole_numbers(ax.xaxis)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax


def plot_null(null: PermutationNull, *, ax: Axes | None = None) -> Axes:
    """Draw the criterion on permuted scores as a histogram, and that on the scores as they are as a line.

    Args:
        null: The outcome of `permutation_null`.
        ax: Where to draw; a new figure by default.
    """
    ax = axes(ax, height=3.2)
    values = null.null[:, -1].tolist()
    ax.hist(values, bins=min(30, 3 + len(values) // 6), color=SKY, label="scores permuted within groups")
    ax.axvline(float(null.observed[-1]), color=ORANGE, label=f"scores not permuted (p = {null.p_value:.3g})")
    ax.set_xlabel("criterion of the selected set (in sample)")
    ax.set_ylabel("permutations")
    whole_numbers(ax.yaxis)
    ax.legend(fontsize=8)
    return ax


def plot_cross_prediction(study: ObserverStudy, *, figure: Coefficient = "plcc", ax: Axes | None = None) -> Axes:
    """Draw how well the maps of each observer predict every observer, as a heat map with its figures.

    Args:
        study: The outcome of `observer_study`.
        figure: `"plcc"` or `"srocc"`.
        ax: Where to draw; a new figure by default.
    """
    matrix = study.cross_prediction(figure)
    size = len(study.observers)
    side = max(4.0, 0.5 * size)
    ax = axes(ax, width=side + 1.6, height=side + 0.8)
    image = ax.imshow(matrix.tolist(), cmap="cividis")
    middle = float(matrix.min() + matrix.max()) / 2
    for a, row in enumerate(matrix.tolist()):
        for b, value in enumerate(row):
            ink = "black" if value > middle else "white"
            ax.text(b, a, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    ax.set_xticks(range(size), list(study.observers), rotation=90, fontsize=8)
    ax.set_yticks(range(size), list(study.observers), fontsize=8)
    ax.set_xlabel("judged on the ratings of")
    ax.set_ylabel("maps selected for")
    name = "fitted PLCC" if figure == "plcc" else "SROCC"
    ax.figure.colorbar(image, ax=ax, label=f"{name}, references held out", shrink=0.85)
    return ax


def plot_frequency(
    stability: StabilitySelection, *, top: int = 30, threshold: float | None = 0.5, ax: Axes | None = None
) -> Axes:
    """Draw how often the maps selected most often are selected on subsamples of the references.

    Args:
        stability: The outcome of `stability_selection`.
        top: How many maps at most; maps that were never selected are left out.
        threshold: The share of subsamples from which a map counts as stable, see `StabilitySelection.stable`; drawn
            as a line unless None.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: Fewer than one map, or a threshold outside (0, 1].

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from fmiqa import stability_selection
        >>> targets = torch.linspace(0, 1, 60)
        >>> values, groups = targets[:, None] ** torch.arange(1, 4), ["a", "b", "c", "d"] * 15
        >>> found = stability_selection(values, targets, groups=groups, subsamples=4, fit=None)
        >>> plot_frequency(found, ax=Figure().subplots()).get_ylabel()
        'share of 4 subsamples'
    """
    if top < 1:
        raise InputError(f"top is at least 1 map, got {top}")
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"threshold is a share of the subsamples in (0, 1], or None, got {threshold}")
    frequency = stability.frequency
    shown = min(top, int((frequency > 0).sum()))
    order = frequency.argsort(descending=True, stable=True)[:shown].tolist()
    ax = axes(ax, width=7.2, height=3.6)
    ax.bar(range(len(order)), frequency[order].tolist(), color=BLUE)
    ax.set_xticks(range(len(order)), [str(stability.maps[i]) for i in order], rotation=90, fontsize=7)
    ax.set_ylim(0, 1)
    if threshold is not None:
        label = f"in at least {threshold:.0%}: {len(stability.stable(threshold))} maps"
        ax.axhline(threshold, color=ORANGE, linestyle="--", label=label)
        ax.legend(fontsize=8, loc="upper right")
    ax.set_xlabel("feature map")
    ax.set_ylabel(f"share of {len(stability.selected)} subsamples")
    return ax


def check_same_search(selection: Selection, validation: Validation) -> None:
    """Raise `InputError` unless a validation repeats the search of a selection, on the same score matrix."""
    ours: dict[str, Any]
    theirs: dict[str, Any]
    same = [f.name for f in fields(SearchOptions) if f.name != "max_maps"]  # curves may go on beyond the selection
    ours, theirs = ({k: o.get(k) or None for k in same} for o in (selection.options, validation.options))
    ours["search"], theirs["search"] = (o.get("search", "forward") for o in (selection.options, validation.options))
    ours["matrix"], theirs["matrix"] = _origin(selection.source), _origin(validation.options.get("source", {}))
    differing = [f"{k}: {ours[k]} here, {theirs[k]} in the validation" for k in ours if ours[k] != theirs[k]]
    if differing:
        raise InputError(f"the validation is of another search ({'; '.join(differing)}); run it with the same options")
    if (ours["criterion"], ours["fit"]) not in _HELD_OUT:
        raise InputError(
            f"a validation holds out PLCC after a logistic5 and SROCC, not {ours['criterion']} with fit {ours['fit']}; "
            "draw the two apart, with validation.plot()"
        )


def _path(ax: Axes, selection: Selection) -> None:
    """The criterion in sample after each step, with the name of the map that joined or was removed."""
    changes = [-1 if s.removed else 1 for s in selection.steps]
    given = len(selection.maps) - sum(changes)
    counts = [given + change for change in accumulate(changes)] or [given]
    values = selection.curve or [selection.value]  # a set that was given, and that no step changed
    ax.plot(counts, values, marker="o", markersize=4, color=BLUE, label="in sample")
    place: Any = {"xytext": (3, -4), "textcoords": "offset points", "rotation": -60, "ha": "left", "va": "top"}
    for count, s in zip(counts, selection.steps, strict=False):
        ax.annotate(s.label(s.map), (count, s.value), fontsize=7, **place)
    low, high = min(values), max(values)
    ax.set_ylim(low - 0.35 * (high - low) - 0.005, high + 0.08 * (high - low) + 0.002)
    ax.set_xlabel("number of feature maps")
    ax.set_ylabel(f"{selection.criterion}, in sample")
    whole_numbers(ax.xaxis)
    ax.grid(alpha=0.3)


def _band(ax: Axes, mean: Tensor, error: Tensor, *, label: str) -> None:
    """One standard error either side of a curve by number of maps."""
    low, high = (mean - error).tolist(), (mean + error).tolist()
    ax.fill_between(range(1, len(mean) + 1), low, high, color=ORANGE, alpha=0.2, linewidth=0, label=label)


def _held_out(ax: Axes, selection: Selection, validation: Validation) -> None:
    figure = _HELD_OUT[selection.options["criterion"], selection.options["fit"]]
    held, level = (getattr(validation, name).double() for name in (figure, f"all_{figure}"))
    (mean, error), folds = mean_and_error(held), len(held)
    sizes = range(1, held.shape[1] + 1)
    ax.plot(sizes, mean.tolist(), color=ORANGE, marker="s", markersize=4, label=f"held out, mean of {folds} folds")
    if folds > 1:
        _band(ax, mean, error, label="held out, ± one standard error")
    ax.axhline(float(level.mean()), color=GREY, linestyle=":", label="all maps, held out")
    ax.set_ylabel(ax.get_ylabel().removesuffix(", in sample"))
    ax.autoscale(axis="y")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))  # room for the names


def _above(name: Text) -> None:
    from matplotlib.text import Annotation

    if isinstance(name, Annotation):
        name.xyann = (0, 5)
        name.set(rotation=90, ha="center", va="bottom")


def _origin(source: Mapping[str, Any]) -> str:
    """What a score matrix was computed from."""
    return json.dumps({k: v for k, v in source.items() if k != "references"}, sort_keys=True) if source else "unknown"
