from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fmiqa.datasets import TID2008, TID2013
from fmiqa.errors import DatasetError


def test_whole_set(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.tid2008(tmp_path, range(1, 26), range(1, 18))
    data = TID2008(tmp_path)
    assert repr(data).startswith("<TID2008: 1700 images, 25 references, 17 distortion types, ")
    assert {record.score_std for record in data.records} == {0.5}
    with pytest.raises(DatasetError, match="found 1700 images and 1700 scores, the whole set has 3000"):
        TID2013(tmp_path)


def test_scores_of_tid2013_are_refused(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.tid2008(tmp_path)
    table = tmp_path / "mos_with_names.txt"
    table.write_text("5.5 I01_18_1.bmp\n5.5 I01_01_5.bmp\n" + table.read_text())
    (tmp_path / "mos_std.txt").unlink()
    with pytest.raises(DatasetError) as caught:
        TID2008(tmp_path, partial=True)
    assert [f"mos_with_names.txt, line {n + 1}: expected" in line for n, line in enumerate(caught.value.problems)] == [
        True,
        True,
    ]


def test_scores_off_the_scale(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.tid2008(tmp_path)
    table = tmp_path / "mos_with_names.txt"
    _, *lines = table.read_text().splitlines()
    table.write_text("\n".join(["52 I01_01_1.bmp", *lines]))
    with pytest.raises(DatasetError, match=r"line 1: i01_01_1.bmp has the score 52, expected 0 to 9"):
        TID2008(tmp_path, partial=True)
