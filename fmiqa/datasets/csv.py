"""Anybody's own data set: a CSV table of reference image, distorted image and score."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fmiqa.datasets.base import ImageDataset, Record
from fmiqa.errors import DatasetError

__all__ = ["CSVDataset"]

T = TypeVar("T")


class CSVDataset(ImageDataset):
    """A data set described by a CSV table with a header line, one scored image a row.

    UTF-8, with or without byte order mark; separated by comma, semicolon, tab or bar; cells may be quoted;
    numbers have a decimal point. Columns that are not named here are ignored.

    Args:
        csv: the table's file.
        root: where its image paths start; by default the table's folder.
        reference_root: where the references' paths start, if elsewhere.
        distorted_root: where the distorted images' paths start, if elsewhere.
        reference: column of the reference images' paths.
        distorted: column of the distorted images' paths.
        score: column of the subjective scores.
        higher_is_better: False for scores that rise with damage (DMOS): they are negated, and the record
            keeps the published one as `raw_score`.
        reference_id: column of the groups for folds; by default the reference's path without its suffix.
        image_name: column of the images' names; by default the distorted image's path as written.
        distortion: column of distortion types.
        level: column of distortion levels, whole numbers; cells may be empty.
        score_std: column of the scores' standard deviations; cells may be empty.
        delimiter: what separates the cells; by default found from the header line.
        name: the data set's name for reports; by default the table's file name without its suffix.

    Raises:
        DatasetError: the table cannot be read, columns are missing (those there are, are listed), or rows are
            bad: every one is named with its line number, and so is every image that `ImageDataset` refuses.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for file, grey in {"a.png": 90, "b.png": 60}.items():
        ...     Image.new("L", (32, 24), grey).save(folder / file)
        >>> _ = (folder / "study.csv").write_text("ref;dist;dmos\\na.png;b.png;0.25\\n")
        >>> data = CSVDataset(folder / "study.csv", reference="ref", distorted="dist", score="dmos",
        ...                   higher_is_better=False)
        >>> data.targets.tolist(), data.reference_ids, data.names
        ([-0.25], ['a'], ['b.png'])
    """

    def __init__(
        self,
        csv: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        reference_root: str | os.PathLike[str] | None = None,
        distorted_root: str | os.PathLike[str] | None = None,
        reference: str = "reference",
        distorted: str = "distorted",
        score: str = "score",
        higher_is_better: bool = True,
        reference_id: str | None = None,
        image_name: str | None = None,
        distortion: str | None = None,
        level: str | None = None,
        score_std: str | None = None,
        delimiter: str | None = None,
        name: str | None = None,
    ) -> None:
        table = Path(csv)
        base = table.parent if root is None else Path(root)
        references = base if reference_root is None else Path(reference_root)
        images = base if distorted_root is None else Path(distorted_root)
        optional = (reference_id, image_name, distortion, level, score_std)
        columns = [reference, distorted, score, *(column for column in optional if column is not None)]

        problems: list[str] = []
        records: list[Record] = []
        places: list[str] = []
        for line, cells in _read_rows(table, columns, delimiter, problems):
            row = _Row(cells)
            reference_path, distorted_path = row.path(reference), row.path(distorted)
            raw = row.number(score)
            record = Record(
                reference=references / reference_path,
                distorted=images / distorted_path,
                score=raw if higher_is_better else -raw,
                reference_id=row.text(reference_id)
                if reference_id
                else str(reference_path.parent / reference_path.stem),
                name=row.text(image_name) if image_name else str(distorted_path),
                distortion=row.text(distortion) if distortion else None,
                level=row.optional(level, _whole, "a whole number"),
                score_std=row.optional(score_std, _deviation, "a number from 0"),
                raw_score=raw,
            )
            place = f"{table.name}, line {line}"
            problems += [f"{place}: {problem}" for problem in row.problems]
            if not row.problems:
                records.append(record)
                places.append(place)
        super().__init__(records, name=table.stem if name is None else name, problems=problems, places=places)


class _Row:
    """The cells of one row; what is wrong with those asked for gathers in `problems`."""

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells
        self.problems: list[str] = []

    def text(self, column: str) -> str:
        if not self._cells[column]:
            self.problems.append(f"column {column!r} is empty")
        return self._cells[column]

    def path(self, column: str) -> PurePosixPath:
        return PurePosixPath(self.text(column).replace("\\", "/"))  # tables made on Windows

    def number(self, column: str) -> float:
        value = self.optional(column, _finite, "a finite number") if self.text(column) else None
        return math.nan if value is None else value

    def optional(self, column: str | None, parse: Callable[[str], T], expected: str) -> T | None:
        text = "" if column is None else self._cells[column]
        if not text:
            return None
        try:
            return parse(text)
        except ValueError:
            comma = "; write decimals with a point" if re.fullmatch(r"[-+]?\d*,\d+", text) else ""
            self.problems.append(f"column {column!r} holds {text!r}, expected {expected}{comma}")
            return None


def _read_rows(
    table: Path, columns: Sequence[str], delimiter: str | None, problems: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's line number and cells by column; rows of another length than the header join `problems`."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"cannot read the table {table}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table} is not UTF-8 text; save it as 'CSV UTF-8'") from error
    lines = text.splitlines(keepends=True)
    if delimiter is None:
        delimiter = _sniff(lines[0] if lines else "", columns)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(table, header, columns)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # blank rows, as spreadsheets leave them
            if len(cells) == len(header):
                yield (
                    reader.line_num,
                    {column: cell.strip() for column, cell in zip(header, cells, strict=True)},
                )
            else:
                problems.append(
                    f"{table.name}, line {reader.line_num}: {len(cells)} cells, the header has "
                    f"{len(header)}; quote cells that hold {delimiter!r}, write decimals with a point"
                )
    except csv.Error as error:
        raise DatasetError(f"{table}, line {reader.line_num}: not a CSV table ({error})") from error


def _sniff(header: str, columns: Sequence[str]) -> str:
    """The separator under which the header line holds most of the asked columns, then most columns."""

    def rank(delimiter: str) -> tuple[int, int]:
        found = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
        return len(set(found) & set(columns)), len(found)

    return max(",;\t|", key=rank)


def _check_header(table: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        there = ", ".join(header) if header else "none, the file is empty"
        raise DatasetError(
            f"{table} has no column {', '.join(map(repr, missing))}; columns there are: {there}. "
            "Name yours, as in CSVDataset(file, score='mos')"
        )
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise DatasetError(f"{table} has two columns named {', '.join(map(repr, twice))}; rename one")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _deviation(text: str) -> float:
    value = _finite(text)
    if value < 0:
        raise ValueError
    return value


def _whole(text: str) -> int:
    value = _finite(text)  # tables written by pandas hold "3.0" where a column has empty cells
    if value != int(value):
        raise ValueError
    return int(value)
