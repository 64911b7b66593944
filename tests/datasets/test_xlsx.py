from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from fmiqa.datasets.xlsx import read_sheet
from fmiqa.errors import DatasetError

openpyxl = pytest.importorskip("openpyxl")


def test_cells_are_those_that_another_library_wrote(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("scores & more")
    for place, value in {"B2": "a < b", "AA2": 0.125, "C4": 1600, "D4": True, "E4": " jpeg 2000 ", "A4": -1e-7}.items():
        sheet[place] = value
    book.save(tmp_path / "book.xlsx")
    rows = dict(read_sheet(tmp_path / "book.xlsx", "scores & more"))
    assert rows[2] == ["", "a < b", *[""] * 24, "0.125"]
    assert [cell.strip() for cell in rows[4]] == ["-1e-07", "", "1600", "1", "jpeg 2000"]
    assert read_sheet(tmp_path / "book.xlsx", "Sheet") == []


def test_forms_that_spreadsheet_programs_write(tmp_path: Path) -> None:
    """Strings in runs with phonetic hints, inline strings, stored values of formulas, absolute targets, no places."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    with ZipFile(tmp_path / "book.xlsx", "w") as book:
        book.writestr(
            "xl/workbook.xml",
            f'<workbook {main} xmlns:r="{relations}"><sheets><sheet name="s" sheetId="1" r:id="rId7"/></sheets>'
            "</workbook>",
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId7" Type="t" Target="/xl/worksheets/first.xml"/></Relationships>',
        )
        book.writestr(
            "xl/sharedStrings.xml",
            f"<sst {main}><si><t>plain</t></si>"
            "<si><r><t>in </t></r><r><t>runs</t></r><rPh><t>hint</t></rPh></si></sst>",
        )
        book.writestr(
            "xl/worksheets/first.xml",
            f'<worksheet {main}><sheetData><row><c t="s"><v>1</v></c><c t="s"><v>0</v></c></row>'
            '<row r="5"><c r="B5" t="inlineStr"><is><t>inline</t></is></c><c r="C5"><f>1/2</f><v>0.5</v></c>'
            '<c r="D5"/><c r="E5" t="str"><f>A1</f><v>text</v></c></row></sheetData></worksheet>',
        )
    assert read_sheet(tmp_path / "book.xlsx", "s") == [
        (1, ["in runs", "plain"]),
        (5, ["", "inline", "0.5", "", "text"]),
    ]


def test_damage_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    openpyxl.Workbook().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"book.xlsx is not a readable .xlsx .*BadZipFile.*fetch it again.*book.csv"):
        read_sheet(path, "Sheet")
    with ZipFile(path, "w") as book:
        book.writestr("readme.txt", "a zip, but no workbook")
    with pytest.raises(DatasetError, match="not a readable"):
        read_sheet(path, "Sheet")
    with pytest.raises(DatasetError, match="not a readable"):
        read_sheet(tmp_path / "nowhere.xlsx", "Sheet")
