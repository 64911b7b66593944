"""Plots of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fmiqa._plotting import BLUE, GREY, ORANGE, axes, shown_figure
from fmiqa.correlation import Coefficient, check_coefficient
from fmiqa.evaluation.comparison import Comparison, Estimate
from fmiqa.evaluation.transfer import ALL_MAPS, CrossDataset
from fmiqa.selection.splits import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison", "plot_transfer"]


def plot_comparison(comparison: Comparison, *, figure: Coefficient = "plcc") -> Figure:
    """Draw how well metrics agree with the subjective scores, and how they differ, all with their intervals.

    Args:
        comparison: The outcome of `compare` or `evaluate`.
        figure: `"plcc"` or `"srocc"`. Verdicts are drawn beside PLCC, which decides them.

    Returns:
        The figure, with two panels; with one where there is one metric.

    Raises:
        InputError: Another figure; matplotlib is not installed.
    """
    check_coefficient(figure)
    agreements, differences = comparison.agreements, comparison.differences
    ratios = [len(rows) + 1 for rows in (agreements, differences) if rows]
    drawn = shown_figure(7.2, 1.1 + 0.42 * sum(ratios))
    panels = drawn.subplots(len(ratios), height_ratios=ratios, squeeze=False)[:, 0]
    name = "non-linear PLCC" if figure == "plcc" and comparison.options.get("fit") else figure.upper()
    level = f"{100 * comparison.options['level']:g} % interval"
    _intervals(panels[0], {a.name: getattr(a, figure) for a in agreements}, [BLUE] * len(agreements))
    panels[0].set_xlabel(f"{name}, with {level}")
    if differences:
        decides = figure == "plcc"
        colours = [ORANGE if d.real and decides else GREY for d in differences]
        named = {f"{d.first} - {d.second}": getattr(d, figure) for d in differences}
        _intervals(panels[1], named, colours, [d.verdict for d in differences] if decides else [])
        panels[1].axvline(0, color="black", linestyle=":", linewidth=1)
        panels[1].set_xlabel(f"difference of {name}, with {level} (each by itself)")
    return drawn


def _intervals(ax: Axes, rows: Mapping[str, Estimate], colours: Sequence[str], texts: Sequence[str] = ()) -> None:
    """A row for each estimate, the first on top: its value and interval, and a text above it."""
    for row, (estimate, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        ax.plot(estimate[1:], (row, row), color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
        ax.plot(estimate.value, row, "o", color=colour)
    for row, (estimate, text) in enumerate(zip(rows.values(), texts, strict=False)):
        ax.annotate(text, (estimate.value, row), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.75 if texts else -0.5)
    ax.margins(x=0.12)
    ax.grid(alpha=0.3, axis="x")


def plot_transfer(study: CrossDataset, *, figure: Coefficient = "plcc", ax: Axes | None = None) -> Axes:
    """Draw what maps selected on each data set are worth on every other, as a heat map.

    The diagonal, which is framed, is coloured by its held-out figures where there are any.

    Args:
        study: The outcome of `cross_dataset`.
        figure: `"plcc"` or `"srocc"`.
        ax: Where to draw; a new figure by default.
    """
    matrix, held_out = study.figures(figure)
    size = len(study.datasets)
    shown = matrix.clone()
    texts = [[f"{v:.3f}" + " †" * study.shares(a, b) for b, v in enumerate(row)] for a, row in enumerate(matrix)]
    for a in range(size):
        texts[a][a] += "\nin sample"
        if held_out.shape[1]:
            mean, error = map(float, mean_and_error(held_out[a]))
            shown[a, a] = mean
            texts[a][a] = f"{mean:.3f} ± {error:.3f}\nheld out\n({matrix[a, a]:.3f} in sample)"
    ax = axes(ax, width=3.2 + 1.35 * size, height=1.6 + 0.85 * (size + 1))
    image = ax.imshow(shown.tolist(), cmap="cividis", aspect="auto")
    middle = float(shown.min() + shown.max()) / 2
    for a, row in enumerate(texts):
        for b, text in enumerate(row):
            ink = "black" if shown[a, b] > middle else "white"
            ax.text(b, a, text, ha="center", va="center", fontsize=8, color=ink)
    from matplotlib.patches import Rectangle

    for a in range(size):
        ax.add_patch(Rectangle((a - 0.48, a - 0.48), 0.96, 0.96, fill=False, edgecolor=ORANGE, linewidth=2))
    ax.set_xticks(range(size), list(study.datasets), fontsize=8)
    names = [f"{name}\n({len(maps)} maps)" for name, maps in zip(study.datasets, study.selected, strict=True)]
    ax.set_yticks(range(size + 1), [*names, f"nothing:\n{ALL_MAPS}"], fontsize=8)
    ax.set_xlabel("judged on" + "\n† references of the same names" * bool(study.shared.triu(1).any()))
    ax.set_ylabel("maps selected on")
    name = "non-linear PLCC" if figure == "plcc" else "SROCC"
    ax.figure.colorbar(image, ax=ax, label=f"{name}{', on the diagonal held out' * bool(held_out.shape[1])}")
    return ax
