"""CSV tables read row by row; all that is wrong with them gathers, to be reported at once."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from fmiqa.errors import DatasetError, InputError

__all__ = ["Row", "deviation", "finite", "read_lines", "read_rows", "read_text", "whole_number"]

T = TypeVar("T")


def read_rows(
    table: Path,
    columns: Sequence[str],
    problems: list[str],
    *,
    delimiter: str | None = None,
    prefix: str | None = None,
    advice: str = "",
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV table with a header line, which is the first line that is not blank.

    Args:
        table: Its file; a first line such as "sep=;", which spreadsheets write and read, is allowed.
        columns: Those that must be there, once each.
        problems: Joined by rows of another length than the header.
        delimiter: What separates the cells; by default found from the header line.
        prefix: What at least one column must begin with; no two such columns may be alike.
        advice: What to do where columns are missing.

    Yields:
        Number of the row's first line and cells by column, blanks around them removed; blank rows are left out.

    Raises:
        DatasetError: The table cannot be read or is none, columns are missing, or a quote is not closed.
        InputError: A delimiter that is not a single character.
    """
    text = read_text(table)
    first = re.match(r'\s*"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', text, re.IGNORECASE)
    if first is not None:
        delimiter = first[1] if delimiter is None else delimiter
        text = "\n" * len(first[0].splitlines()) + text[first.end() :]
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise InputError(f"delimiter is a single character such as ';', got {delimiter!r}")
    if delimiter is None:
        delimiter = _sniff(text.lstrip(), columns)
    rows = _rows(table, text, delimiter)
    _, header = next(rows, (0, []))
    _check_header(table, header, columns, prefix, advice)
    for line, cells in rows:
        if len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        else:
            problems.append(
                f"{table.name}, line {line}: {len(cells)} cells, the header has {len(header)}; "
                f"quote cells that hold {delimiter!r}, write decimals with a point"
            )


def read_text(table: Path) -> str:
    """The text of a table in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets save it.

    Raises:
        DatasetError: No such file, or text in another encoding.
    """
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read the table {table}: {error.strerror}") from error
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise DatasetError(
            f"{table}, line {line}: not UTF-8 text (byte 0x{content[error.start]:02x}); save it as 'CSV UTF-8'"
        ) from error
    if "\0" in text:
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise DatasetError(f"{table}, line {line}: not UTF-8 text (it holds null characters); save it as 'CSV UTF-8'")
    return text


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
    if not math.isfinite(value) or "_" in text:  # Python's own 1_000
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


def _rows(table: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and cells of each row that is not blank, blanks around the cells removed."""
    end = "\x04"
    # An open quote takes in all that follows, and the reader says nothing of it: then the last row is not this one.
    lines = io.StringIO(f"{text}\n{end}", newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    line, cells = 1, [""]
    try:
        while True:
            line = reader.line_num + 1
            cells = next(reader, [])
            if lines.tell() == len(text) + 1 + len(end):  # nothing is left
                break
            if any(cell.strip() for cell in cells):  # not a blank row, as spreadsheets leave them
                yield line, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DatasetError(f"{table}, line {line}: not a CSV table ({error})") from error
    if cells != [end]:
        raise DatasetError(f"{table}, line {line}: a quoted cell is not closed; add the missing quote")


def _sniff(text: str, columns: Sequence[str]) -> str:
    """The separator under which the header line holds most of the asked columns, then most columns."""

    def rank(delimiter: str) -> tuple[int, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            found = [cell.strip() for cell in next(reader, [])]
        except csv.Error:
            return 0, 0
        return len(set(found) & set(columns)), len(found)

    return max(",;\t|", key=rank)


def _check_header(table: Path, header: Sequence[str], columns: Sequence[str], prefix: str | None, advice: str) -> None:
    there = ", ".join(header) if header else "none, the file is empty"
    missing = [column for column in columns if column not in header]
    if missing:
        raise DatasetError(f"{table} has no column {', '.join(map(repr, missing))}; columns there are: {there}{advice}")
    begun = [] if prefix is None else list(dict.fromkeys(column for column in header if column.startswith(prefix)))
    if prefix is not None and not begun:
        raise DatasetError(f"{table} has no column that begins with {prefix!r}; columns there are: {there}")
    twice = [column for column in dict.fromkeys([*columns, *begun]) if header.count(column) > 1]
    if twice:
        raise DatasetError(f"{table} has two columns named {', '.join(map(repr, twice))}; rename one")
