from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fmiqa.datasets import KADID10k
from fmiqa.errors import DatasetError


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(DatasetError) as caught:
        KADID10k(root, partial=True)
    return caught.value.problems


@pytest.mark.slow
def test_whole_set(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.kadid10k(tmp_path, range(1, 82), range(1, 26))
    data = KADID10k(tmp_path)
    assert repr(data).startswith("<KADID-10k: 10125 images, 81 references, 25 distortion types, ")
    assert len(set(data.records)) == 10125


def test_the_column_dmos_rises_with_quality(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.kadid10k(tmp_path)
    data = KADID10k(tmp_path, partial=True)
    mild, strong = (data.records[data.names.index(f"i81_25_0{level}.png")] for level in (1, 5))
    assert mild.score > strong.score
    assert mild.score == mild.raw_score
    assert mild.score_std == 0.5  # the table has the variance, .25


def test_without_variances(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.kadid10k(tmp_path)
    table = tmp_path / "dmos.csv"
    table.write_text(table.read_text("utf-8-sig").replace(",var", "").replace(",0.25", ""))
    assert {record.score_std for record in KADID10k(tmp_path, partial=True).records} == {None}


def test_every_kind_of_damage_at_once(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.kadid10k(tmp_path)
    table = tmp_path / "dmos.csv"
    lines = table.read_text("utf-8-sig").splitlines()
    lines[1] = "I01_01_01.png,I01.png,good,0.25"
    lines[2] = "I01_01_02.png,I01.png,5.5,0.25"
    lines[3] = "I01_01_03.png,I02.png,3,0.25"
    lines[4] = "I01_26_04.png,I01.png,3,0.25"
    lines[5] = "I01_01_05.png,I01.png,3"
    lines[6] = "I01_25_01.png,I01.png,3,-1"
    lines[8] = lines[7]
    lines[9] = "I01_25_04.png,I01.png,,0.25"
    table.write_text("\n".join(lines))
    found = problems(tmp_path)
    expected = [
        ("dmos.csv, line 2:", "'dmos' holds 'good', expected a finite number"),
        ("line 3:", "i01_01_02.png has the score 5.5, expected 1 to 5", "score table"),
        ("line 4:", "the reference of i01_01_03.png is I01.png"),
        ("line 5:", "'dist_img' holds 'i01_26_04.png', expected I01_01_01.png to I81_25_05.png"),
        ("line 6:", "3 cells, the header has 4"),
        ("line 7:", "'var' holds '-1', expected a variance"),
        ("line 9:", "i01_25_02.png has a second score", "line 8", "keep one"),
        ("line 10:", "'dmos' is empty"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), words
    unscored = [line for line in found if "has an image but no score" in line]
    assert len(unscored) == 7
    assert len(found) == len(expected) + 7


def test_a_table_without_its_columns(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.kadid10k(tmp_path)
    table = tmp_path / "dmos.csv"
    table.write_text(table.read_text("utf-8-sig").replace("dmos", "mos"))
    with pytest.raises(DatasetError, match=r"dmos.csv has no column 'dmos'; columns there are: dist_img, ref_img, mos"):
        KADID10k(tmp_path, partial=True)
