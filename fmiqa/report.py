"""One page that shows a selection: its path, its figures with their protocol, and a card for each selected map.

The page is a single HTML file with everything in it: it asks nothing of the network.
"""

from __future__ import annotations

import io
import json
import os
from html import escape
from typing import TYPE_CHECKING

import torch

from fmiqa._io import write_whole
from fmiqa._plotting import load_matplotlib, new_figure
from fmiqa._tables import html_table
from fmiqa.errors import InputError
from fmiqa.evaluation.comparison import Comparison
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.selection import Selection, Validation
from fmiqa.selection.plots import check_same_search, plot_curve, plot_weights
from fmiqa.visualize.cards import STYLE, Cards, embedded
from fmiqa.visualize.plots import plot_agreement, plot_correlation, plot_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_report", "write_report"]

_PAGE = """\
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:16px;max-width:1200px;color:#1b1b1b;background:#fff}
h1{font-size:1.5em;line-height:1.25}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ddd}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9em}caption{text-align:left;color:#555}
table+table{margin-top:1em}th,td{text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid #eee;white-space:nowrap}
img{max-width:100%;height:auto}.plots{display:flex;flex-wrap:wrap;gap:16px}.plots figure{margin:0;max-width:100%}
.plots figcaption,.note{font-size:.85em;color:#555;max-width:540px}.note{max-width:none}
code,pre{font-size:.85em}pre{white-space:pre-wrap;overflow-wrap:anywhere}h1,h3,dd{overflow-wrap:anywhere}
"""


def write_report(
    path: str | os.PathLike[str],
    selection: Selection,
    scores: ScoreMatrix,
    cards: Cards,
    *,
    validation: Validation | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The path of the HTML file.
        selection: The outcome of a search over `scores`.
        scores: The score matrix it was made on: the figures are in sample.
        cards: Cards of the selected maps, see `fmiqa.visualize.map_cards`.
        validation: A validation of the same search, for held-out figures.
        comparison: A comparison with all maps and other metrics on the same images, see `fmiqa.compare`.

    Raises:
        InputError: The matrix is not the one that the selection was made on, or lacks a selected map; a validation of
            another search or matrix; matplotlib is not installed.
    """
    check_report(selection, scores, validation)
    dataset = str(scores.options.get("dataset", "unnamed images"))
    network = str(scores.options.get("network") or ", ".join(scores.options.get("sources", ())) or "a network")
    images, references = len(scores), len(set(scores.groups))
    title = f"{len(selection)} of {len(scores.maps)} feature maps of {network}, selected on {dataset}"
    criterion = str(selection.options.get("criterion", "criterion")).upper()
    protocol = (
        f"Selected by {selection.options.get('search', 'a')} search on {images} images of {references} references, "
        f"{criterion} {selection.value:.4f}. This figure, and every one marked in sample, is measured on the "
        "images that the maps were selected on, and is better than what new images would give."
    )
    parts = [f"<h1>{escape(title)}</h1><p>{escape(protocol)}</p>"]
    if validation is not None:
        parts.append(_section("Held out", _held_out(validation)))
    parts.append(_section("Figures", _plots(selection, scores, validation)))
    if comparison is not None:
        said = "In sample: measured on the images that the maps were selected on."
        parts.append(_section("Beside all maps and other metrics", f'<p class="note">{escape(said)}</p>'
                              f'<div class="scroll">{comparison._repr_html_()}</div>'))  # fmt: skip
    heading = "Weights" if selection.weights is not None else "Path (in sample)"
    parts.append(_section(heading, f'<div class="scroll">{html_table(selection.table())}</div>'))
    parts.append(_section("The selected maps", "".join(card.to_html() for card in cards)))
    options = json.dumps({"options": selection.options, "source": selection.source}, indent=1)
    parts.append(f"<details><summary>Options</summary><pre>{escape(options)}</pre></details>")
    from fmiqa import __version__

    parts.append(f'<p class="note">fmiqa {__version__}, torch {escape(torch.__version__)}</p>')
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_PAGE}{STYLE}</style>'
    )
    page = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'
    write_whole(path, page.encode(errors="backslashreplace"))  # names of files need not be Unicode


def check_report(selection: Selection, scores: ScoreMatrix, validation: Validation | None = None) -> None:
    """Raise `InputError` unless a selection was made on this score matrix, and a validation repeats its search.

    The same is raised where matplotlib is not installed.
    """
    load_matplotlib()
    if validation is not None:
        check_same_search(selection, validation)
    made, given = (
        (source.get("dataset"), images)
        for source, images in ((selection.source, selection.options.get("images")), (scores.options, len(scores)))
    )
    if made != given:
        raise InputError(
            f"the selection was made on {made[1]} images of {made[0]}, the score matrix is of {given[1]} of "
            f"{given[0]}; a report shows a selection on its own images: give the matrix that it was made on"
        )


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>"


def _held_out(validation: Validation) -> str:
    rows = validation.table()
    folds = validation.plcc.shape[0]
    best, smallest = validation.best_size, validation.one_standard_error_size
    groups = validation.options.get("groups", "group")
    words = (
        f"The whole selection was repeated in {folds} folds, each {groups} held out whole, and judged there: "
        f"PLCC {float(validation.mean[smallest - 1]):.4f} with {smallest} maps (the fewest within one standard error "
        f"of the best), {float(validation.mean[best - 1]):.4f} with {best} (the best size, picked on these folds), "
        f"all maps {float(validation.all_plcc.mean()):.4f}."
    )
    table = f"<details><summary>All sizes</summary><div class='scroll'>{html_table(rows)}</div></details>"
    return f"<p>{escape(words)}</p>{table}"


def _plots(selection: Selection, scores: ScoreMatrix, validation: Validation | None) -> str:
    def figure(height: float = 4.0) -> Figure:
        return new_figure(6.4, height)

    drawn: list[tuple[Figure, str]] = []
    first = figure()
    if selection.steps:
        plot_curve(selection, validation=validation, ax=first.subplots())
        words = "How the criterion rose with each map, in sample"
        words += ", and on held-out references" * (validation is not None)
    else:
        plot_weights(selection, ax=first.subplots())
        words = "The maps' shares of the weights"
    drawn.append((first, words))
    second = figure(5.0)
    plot_agreement(scores, selection, ax=second.subplots())
    words = "The selected maps' score and what observers said, with the fitted curve; residuals below. In sample"
    drawn.append((second, words))
    third = figure()
    plot_layers(selection.maps, scores.maps, ax=third.subplots())
    drawn.append((third, "How many maps of each layer were selected, and how many are expected by chance"))
    if len(selection) > 1:
        fourth = figure(5.0)
        plot_correlation(scores, selection.maps, ax=fourth.subplots())
        drawn.append((fourth, "Correlation among the selected maps' scores"))
    tags = (f"<figure>{_embedded(f, text)}<figcaption>{escape(text)}.</figcaption></figure>" for f, text in drawn)
    return f'<div class="plots">{"".join(tags)}</div>'


def _embedded(figure: Figure, alt: str) -> str:
    """A figure as an image, sharp on dense screens."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    width, height = figure.get_size_inches()
    return embedded(buffer.getvalue(), "png", alt, round(84 * width), round(84 * height))
