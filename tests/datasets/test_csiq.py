from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from fmiqa.datasets import CSIQ
from fmiqa.errors import DatasetError

openpyxl = pytest.importorskip("openpyxl")


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        CSIQ(root, partial=True)
    return caught.value.problems


def as_text(grid: list[list[object]], separator: str = ",") -> str:
    return "\r\n".join(separator.join("" if cell is None else str(cell) for cell in row) for row in grid)


def write(root: Path, grid: list[list[object]], title: str = "all_by_image") -> None:
    book = openpyxl.Workbook()
    book.active.title = title
    for row in grid:
        book.active.append(row)
    book.save(root / "csiq.DMOS.xlsx")


def test_whole_set(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.csiq(tmp_path, trees.names)
    data = CSIQ(tmp_path)
    assert data.name == "CSIQ"
    assert (len(data), len(set(data.reference_ids))) == (866, 30)
    assert Counter(data.distortions) == {
        "additive white Gaussian noise": 150,
        "Gaussian blur": 150,
        "global contrast decrements": 116,
        "additive pink Gaussian noise": 150,
        "JPEG compression": 150,
        "JPEG2000 compression": 150,
    }
    assert {record.score_std for record in data.records} == {0.05}


def test_higher_is_better(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.csiq(tmp_path)
    data = CSIQ(tmp_path, partial=True)
    mild, strong = (data.names.index(f"1600.awgn.{level}.png") for level in (1, 5))
    assert data.targets[mild] > data.targets[strong]
    assert data.records[mild].raw_score < data.records[strong].raw_score  # type: ignore[operator]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_of_the_sheet(separator: str, encoding: str, trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.csiq(tmp_path)
    expected = CSIQ(tmp_path, partial=True)
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    grid = trees.csiq_grid(trees.csiq_rows(trees.Tree("csiq", tmp_path)))
    (tmp_path / "CSIQ.dmos.CSV").write_bytes(as_text(grid, separator).encode(encoding))
    assert CSIQ(tmp_path, partial=True).records == expected.records


def test_a_csv_without_empty_rows_and_columns(trees: SimpleNamespace, tmp_path: Path) -> None:
    rows = trees.csiq_rows(trees.Tree("csiq", tmp_path))
    head: list[object] = ["image", "dst_type", "dst_lev", "dmos", "dmos_std", "dst_idx"]  # any order
    grid = [head, *([row[0], row[2], float(str(row[3])), row[5], row[4], row[1]] for row in rows)]
    (tmp_path / "csiq.DMOS.csv").write_text(as_text(grid))
    assert CSIQ(tmp_path, partial=True).records[0].level == 1


def test_every_kind_of_damage_at_once(trees: SimpleNamespace, tmp_path: Path) -> None:
    rows = trees.csiq_rows(trees.Tree("csiq", tmp_path))
    rows[0][5] = "low"
    rows[1][5] = 1.25
    rows[2][5] = None
    rows[3][2] = "haze"
    rows[4][3] = 2.5
    rows[5][4] = -0.1
    rows[7] = list(rows[6])
    rows[8][5] = "nan"
    rows[9][0] = None
    rows[10][5] = "#DIV/0!"
    write(tmp_path, trees.csiq_grid(rows))
    found = problems(tmp_path)
    expected = [  # the header is in row 4
        ("csiq.DMOS.xlsx, row 5:", "'dmos' holds 'low', expected a finite number"),
        ("row 6:", "1600.awgn.2.png has the score 1.25, expected 0 to 1", "score table"),
        ("row 7:", "'dmos' is empty"),
        ("row 8:", "'dst_type' holds 'haze'", "jpeg 2000"),
        ("row 9:", "'dst_lev' holds '2.5'"),
        ("row 10:", "'dmos_std' holds '-0.1'"),
        ("row 12:", "1600.blur.2.png has a second score", "row 11", "keep one"),
        ("row 13:", "'nan'"),
        ("row 14:", "'image' is empty"),
        ("row 15:", "'#DIV/0!'"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    # Eight rows cannot be read, and one image lost its score to another: theirs are images without a score.
    unscored = [line for line in found if "has an image but no score" in line]
    assert len(unscored) == 9
    assert len(found) == len(expected) + 9


def test_a_row_that_is_missing_or_too_much(trees: SimpleNamespace, tmp_path: Path) -> None:
    tree = trees.csiq(tmp_path, trees.names)
    rows = trees.csiq_rows(tree, trees.names)
    write(tmp_path, trees.csiq_grid(rows[:-1]))
    with pytest.raises(DatasetError) as caught:
        tree.load()
    assert "found 866 images and 865 scores, the whole set has 866" in caught.value.problems[0]
    write(tmp_path, trees.csiq_grid([*rows, ["zoo", 1, "noise", 1, 0.1, 0.5]]))
    with pytest.raises(DatasetError) as caught:
        tree.load()
    assert "866 images and 867 scores" in caught.value.problems[0]
    assert any("zoo.awgn.1.png has a score but no usable image" in line for line in caught.value.problems)


def test_workbooks_that_cannot_be_read(trees: SimpleNamespace, tmp_path: Path) -> None:
    rows = trees.csiq_rows(trees.Tree("csiq", tmp_path))
    (tmp_path / "csiq.DMOS.xlsx").write_bytes(b"<html>not found</html>")
    with pytest.raises(DatasetError, match=r"csiq.DMOS.xlsx is not a readable .xlsx .*csiq.DMOS.csv"):
        CSIQ(tmp_path, partial=True)
    write(tmp_path, trees.csiq_grid(rows), title="by_type")
    with pytest.raises(DatasetError, match=r"no sheet 'all_by_image'; sheets there are: by_type"):
        CSIQ(tmp_path, partial=True)
    write(tmp_path, [row[:-1] for row in trees.csiq_grid(rows)])
    with pytest.raises(DatasetError, match=r"no row with the columns image, .*dmos; expected the sheet"):
        CSIQ(tmp_path, partial=True)
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    (tmp_path / "csiq.DMOS.csv").write_bytes("imagé".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        CSIQ(tmp_path, partial=True)
