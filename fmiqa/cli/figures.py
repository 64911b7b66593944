"""The pictures of a selection (how the criterion rose, what the maps say beside the observers) and a validation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fmiqa._plotting import ORANGE, new_figure, save_figure
from fmiqa.cli.results import agreement, judging
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection import Selection, Validation
from fmiqa.selection.plots import plot_weights
from fmiqa.visualize.plots import plot_agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["save_selection_figure", "save_validation_figure"]


def save_selection_figure(path: str | os.PathLike[str], selection: Selection, scores: ScoreMatrix) -> None:
    """Draw a selection and the score matrix it was made on, in two panels.

    Args:
        path: .png, .svg, .pdf.
        selection: as a search over `scores` gave it.
        scores: that score matrix.
    """
    figure = new_figure(12.5, 4.6)
    left, right = figure.subplots(1, 2)
    if selection.weights is None:
        selection.plot(left)
        _all_maps_line(left, selection, scores)
    else:
        plot_weights(selection, ax=left)
    plot_agreement(scores, selection, ax=right)
    network = scores.options.get("network") or ", ".join(scores.options.get("sources", ()))
    source = " on ".join(str(part) for part in (network, scores.options.get("dataset")) if part)
    figure.suptitle(f"{source}: {len(selection)} of {len(scores.maps)} maps, in sample")
    save_figure(figure, path)


def save_validation_figure(path: str | os.PathLike[str], validation: Validation) -> None:
    """Draw the curves of a validation."""
    figure = new_figure(6.4, 4.0)
    validation.plot(figure.subplots())
    save_figure(figure, path)


def _all_maps_line(ax: Axes, selection: Selection, scores: ScoreMatrix) -> None:
    quality, options = scores.pool(pool=selection.pool), selection.options
    row = agreement("all maps", len(scores.maps), quality, scores.targets, **judging(options))
    value = getattr(row, options["criterion"])
    ax.axhline(value, color=ORANGE, linestyle="--", label=f"all {len(scores.maps)} maps: {value:.4f}")
    ax.lines[0].set_label(f"{len(selection)} chosen maps: {selection.value:.4f}")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, value - 0.28 * (high - value)), high)  # room for the legend below the line
    ax.set_xlim(None, 1.1 * len(selection) + 0.5)  # and for the last map's name
    ax.legend(loc="lower right")
