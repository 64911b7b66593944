"""What is known about a ready-made metric: its maps, what they were selected on, its figures, its cost, its licence."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fmiqa.correlation import LogisticFit
from fmiqa.errors import InputError
from fmiqa.selection.result import Selection

__all__ = ["FOLDER", "Card", "in_words", "list_metrics", "metric_names"]

FOLDER = Path(__file__).parent

_READING = (
    "The figures by reference and by type are held out: everything that the search chooses, it chooses on the other",
    "images. What it has to choose from (networks, layers, scales, the power of map scores and the share of the",
    "subjective scores) was decided with the figures of this table in view, so that only other data can confirm them",
    "in full. The two experiments of the transfer have other observers, laboratories and distorted images than",
    "TID2013-R, but show scenes that are among its references.",
)


@dataclass(frozen=True)
class Card:
    """The card of a ready-made metric.

    Args:
        name: Name of the metric.
        version: Version of the metric; a metric that gives other values has another version.
        summary: What it is for, in a sentence.
        bundled: Whether the package brings the weights, so that the metric works offline.
        viewing: The options of the `Viewing` that pictures are seen at.
        data: What the maps were selected on, and how.
        figures: Rows of a table: protocol, data set, PLCC, SROCC.
        cost: What an image of 384x512 costs, and where that was measured.
        scale: How map scores become a rating from 0 to 100: the logistic, its ends, and residuals of held-out images.
        licence: The licence of the weights, and their source.
        made_with: The command and the version that made it.
        content: The selection as plain values.
    """

    name: str
    version: str
    summary: str
    bundled: bool
    viewing: dict[str, Any]
    data: dict[str, Any]
    figures: tuple[dict[str, Any], ...]
    cost: dict[str, Any]
    scale: dict[str, Any]
    licence: str
    made_with: str
    content: dict[str, Any]

    @classmethod
    def load(cls, name: str) -> Card:
        """The card of a metric by its name.

        Raises:
            InputError: There is no such metric.
        """
        if name not in metric_names():
            file = isinstance(name, (str, os.PathLike)) and os.path.exists(name)
            advice = "; a metric's file is loaded by fmiqa.SelectedFeatureIQM.load" * file
            raise InputError(f"no ready-made metric {name!r}: there are {', '.join(metric_names())}{advice}")
        content = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        return cls(**{**content, "figures": tuple(content["figures"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "figures": list(self.figures)}

    @cached_property
    def selection(self) -> Selection:
        """The maps with their weights, and what they were selected on."""
        return Selection.from_dict(self.content, {})

    @property
    def networks(self) -> list[str]:
        """The networks that run."""
        sources = self.selection.sources
        return list(dict.fromkeys(sources[m.source]["network"] for m in self.selection.maps))

    @property
    def fit(self) -> LogisticFit:
        """The logistic that takes the combined score to the scale of the subjective scores."""
        return LogisticFit.from_dict(self.scale["fit"])

    def markdown(self) -> str:
        """The card as a page."""
        maps = ", ".join(f"`{m}`" for m in self.selection.maps)
        rows = [
            f"| {row['protocol']} | {row['data']} | {_figure(row['plcc'], row.get('plcc_error'))} | "
            f"{_figure(row['srocc'], row.get('srocc_error'))} | {_figure(row.get('all_maps_plcc'))} |"
            for row in self.figures
        ]
        cost = "\n".join(f"- {name}: {value}" for name, value in self.cost.items())
        data = "\n".join(f"- {name}: {value}" for name, value in self.data.items())
        views = {source: in_words(options["viewing"]) for source, options in self.selection.sources.items()}
        return "\n".join(
            [
                f"# {self.name} {self.version}",
                "",
                self.summary,
                "",
                "| protocol | images | PLCC | SROCC | PLCC of all AlexNet maps |",
                "| --- | --- | --- | --- | --- |",
                *rows,
                "",
                *_READING,
                "",
                "## Selected on",
                "",
                data,
                "",
                "## Cost",
                "",
                cost,
                "",
                "## Definition",
                "",
                f"- networks: {', '.join(self.networks)}",
                f"- weights: {'in the package' if self.bundled else 'not in the package'}",
                *(f"- {source or 'pictures'}: sees pictures at {seen}" for source, seen in views.items()),
                f"- {len(self.selection)} maps, most important first: {maps}",
                f"- licence of the weights: {self.licence}",
                f"- made by: `{self.made_with}`",
                "",
            ]
        )


def in_words(viewing: Mapping[str, Any]) -> str:
    """The options of a `Viewing` as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in viewing.items()) or "native size"


def _figure(value: float | None, error: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def list_metrics() -> dict[str, str]:
    """The ready-made metrics: name -> what it is for.

    Example:
        >>> sorted(list_metrics())
        ['accurate', 'fast', 'paper']
    """
    return {name: Card.load(name).summary for name in metric_names()}


def metric_names() -> list[str]:
    """The names of the ready-made metrics, without reading their cards."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))
