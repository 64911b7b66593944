"""What `fmiqa.reproduce` returns: a table of the paper, ours beside the published figures."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from fmiqa._result import Result, Rows
from fmiqa.datasets import CATALOGUE
from fmiqa.maps import MapIndex
from fmiqa.reproduction.published import ALL_MAPS, Published
from fmiqa.selection.splits import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from typing_extensions import Self

__all__ = ["Measured", "Reproduction", "TableRow", "files_of"]

_NOT_HERE = "not on disk"


@dataclass(frozen=True)
class Measured:
    """What this library finds on a data set.

    Args:
        images: How many were judged.
        references: The number of reference images.
        maps: Chosen on all images, in the order in which they joined.
        plcc: Non-linear PLCC of the selected maps. In sample: on the images that they were selected on.
        srocc: Their Spearman correlation, in sample as well.
        all_plcc: Non-linear PLCC of all maps on all images, the logistic fitted to them.
        all_srocc: Spearman correlation of all maps.
        held_out_maps: How many maps the search, run again without the references of a fold, stopped at.
        held_out_plcc: Non-linear PLCC of these maps on the references of that fold.
        held_out_srocc: Their Spearman correlation there.
        held_out_all_plcc: Non-linear PLCC of all maps on the references of each fold.
        held_out_all_srocc: Spearman correlation of all maps there.
    """

    images: int
    references: int
    maps: MapIndex
    plcc: float
    srocc: float
    all_plcc: float
    all_srocc: float
    held_out_maps: tuple[int, ...]
    held_out_plcc: tuple[float, ...]
    held_out_srocc: tuple[float, ...]
    held_out_all_plcc: tuple[float, ...]
    held_out_all_srocc: tuple[float, ...]


@dataclass(frozen=True)
class TableRow:
    """A data set of the table: one of the paper's, or one that was given in the place of it.

    Args:
        key: The key of the paper's data set in `fmiqa.datasets.CATALOGUE`.
        dataset: The name of the images.
        published: The paper's figures; None where the images are not its data set.
        measured: Ours; None where the data set is not on disk.
        remark: What else the images are, where they are not the paper's data set.
    """

    key: str
    dataset: str
    published: Published | None
    measured: Measured | None
    remark: str = ""

    @property
    def label(self) -> str:
        """The name of the images, and of the paper's data set where they are not that."""
        return f"{self.dataset}, in place of {CATALOGUE[self.key].name}" if self.remark else self.dataset


@dataclass(frozen=True, eq=False, repr=False)
class Reproduction(Result):
    """A table of the paper: published figures, ours in sample, and ours held out; prints as a table, in notebooks too.

    Args:
        table: `"table1"` or `"table2"`.
        network: The network it is of.
        rows: One entry a data set, in the paper's order; what was given in the place of one follows it.
        options: How it was computed.

    Example:
        >>> row = TableRow("tid2013", "TID2013", Published(9, 0.95, 0.91), None)
        >>> print(str(Reproduction("table1", "alexnet", (row,))).splitlines()[2])
        TID2013   9 maps .95, all maps .91  not on disk      not on disk
    """

    table: str
    network: str
    rows: tuple[TableRow, ...]
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa reproduction 1"

    @property
    def measured(self) -> tuple[TableRow, ...]:
        """The rows of data sets that are on disk."""
        return tuple(row for row in self.rows if row.measured is not None)

    @property
    def title(self) -> str:
        """Which table it is, and of what."""
        network = {"alexnet": "AlexNet", "vgg16": "VGG16"}.get(self.network, self.network)
        weights = ", random weights" if self.options.get("random_weights") else ""
        return f"{self.table.replace('table', 'Table ')}: {network}{weights}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read it: the remarks on rows by their numbers first."""
        notes = [f"[{number}] {row.remark}" for number, row in enumerate(self._remarked(), 1)]
        notes.append(
            "Non-linear PLCC. In sample: the maps were selected and judged on the same images, as the published "
            "figures were. Held out: selected again without the references that they are judged on; mean ± standard "
            f"error over {self.options.get('folds', 'the')} folds of whole references."
        )
        notes += [
            f"{row.dataset} is taken for the published set by its name alone: how many images that has is not known."
            for row in self.measured
            if row.published and CATALOGUE[row.key].images is None
        ]
        if self.options.get("random_weights"):
            notes.append("The network has RANDOM weights: its figures are not to be compared with published ones.")
        maps = sum(self.options.get("maps", {}).values())
        if 0 < maps != ALL_MAPS.get(self.network):
            layers = ", ".join(self.options["maps"])
            notes.append(
                f"Only {maps} of {ALL_MAPS.get(self.network)} maps ({layers}): not to be compared with published ones."
            )
        return tuple(notes)

    def table_rows(self) -> Rows:
        """A row for each data set, the header first."""
        rows: Rows = [("data set", "published, in sample", "ours, in sample", "ours, held out")]
        numbers = {id(row): f" [{number}]" for number, row in enumerate(self._remarked(), 1)}
        for row in self.rows:
            published = "-" if row.published is None else _cell(*row.published, digits=2)
            rows.append((row.label + numbers.get(id(row), ""), published, *_ours(row.measured)))
        return rows

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the figures of the table, published, in sample and held out apart.

        Args:
            ax: Where to draw; a new figure by default.
        """
        from fmiqa.reproduction.plots import plot_figures

        return plot_figures(self, ax=ax)

    def plot_maps(self) -> Figure:
        """Draw the selected maps of each data set on disk: how many of each layer, and which.

        Raises:
            InputError: No data set is on disk; matplotlib is not installed.
        """
        from fmiqa.reproduction.plots import plot_selected_maps

        return plot_selected_maps(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "table": self.table,
            "network": self.network,
            "rows": [
                {
                    "key": row.key,
                    "dataset": row.dataset,
                    "published_in_sample": None if row.published is None else row.published._asdict(),
                    "measured": None if row.measured is None else _measured_to_dict(row.measured),
                    "remark": row.remark,
                }
                for row in self.rows
            ],
            "options": dict(self.options),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The table again."""
        rows = tuple(_row(**row) for row in content["rows"])
        return cls(content["table"], content["network"], rows, content["options"])

    def tables(self) -> dict[str, Rows]:
        """The table by its title."""
        return {self.title: self.table_rows()}

    def files(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """The files that `write` writes, by kind, see `files_of`."""
        return files_of(self.table, folder)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the table as Markdown, as JSON and as pictures, see `write_table`."""
        from fmiqa.reproduction.plots import write_table

        write_table(self, folder)

    def __repr__(self) -> str:
        return f"Reproduction({self.title}: {len(self.measured)} data sets on disk)"

    def _remarked(self) -> list[TableRow]:
        return [row for row in self.rows if row.remark]


def files_of(table: str, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The files of a table, by kind: `table1.md`, `table1.json`, `table1.png` and `table1-maps.png` of table 1."""
    ends = {"markdown": ".md", "json": ".json", "plot": ".png", "maps": "-maps.png"}
    return {kind: Path(folder) / f"{table}{end}" for kind, end in ends.items()}


def _ours(measured: Measured | None) -> tuple[str, str]:
    if measured is None:
        return _NOT_HERE, _NOT_HERE
    fewest, most = min(measured.held_out_maps), max(measured.held_out_maps)
    chosen, every = (mean_and_error(torch.tensor(v)) for v in (measured.held_out_plcc, measured.held_out_all_plcc))
    sizes = str(fewest) if fewest == most else f"{fewest} to {most}"
    held_out = f"{sizes} maps {_with_error(*chosen)}, all maps {_with_error(*every)}"
    return _cell(len(measured.maps), measured.plcc, measured.all_plcc, digits=3), held_out


def _cell(maps: int, plcc: float, all_plcc: float, *, digits: int) -> str:
    return f"{maps} maps {_short(plcc, digits)}, all maps {_short(all_plcc, digits)}"


def _with_error(mean: Tensor, error: Tensor) -> str:
    return f"{_short(float(mean), 3)} ± {_short(float(error), 3)}"


def _short(value: float, digits: int) -> str:
    """A coefficient as papers print it, without the zero before the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def _measured_to_dict(measured: Measured) -> dict[str, Any]:
    """In sample and held out apart, so that nobody takes one for the other."""
    return {
        "images": measured.images,
        "references": measured.references,
        "in_sample": {
            "maps": [str(m) for m in measured.maps],
            **{name: getattr(measured, name) for name in _IN_SAMPLE},
        },
        "held_out": {name: list(getattr(measured, f"held_out_{name}")) for name in ("maps", *_IN_SAMPLE)},
    }


_IN_SAMPLE = ("plcc", "srocc", "all_plcc", "all_srocc")


def _row(
    key: str, dataset: str, published_in_sample: dict[str, Any] | None, measured: dict[str, Any] | None, remark: str
) -> TableRow:
    published = None if published_in_sample is None else Published(**published_in_sample)
    if measured is None:
        return TableRow(key, dataset, published, None, remark)
    figures: dict[str, Any] = {f"held_out_{name}": tuple(values) for name, values in measured["held_out"].items()}
    figures |= {**measured["in_sample"], "maps": MapIndex(measured["in_sample"]["maps"])}
    found = Measured(images=measured["images"], references=measured["references"], **figures)
    return TableRow(key, dataset, published, found, remark)
