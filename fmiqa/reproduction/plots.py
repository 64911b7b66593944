"""A reproduced table as files and pictures: its figures, and the selected maps with their layers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from fmiqa._io import write_whole
from fmiqa._plotting import BLUE, GREY, ORANGE, axes, new_figure, save_figure, whole_numbers
from fmiqa.errors import InputError
from fmiqa.maps import MapIndex
from fmiqa.reproduction.result import Reproduction, TableRow, files_of
from fmiqa.selection.splits import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_figures", "plot_selected_maps", "write_table"]

_KINDS = {"published, in sample": (GREY, 0.24), "ours, in sample": (BLUE, 0.0), "ours, held out": (ORANGE, -0.24)}
_IN_A_LINE = 12  # channels of a layer that are written in one line


def write_table(reproduction: Reproduction, folder: str | os.PathLike[str]) -> None:
    """Write a table as Markdown, as JSON (for `load`) and as a picture, and a picture of the selected maps.

    Args:
        reproduction: The table.
        folder: The folder that gets the files, see `files_of`.

    Raises:
        InputError: No data set is on disk; matplotlib is not installed.
    """
    files = files_of(reproduction.table, folder)
    write_whole(files["markdown"], reproduction.to_markdown().encode(errors="backslashreplace"))
    reproduction.save(files["json"])
    figure = new_figure(*_size(reproduction))
    plot_figures(reproduction, figure.subplots())
    save_figure(figure, files["plot"])
    save_figure(plot_selected_maps(reproduction), files["maps"])


def plot_figures(reproduction: Reproduction, ax: Axes | None = None) -> Axes:
    """Draw each data set's figures: filled for the selected maps, hollow for all maps; bars are standard errors.

    Args:
        reproduction: The table.
        ax: Where to draw; a new figure by default.
    """
    rows = list(reversed(reproduction.rows))  # the first on top
    ax = axes(ax, *_size(reproduction))
    for place, row in enumerate(rows):
        for (kind, (colour, shift)), figures in zip(_KINDS.items(), _figures(row), strict=True):
            for value, error, hollow in figures:
                ax.errorbar(
                    value,
                    place + shift + (0.05 if hollow else -0.05),  # or the bars would lie on each other
                    xerr=error,
                    color=colour,
                    marker="s" if hollow else "o",
                    markersize=6,
                    markerfacecolor="white" if hollow else colour,
                    linestyle="",
                    capsize=3,
                    label=f"{kind}: {'all' if hollow else 'selected'} maps",
                )
    names = [row.label.replace(", in", ",\nin") + "\n(not on disk)" * (row.measured is None) for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    for edge in range(1, len(rows)):
        ax.axhline(edge - 0.5, color=GREY, linewidth=0.5, alpha=0.4)
    ax.set_xlabel("non-linear PLCC")
    ax.set_title(reproduction.title, fontsize=10)
    ax.grid(axis="x", alpha=0.3)
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    order = [f"{kind}: {maps} maps" for kind in _KINDS for maps in ("selected", "all")]
    shown = [label for label in order if label in once]
    ax.legend([once[s] for s in shown], shown, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return ax


def plot_selected_maps(reproduction: Reproduction) -> Figure:
    """Draw the selected maps (in sample) of each data set on disk, a panel each.

    A bar is a layer's number of selected maps, and the tick beside it the number expected by chance. Behind the bar are
    the channels, in the order in which they joined.

    Raises:
        InputError: No data set is on disk; matplotlib is not installed.
    """
    rows = reproduction.measured
    if not rows:
        raise InputError("no data set of this table is on disk, so no maps were selected")
    layers = reproduction.options["maps"]
    figure = new_figure(9.0, 0.6 + len(rows) * (1.1 + 0.26 * len(layers)))
    for row, ax in zip(rows, figure.subplots(len(rows), squeeze=False)[:, 0], strict=True):
        _selected(row, layers, ax)
    figure.suptitle(f"{reproduction.title}: the maps selected on all images (in sample)", fontsize=10)
    return figure


def _size(reproduction: Reproduction) -> tuple[float, float]:
    """Width and height in inches."""
    return 9.5, 1.4 + 0.62 * len(reproduction.rows)


def _selected(row: TableRow, layers: dict[str, int], ax: Axes) -> None:
    assert row.measured is not None
    maps: MapIndex = row.measured.maps
    places, total = range(len(layers)), sum(layers.values())
    channels = [maps.channels.get(layer, []) for layer in layers]
    counts = [len(c) for c in channels]
    chance = [len(maps) * size / total for size in layers.values()]
    ax.barh(places, counts, height=0.6, color=BLUE, label=f"{len(maps)} selected maps")
    ax.scatter(chance, places, marker="|", s=180, color=ORANGE, linewidths=2.5, label="by chance", zorder=3)
    longest = max(counts + chance)
    for place, found in zip(places, channels, strict=True):
        named = ", ".join(map(str, found[:_IN_A_LINE])) + (" ..." if len(found) > _IN_A_LINE else "")
        right = max(counts[place], chance[place]) + 0.03 * longest
        ax.text(right, place, named, va="center", fontsize=7)
    ax.set_yticks(places, list(layers), fontsize=8)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_xlim(0, 2.2 * longest)  # room for the channels
    ax.set_xlabel("number of selected maps; behind the bars, their channels", fontsize=8)
    whole_numbers(ax.xaxis)
    said = f"{row.label}: {row.measured.images} images of {row.measured.references} references"
    ax.set_title(said, fontsize=9)
    ax.legend(fontsize=8, loc="lower right", markerscale=0.6)


def _figures(row: TableRow) -> list[list[tuple[float, float | None, bool]]]:
    """For each kind of figure: value, standard error, and whether it is of all maps."""
    published, measured = row.published, row.measured
    found: list[list[tuple[float, float | None, bool]]] = [[], [], []]
    if published is not None:
        found[0] = [(published.plcc, None, False), (published.all_plcc, None, True)]
    if measured is not None:
        found[1] = [(measured.plcc, None, False), (measured.all_plcc, None, True)]
        held = ((measured.held_out_plcc, False), (measured.held_out_all_plcc, True))
        for values, hollow in held:
            mean, error = mean_and_error(torch.tensor(values))
            found[2].append((float(mean), float(error), hollow))
    return found
