"""Sheets of .xlsx workbooks as rows of text; no more of the format than tables of scores need.

Source: ECMA-376, Office Open XML File Formats, part 1, SpreadsheetML.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from fmiqa.errors import DatasetError

__all__ = ["read_sheet"]


def read_sheet(path: Path, sheet: str) -> list[tuple[int, list[str]]]:
    """The rows of one sheet of a workbook.

    Args:
        path: The .xlsx file.
        sheet: The name of the sheet.

    Returns:
        Number (from 1) and cells of each row that is stored, as text from column A on; empty cells are "".
        Numbers are written as they are stored, formulas stand for the value that was stored with them.

    Raises:
        DatasetError: Not a readable workbook, or none with such a sheet.
    """
    try:
        with ZipFile(path) as book:
            parts = _sheets(book)
            if sheet not in parts:
                raise DatasetError(f"{path} has no sheet {sheet!r}; sheets there are: {', '.join(parts)}")
            return _rows(ElementTree.fromstring(book.read(parts[sheet])), _shared_strings(book))
    except (BadZipFile, ElementTree.ParseError, OSError, KeyError, ValueError, IndexError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path} is not a readable .xlsx workbook ({type(error).__name__}: {error}); "
            f"fetch it again, or save the sheet {sheet!r} beside it as a CSV table ({path.stem}.csv)"
        ) from error


def _sheets(book: ZipFile) -> dict[str, str]:
    """Where in the archive each sheet lies."""
    targets = {
        relation.attrib["Id"]: relation.attrib["Target"]
        for relation in ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    }
    sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iterfind("{*}sheets/{*}sheet")
    # The relation's id is the one attribute with a namespace; strict and transitional files differ in which.
    ids = {s.attrib["name"]: next(value for key, value in s.attrib.items() if key.endswith("}id")) for s in sheets}
    return {name: posixpath.join("xl", targets[key]).lstrip("/") for name, key in ids.items()}


def _shared_strings(book: ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(item) for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iterfind("{*}si")]


def _text(item: ElementTree.Element) -> str:
    """A string, plain or in runs of different fonts; phonetic hints are none of it."""
    return "".join(t.text or "" for t in (*item.iterfind("{*}t"), *item.iterfind("{*}r/{*}t")))


def _rows(sheet: ElementTree.Element, shared: list[str]) -> list[tuple[int, list[str]]]:
    rows = []
    number = 0
    for row in sheet.iterfind("{*}sheetData/{*}row"):
        number = int(row.get("r", number + 1))
        cells: list[str] = []
        for cell in row.iterfind("{*}c"):
            column = _column(cell.attrib["r"]) if "r" in cell.attrib else len(cells)
            cells += [""] * (column - len(cells)) + [_value(cell, shared)]
        rows.append((number, cells))
    return rows


def _column(place: str) -> int:
    """0 for A7, 26 for AA7."""
    number = 0
    for letter in re.sub(r"\d", "", place):
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        inline = cell.find("{*}is")
        return "" if inline is None else _text(inline)
    value = cell.findtext("{*}v") or ""
    return shared[int(value)] if cell.get("t") == "s" and value else value
