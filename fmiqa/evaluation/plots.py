"""Plots of evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmiqa._plotting import ORANGE, axes
from fmiqa.correlation import Coefficient
from fmiqa.evaluation.transfer import ALL_MAPS, CrossDataset
from fmiqa.selection.splits import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_transfer"]


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
