"""Plots of maps and their scores: how they agree with the observers, where maps lie and how alike they are.

The colours are those of Okabe and Ito (Color universal design, 2008), which colour-blind readers tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmiqa._checks import check_tensor
from fmiqa._plotting import BLUE, GREEN, GREY, ORANGE, SKY, axes, new_figure
from fmiqa.correlation import fit_logistic
from fmiqa.errors import InputError
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection import Selection
from fmiqa.selection.criteria import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_agreement", "plot_correlation", "plot_layers", "selection_figure"]

_NAMED = 40  # maps along an axis whose names can still be read
# Okabe & Ito's, but grey for black, which the fit has, and indigo for yellow, which is faint on white.
_TYPES = tuple(zip((BLUE, ORANGE, GREEN, SKY, GREY, "#CC79A7", "#E69F00", "#332288"), "os^DvPX*", strict=True))


def selection_figure(selection: Selection, scores: ScoreMatrix) -> Figure:
    """Draw a selection in two panels: its path or weights, and its score beside the subjective scores.

    Args:
        selection: The outcome of a search over `scores`.
        scores: The score matrix that it was made on.
    """
    figure = new_figure(12.5, 4.6)
    left, right = figure.subplots(1, 2)
    selection.plot(left)
    if selection.weights is None:
        _all_maps_line(left, selection, scores)
    plot_agreement(scores, selection, ax=right)
    network = scores.options.get("network") or ", ".join(scores.options.get("sources", ()))
    origin = " on ".join(str(part) for part in (network, scores.options.get("dataset")) if part)
    figure.suptitle(f"{origin}: {len(selection)} of {len(scores.maps)} maps, in sample")
    return figure


def plot_agreement(scores: ScoreMatrix, quality: Selection | Tensor, *, ax: Axes | None = None) -> tuple[Axes, Axes]:
    """Draw objective against subjective scores with the logistic between them, and its residuals beneath.

    Images are coloured by distortion type where there are 2 to 8 of them.

    Args:
        scores: The images.
        quality: A selection, drawn with its own logistic, that of the images it was made on; or (N,) scores of any
            metric, with a logistic5 fitted to these images.
        ax: Whose place both panels take; a new figure by default.

    Returns:
        The scatter, and the residuals: subjective score minus fit.

    Raises:
        InputError: A matrix that lacks maps of the selection, scores of another number of images or not finite, or
            axes that stand outside a grid of subplots.

    Example:
        >>> from matplotlib.figure import Figure
        >>> maps = MapIndex(["conv1:0", "conv1:1"])
        >>> names = [f"image{i}" for i in range(20)]
        >>> scores = ScoreMatrix(torch.rand(20, 2), maps, torch.rand(20).double(), names, names)
        >>> scatter, residuals = plot_agreement(scores, scores.pool(), ax=Figure().subplots())
        >>> residuals.get_ylabel()
        'residual'
    """
    chosen = quality if isinstance(quality, Selection) else None
    if chosen is None:
        check_tensor(quality, "quality, unless it is a Selection, (N,)")
    x = (quality.combine(scores) if isinstance(quality, Selection) else quality).detach().double().cpu()
    y = scores.targets.double().cpu()
    if x.shape != y.shape or not bool(x.isfinite().all()):
        raise InputError(f"quality needs a finite score for each of the {len(y)} images, got {tuple(x.shape)}: {x}")
    # The parameters may lie on another device than the score matrix.
    if chosen is None or chosen.fit is None:
        fit, whose = fit_logistic(x, y), "fitted to these images"
    else:
        fit, whose = chosen.fit, "of the selection"
    line = torch.linspace(float(x.min()), float(x.max()), 400, dtype=torch.float64, device="cpu")
    fitted, drawn = (fit.predict(part.to(fit.parameters.device)).cpu() for part in (x, line))

    above, below = _two_panels(axes(ax, height=5.4))
    kinds = [""] if scores.distortions is None else sorted(set(scores.distortions))
    coloured = scores.distortions is not None and 1 < len(kinds) <= len(_TYPES)
    for kind, (colour, marker) in zip(kinds if coloured else [""], _TYPES, strict=False):
        rows = [i for i, d in enumerate(scores.distortions or ()) if d == kind] if coloured else slice(None)
        for panel, height in ((above, y), (below, y - fitted)):
            panel.scatter(
                x[rows], height[rows], s=12, alpha=0.6, linewidths=0, color=colour, marker=marker, label=kind or None
            )
    above.plot(line, drawn, color="black", label=f"{fit.form} {whose}")
    below.axhline(0, color="black", linewidth=1)
    above.set_ylabel(_subjective(scores))
    below.set_ylabel("residual")
    below.set_xlabel("objective score" if chosen is None else f"score of the {len(chosen)} selected maps")
    above.tick_params(labelbottom=False)
    for panel in (above, below):
        panel.grid(alpha=0.3)
    outside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)} if coloured else {"loc": "upper left"}
    above.legend(fontsize=8, markerscale=1.6, **outside)
    return above, below


def plot_layers(
    maps: Iterable[FeatureMap | str], all_maps: Iterable[FeatureMap | str], *, ax: Axes | None = None
) -> Axes:
    """Draw how many of the selected maps lie in each layer, beside how many would by chance.

    By chance, a layer's part of the selected maps is its part of all maps.

    Args:
        maps: The selected maps.
        all_maps: The candidates that they were selected from.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: No maps, or some that are not among the candidates.

    Example:
        >>> from matplotlib.figure import Figure
        >>> all_maps = MapIndex.of_layers({"conv1": 4, "conv2": 12})
        >>> ax = plot_layers(["conv1:0", "conv1:3"], all_maps, ax=Figure().subplots())
        >>> [float(bar.get_height()) for bar in ax.patches]
        [2.0, 0.0, 0.5, 1.5]
    """
    chosen, every = MapIndex(maps), MapIndex(all_maps)
    every.positions(chosen)
    if not len(chosen):
        raise InputError("no selected maps to count by layer")
    counts = [len(chosen.channels.get(layer, ())) for layer in every.layers]
    expected = [len(chosen) * len(channels) / len(every) for channels in every.channels.values()]
    ax = axes(ax)
    places = range(len(counts))
    ax.bar([p - 0.2 for p in places], counts, width=0.4, color=BLUE, label=f"{len(chosen)} selected maps")
    label = f"expected by chance from all {len(every)} maps"
    ax.bar([p + 0.2 for p in places], expected, width=0.4, color=SKY, label=label)
    many = len(every.layers) > 8
    ax.set_xticks(places, every.layers, rotation=90 if many else 0, fontsize=7 if many else None)
    ax.set_xlabel("layer")
    ax.set_ylabel("number of selected maps")
    ax.set_ylim(0, 1.25 * max(counts + expected))  # room for the legend above the bars
    ax.legend(fontsize=8, loc="upper right")
    return ax


def plot_correlation(scores: ScoreMatrix, maps: Iterable[FeatureMap | str], *, ax: Axes | None = None) -> Axes:
    """Draw the Pearson correlation among the scores of maps over images, from -1 to 1.

    Args:
        scores: The images.
        maps: Two maps or more.
        ax: Where to draw; a new figure by default.

    Raises:
        InputError: Unknown maps, fewer than two, or a map whose scores are constant or not finite.

    Example:
        >>> from matplotlib.figure import Figure
        >>> maps = MapIndex(["conv1:0", "conv1:1"])
        >>> names = [f"image{i}" for i in range(20)]
        >>> scores = ScoreMatrix(torch.rand(20, 2), maps, torch.rand(20).double(), names, names)
        >>> plot_correlation(scores, maps, ax=Figure().subplots()).images[0].get_array().shape
        (2, 2)
    """
    chosen = scores.columns(maps)
    names = [str(m) for m in chosen.maps]
    values = chosen.values.double().cpu()
    if len(names) < 2 or len(values) < 2:
        raise InputError(f"a correlation needs two maps and two images, got {len(names)} and {len(values)}")
    low, high = values.aminmax(dim=0)
    without = [
        name for name, good in zip(names, ((high > low) & (high - low).isfinite()).tolist(), strict=True) if not good
    ]
    if without:
        raise InputError(f"the scores of {', '.join(without[:10])} are constant or not finite: leave out such maps")
    shown = range(0, len(names), math.ceil(len(names) / _NAMED))
    side = 2.6 + 0.13 * len(shown)
    ax = axes(ax, width=side + 0.8, height=side)
    # Red and blue are told apart under every common colour blindness, red and green are not.
    image = ax.imshow(torch.corrcoef(values.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label=f"Pearson correlation over {len(values)} images")
    ax.set_xticks(shown, [names[i] for i in shown], rotation=90, fontsize=7)
    ax.set_yticks(shown, [names[i] for i in shown], fontsize=7)
    ax.set_xlabel("feature map")
    ax.set_ylabel("feature map")
    return ax


def _all_maps_line(ax: Axes, selection: Selection, scores: ScoreMatrix) -> None:
    """The criterion of all maps, beside the path of a selection."""
    options = selection.options
    objective = Objective(options["criterion"], options.get("fit"), options.get("monotone", False))
    quality, y = scores.pool(pool=selection.pool)[None], scores.targets[None]
    value = float(objective.exact(quality, y, torch.ones_like(y)))
    ax.axhline(value, color=ORANGE, linestyle="--", label=f"all {len(scores.maps)} maps: {value:.4f}")
    ax.lines[0].set_label(f"{len(selection)} selected maps: {selection.value:.4f}")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, value - 0.28 * (high - value)), high)  # room for the legend below the line
    ax.legend(loc="lower right")


def _two_panels(ax: Axes) -> tuple[Axes, Axes]:
    """The axes, shrunk to the upper part of their place, and new ones under them with the same x."""
    place = ax.get_subplotspec()
    if place is None:
        raise InputError("two panels need axes of a grid, such as those of plt.subplots(), to divide their place")
    rows = place.subgridspec(2, 1, height_ratios=(3, 1))
    ax.set_subplotspec(rows[0])
    return ax, ax.figure.add_subplot(rows[1], sharex=ax)


def _subjective(scores: ScoreMatrix) -> str:
    dataset = scores.options.get("dataset")
    return "subjective score" + (f",\nunits of {dataset}" if dataset else "")
