"""CSIQ: 30 references x 6 distortion types x 3 to 5 levels, 866 images with DMOS.

Source: E. C. Larson, D. M. Chandler, "Most apparent distortion: full-reference image quality assessment and the
role of strategy", Journal of Electronic Imaging 19(1) (2010).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from fmiqa.datasets.base import Record
from fmiqa.datasets.folders import Folder
from fmiqa.datasets.published import Found, PublishedDataset, Whole
from fmiqa.datasets.table import Row, deviation, read_text, whole_number
from fmiqa.datasets.xlsx import read_sheet
from fmiqa.errors import DatasetError

__all__ = ["CSIQ"]

_COLUMNS = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
_SHEET = "all_by_image"
_TABLES = ("csiq.DMOS.xlsx", "csiq.DMOS.csv")
_TYPES = {  # as the table has them: folder, part of the files' names, published name
    "noise": ("awgn", "AWGN", "additive white Gaussian noise"),
    "blur": ("blur", "BLUR", "Gaussian blur"),
    "contrast": ("contrast", "contrast", "global contrast decrements"),
    "fnoise": ("fnoise", "fnoise", "additive pink Gaussian noise"),
    "jpeg": ("jpeg", "JPEG", "JPEG compression"),
    "jpeg 2000": ("jpeg2000", "jpeg2000", "JPEG2000 compression"),
}


class CSIQ(PublishedDataset):
    """CSIQ as it is distributed; the published scores are DMOS, 0 to 1, lower = better, and are negated.

    The folder holds `src_imgs/1600.png` ..., `dst_imgs/awgn/1600.AWGN.1.png` ... (six folders: awgn, blur, contrast,
    fnoise, jpeg, jpeg2000) and `csiq.DMOS.xlsx`, of which the sheet all_by_image is read (image, dst_idx, dst_type,
    dst_lev, dmos_std, dmos; wherever in the sheet that header stands). The same sheet saved as `csiq.DMOS.csv` will
    do too. A sample's name is the file's in lower case ("1600.awgn.1.png"), its reference id "1600".

    Args:
        root: The folder that holds those entries, in any letter case.
        partial: Take a part as it is: scores without an image are left out.
        name: The name for reports; by default "CSIQ", and "CSIQ (partial, n of 866)" for a part.

    Raises:
        DatasetError: Entries, images or scores are missing, malformed or contradictory; all are named.

    Example:
        >>> CSIQ("/data/csiq")  # doctest: +SKIP
        <CSIQ: 866 images, 30 references, 6 distortion types, scores -1 to 0>
    """

    whole = Whole(
        key="csiq",
        name="CSIQ",
        images=866,
        references=30,
        distortions=6,
        made_of="30 references x 6 types x 5 levels, of contrast 3 to 5",
        scores="DMOS 0 to 1, lower = better",
        scale=(0, 1),
        terms="for research; no licence text known here",
        available_from=("CSIQ Image Quality Database, page of the Computational Perception and Image Quality Lab"),
        citation=(
            "Larson, Chandler, Most apparent distortion: full-reference image quality assessment and the "
            "role of strategy, Journal of Electronic Imaging 19(1), 2010"
        ),
        layout={
            "src_imgs": "the references, 1600.png to womanhat.png",
            "dst_imgs": "folders of distorted images",
            " or ".join(_TABLES): f"the scores (sheet {_SHEET})",
        },
        parts={
            f"dst_imgs/{folder}": f"the distorted images, 1600.{part}.1.png to womanhat.{part}.5.png"
            for folder, part, _ in _TYPES.values()
        },
    )

    def _read(self, root: Folder, problems: list[str]) -> Found:
        table = next(path for name in _TABLES if (path := root.find(name)))
        records, places = [], []
        for number, cells in _rows(table):
            place = f"{table}, row {number}"
            row = Row(cells)
            reference, kind, raw = row.text("image").lower(), row.text("dst_type").lower(), row.number("dmos")
            level = row.optional("dst_lev", whole_number, "a level") if row.text("dst_lev") else None
            score_std = row.optional("dmos_std", deviation, "a number from 0")
            if kind and kind not in _TYPES:
                row.problems.append(f"column 'dst_type' holds {kind!r}, expected one of {', '.join(_TYPES)}")
            problems += [f"{place}: {problem}" for problem in row.problems]
            if row.problems:
                continue
            folder, part, distortion = _TYPES[kind]
            file = f"{reference}.{part}.{level}.png"
            record = Record(
                reference=root.folder("src_imgs").at(f"{reference}.png"),
                distorted=root.folder(f"dst_imgs/{folder}").at(file),
                score=-raw,
                reference_id=reference,
                name=file.lower(),
                distortion=distortion,
                level=level,
                score_std=score_std,
                raw_score=raw,
            )
            records.append(record)
            places.append(place)
        images = [
            name
            for folder, part, _ in _TYPES.values()
            for name in root.folder(f"dst_imgs/{folder}").names
            if re.fullmatch(rf"[^.]+\.{part.lower()}\.\d\.png", name)
        ]
        return Found(records, places, images)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells by column of the rows below the header, which may stand anywhere in the sheet."""
    grid = read_sheet(table, _SHEET) if table.suffix.lower() == ".xlsx" else _read_csv(table)
    rows = iter([(number, [cell.strip() for cell in cells]) for number, cells in grid])
    header = next((cells for _, row in rows if set(_COLUMNS) <= set(cells := [cell.lower() for cell in row])), None)
    if header is None:
        raise DatasetError(
            f"{table} has no row with the columns {', '.join(_COLUMNS)}; "
            f"expected the sheet {_SHEET} of csiq.DMOS.xlsx, unchanged"
        )
    columns = {column: header.index(column) for column in _COLUMNS}
    for number, cells in rows:
        row = {column: cells[i] if i < len(cells) else "" for column, i in columns.items()}
        if any(row.values()):
            yield number, row


def _read_csv(table: Path) -> list[tuple[int, list[str]]]:
    lines = read_text(table).splitlines()
    separator = max(",;\t", key=lambda mark: max((line.count(mark) for line in lines), default=0))
    return list(enumerate(csv.reader(lines, delimiter=separator), start=1))
