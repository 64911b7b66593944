"""CSV tables read row by row; all that is wrong with them gathers, to be reported at once."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fmiqa.errors import DatasetError

__all__ = ["Row", "deviation", "finite", "read_lines", "read_rows", "whole_number"]

T = TypeVar("T")


def read_rows(
    table: Path,
    columns: Sequence[str],
    problems: list[str],
    *,
    delimiter: str | None = None,
    prefix: str | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV table with a header line.

    Args:
        table: its file.
        columns: those that must be there, once each.
        problems: joined by rows of another length than the header.
        delimiter: what separates the cells; by default found from the header line.
        prefix: with which one column must begin at least, no two of them alike.

    Yields:
        Line number and cells by column, blanks around them removed; blank rows are left out.

    Raises:
        DatasetError: the table cannot be read or is none, or columns are missing.
    """
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
        _check_header(table, header, columns, prefix)
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


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its number, runs of blanks made one."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [(n, " ".join(line.split())) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]


class Row:
    """The cells of one row; what is wrong with those asked for gathers in `problems`."""

    def __init__(self, cells: Mapping[str, str]) -> None:
        self._cells = cells
        self.problems: list[str] = []

    def text(self, column: str) -> str:
        """A cell that must not be empty."""
        if not self._cells[column]:
            self.problems.append(f"column {column!r} is empty")
        return self._cells[column]

    def path(self, column: str) -> PurePosixPath:
        """A path, written with either kind of slash."""
        return PurePosixPath(self.text(column).replace("\\", "/"))  # tables made on Windows

    def number(self, column: str) -> float:
        """A finite number that must be there; NaN where it is not."""
        value = self.optional(column, finite, "a finite number") if self.text(column) else None
        return math.nan if value is None else value

    def optional(self, column: str | None, parse: Callable[[str], T], expected: str) -> T | None:
        """What `parse` makes of a cell; None where the cell is empty or of no use."""
        text = "" if column is None else self._cells[column]
        if not text:
            return None
        try:
            return parse(text)
        except ValueError:
            comma = "; write decimals with a point" if re.fullmatch(r"[-+]?\d*,\d+", text) else ""
            self.problems.append(f"column {column!r} holds {text!r}, expected {expected}{comma}")
            return None


def finite(text: str) -> float:
    """A finite number; ValueError otherwise."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def deviation(text: str) -> float:
    """A finite number from 0; ValueError otherwise."""
    value = finite(text)
    if value < 0:
        raise ValueError
    return value


def whole_number(text: str) -> int:
    """A whole number; ValueError otherwise."""
    value = finite(text)  # tables written by pandas hold "3.0" where a column has empty cells
    if value != int(value):
        raise ValueError
    return int(value)


def _sniff(header: str, columns: Sequence[str]) -> str:
    """The separator under which the header line holds most of the asked columns, then most columns."""

    def rank(delimiter: str) -> tuple[int, int]:
        found = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
        return len(set(found) & set(columns)), len(found)

    return max(",;\t|", key=rank)


def _check_header(table: Path, header: Sequence[str], columns: Sequence[str], prefix: str | None) -> None:
    there = ", ".join(header) if header else "none, the file is empty"
    missing = [column for column in columns if column not in header]
    if missing:
        raise DatasetError(
            f"{table} has no column {', '.join(map(repr, missing))}; columns there are: {there}. "
            "Name yours, as in CSVDataset(file, score='mos')"
        )
    begun = [] if prefix is None else list(dict.fromkeys(column for column in header if column.startswith(prefix)))
    if prefix is not None and not begun:
        raise DatasetError(f"{table} has no column that begins with {prefix!r}; columns there are: {there}")
    twice = [column for column in dict.fromkeys([*columns, *begun]) if header.count(column) > 1]
    if twice:
        raise DatasetError(f"{table} has two columns named {', '.join(map(repr, twice))}; rename one")
