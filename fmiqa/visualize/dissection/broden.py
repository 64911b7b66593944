"""Broden, the broadly and densely labelled data set of network dissection, in the layout in which it is distributed.

Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017; http://netdissect.csail.mit.edu/.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fmiqa.datasets.images import read_image
from fmiqa.errors import DatasetError, InputError
from fmiqa.visualize.dissection.concepts import Concept, ConceptImage, Labels

__all__ = ["Broden"]


class Broden:
    """Broden, or any data set laid out like it.

    The folder holds `index.csv` (a line an image: image, split, ih, iw, sh, sw, and a column for each category; a cell
    lists, separated by ";", label images or numbers of concepts that hold for the whole image), `label.csv` (number,
    name, category; the last as in "color(289);material(3)", with the number of images), `category.csv` (name) and the
    images and label images in `images/`. A label image has the concept's number in red + 256 green.

    A concept of several categories is counted with one of them, its primary category: that in which it covers most
    (`c_<category>.csv`, column coverage), or has most images where those files are missing.

    Args:
        root: The folder.
        split: Only the images of this split ("train", "val"); all by default.
        partial: Leave out the images of which a file is missing.

    Raises:
        DatasetError: Files, columns, images or label images are missing or malformed; all are named. Also when an
            image that is asked for turns out to be damaged or of another size.

    Example:
        >>> data = Broden("/data/broden1_227", split="val")  # doctest: +SKIP
        >>> data[0].label_size  # doctest: +SKIP
        (113, 113)
    """

    def __init__(self, root: str | os.PathLike[str], *, split: str | None = None, partial: bool = False) -> None:
        self.root = Path(root)
        self.name = "Broden" if split is None else f"Broden {split}"
        problems = [f"{name} is missing: {what}" for name, what in _LAYOUT.items() if not (self.root / name).exists()]
        if problems:
            raise DatasetError(f"Broden is not at {self.root}; the folder must hold:", problems)
        categories = [row["name"] for _, row in self._table("category.csv", ["name"], problems)]
        columns = [*_IMAGE_COLUMNS, *categories]
        index = self._table("index.csv", columns, problems)
        self.concepts = self._read_concepts(categories, problems)
        if split is not None:
            splits = sorted({row["split"] for _, row in index})
            index = [(place, row) for place, row in index if row["split"] == split]
            if not index and not problems:
                problems.append(f"index.csv has no image of split {split!r}; there are {', '.join(splits) or 'none'}")
        self._rows = list(self._read_rows(index, categories, problems))
        missing = self._missing_files()
        if partial:
            self._rows = [row for row in self._rows if not missing.intersection(row.files())]
        else:
            problems += [f"images/{name} is missing (partial=True leaves such images out)" for name in sorted(missing)]
        if not self._rows and not problems:
            problems.append("no image is left")
        if problems:
            raise DatasetError(f"Broden at {self.root} is broken:", problems)

    @property
    def names(self) -> list[str]:
        """The images' paths in `images/`."""
        return [row.image for row in self._rows]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image, from the index."""
        return [row.image_size for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ConceptImage:
        row = self._rows[index]
        image = self._read(row.image, row.image_size)
        labels: dict[str, Labels] = {}
        for category, entries in row.labels.items():
            numbers = [entry for entry in entries if isinstance(entry, int)]
            if len(numbers) == len(entries):
                labels[category] = tuple(numbers)
            else:
                labels[category] = torch.stack([self._layer(entry, row.label_size) for entry in entries])
        return ConceptImage(image, labels, row.image, row.label_size)

    def _layer(self, entry: str | int, size: tuple[int, int]) -> Tensor:
        if isinstance(entry, int):
            return torch.full(size, entry, device="cpu")
        rgb = self._read(entry, size).long()
        return rgb[0] + 256 * rgb[1]

    def _read(self, name: str, size: tuple[int, int]) -> Tensor:
        try:
            pixels = read_image(self.root / "images" / name)
        except InputError as error:
            raise DatasetError(f"Broden at {self.root} is damaged:", [str(error)]) from error
        if pixels.dtype != torch.uint8:
            raise DatasetError(
                f"Broden at {self.root} is damaged:", [f"images/{name} has 16 bits a channel, expected 8"]
            )
        if pixels.shape[-2:] != size:
            found = " x ".join(map(str, pixels.shape[-2:]))
            said = " x ".join(map(str, size))
            raise DatasetError(
                f"Broden at {self.root} contradicts itself:",
                [f"images/{name} is {found} (height x width), index.csv says {said}"],
            )
        return pixels

    def _table(self, name: str, columns: Sequence[str], problems: list[str]) -> list[tuple[str, dict[str, str]]]:
        """The rows of a table, each with its place for reports; a missing column joins `problems`."""
        with open(self.root / name, newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                problems.append(f"{name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
                return []
            return [(f"{name}, line {reader.line_num}", row) for row in reader]

    def _read_concepts(self, categories: Sequence[str], problems: list[str]) -> tuple[Concept, ...]:
        coverage = {category: self._coverage(category, problems) for category in categories}
        concepts: dict[int, Concept] = {}
        for place, row in self._table("label.csv", ["number", "name", "category"], problems):
            if row["number"] == "0":
                continue
            kinds = [_KIND.fullmatch(kind) for kind in row["category"].split(";")]
            if not row["number"].isdecimal() or not all(kinds):
                given = f"{row['number']!r} and {row['category']!r}"
                problems.append(f"{place}: expected a number and categories as in 'color(289);part(3)', got {given}")
                continue
            number = int(row["number"])
            weights = {kind[1]: (coverage.get(kind[1], {}).get(number, 0.0), int(kind[2])) for kind in kinds if kind}
            if number in concepts:
                problems.append(f"{place}: number {number} stands twice")
            unknown = [category for category in weights if category not in categories]
            if unknown:
                problems.append(f"{place}: no such category in category.csv: {', '.join(unknown)}")
            order = sorted(weights, key=lambda category: weights[category], reverse=True)
            concepts[number] = Concept(number, row["name"], tuple(order))
        return tuple(concepts.values())

    def _coverage(self, category: str, problems: list[str]) -> dict[int, float]:
        name = f"c_{category}.csv"
        if not (self.root / name).exists():
            return {}
        rows = self._table(name, ["number", "coverage"], problems)
        return {int(row["number"]): float(row["coverage"]) for _, row in rows if _is_coverage(row)}

    def _read_rows(
        self, index: Iterable[tuple[str, dict[str, str]]], categories: Sequence[str], problems: list[str]
    ) -> Iterable[_Row]:
        known = {concept.number for concept in self.concepts} | {0}
        for place, row in index:
            sizes = [row[key] for key in ("ih", "iw", "sh", "sw")]
            if not all(size.isdecimal() and int(size) for size in sizes):
                problems.append(f"{place}: ih, iw, sh and sw are whole numbers from 1, got {', '.join(sizes)}")
                continue
            labels = {category: _entries(row[category]) for category in categories if row[category]}
            numbers = {entry for entries in labels.values() for entry in entries if isinstance(entry, int)}
            if numbers - known:
                unknown = ", ".join(map(str, sorted(numbers - known)))
                problems.append(f"{place}: no such concept in label.csv: {unknown}")
            height, width, label_height, label_width = map(int, sizes)
            yield _Row(row["image"], (height, width), (label_height, label_width), labels)

    def _missing_files(self) -> set[str]:
        # Folders listed once: asking after each of 200,000 files takes long on a network disk.
        wanted = {name for row in self._rows for name in row.files()}
        present: set[str] = set()
        for folder in {os.path.dirname(name) for name in wanted}:
            path = self.root / "images" / folder
            if path.is_dir():
                present.update(f"{folder}/{entry}" if folder else entry for entry in os.listdir(path))
        return wanted - present


_LAYOUT = {
    "index.csv": "a line an image, with its sizes and labels",
    "label.csv": "a line a concept",
    "category.csv": "a line a category",
    "images": "the folder of images and label images",
}

_IMAGE_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")

_KIND = re.compile(r"([^()]+)\((\d+)\)")  # "color(289)"


@dataclass(frozen=True)
class _Row:
    """One line of the index."""

    image: str
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    labels: dict[str, tuple[str | int, ...]]

    def files(self) -> list[str]:
        """The image and its label images."""
        return [self.image, *(e for entries in self.labels.values() for e in entries if isinstance(e, str))]


def _entries(cell: str) -> tuple[str | int, ...]:
    return tuple(int(entry) if entry.isdecimal() else entry for entry in cell.split(";") if entry)


def _is_coverage(row: dict[str, str]) -> bool:
    try:
        float(row["coverage"])
    except ValueError:
        return False
    return row["number"].isdecimal()
