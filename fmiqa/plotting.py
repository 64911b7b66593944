"""What the library's plots share: axes, and a palette that colour-blind readers can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmiqa.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "SKY", "axes", "whole_numbers"]

# Okabe & Ito's colours.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#555555"


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The given axes, or those of a new figure of that size in inches.

    Raises:
        InputError: matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError("plots need the package matplotlib: pip install 'fmiqa[plot]'") from error
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def whole_numbers(ax: Axes) -> None:
    """Label the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
