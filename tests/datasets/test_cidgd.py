from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fmiqa.datasets import CIDGD
from fmiqa.errors import DatasetError


def test_everything_that_the_table_may_hold(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidgd(tmp_path)
    data = CIDGD(tmp_path)
    assert data.name == "CID:GD"
    assert [record.score_std for record in data.records] == [0.5] * 4
    assert data.ratings is not None
    assert data.ratings[:, 0].tolist() == [2, 1, 2, 1]
    assert data.ratings[:, 1].isnan().all()


def test_the_least_that_the_table_must_hold(trees: SimpleNamespace, tmp_path: Path) -> None:
    for file in ("r.png", "d1.png", "d2.png"):
        trees.put(tmp_path / "deep" / file)
    (tmp_path / "scores.csv").write_text(
        "distorted;score;reference\nDEEP\\d1.png;3;deep/R.png\ndeep/d2.png;4;deep/R.png"
    )
    data = CIDGD(tmp_path)
    assert (data.targets.tolist(), data.names, data.reference_ids) == (
        [3, 4],
        ["DEEP/d1.png", "deep/d2.png"],
        ["deep/r"] * 2,
    )
    assert (data.distortions, data.ratings, data.records[0].level) == (None, None, None)


def test_a_part(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidgd(tmp_path)
    (tmp_path / "Images" / "r1_2.png").unlink()
    data = CIDGD(tmp_path, partial=True)
    assert data.name == "CID:GD (partial, 3 of 4)"
    assert data.ratings is not None
    assert data.ratings[:, 0].tolist() == [2, 2, 1]


def test_every_kind_of_damage_at_once(trees: SimpleNamespace, tmp_path: Path) -> None:
    trees.cidgd(tmp_path)
    table = tmp_path / "scores.csv"
    head, *rows = table.read_text().splitlines()
    rows = [
        rows[0].replace(",3,", ",fine,"),
        rows[1].replace(",2,0.5", ",2.5,-1"),
        rows[2] + "x",
        rows[3],
        rows[3],
        "Originals/r2.png,images/gone.png,3,rotation,1,,1,1",
    ]
    table.write_text("\n".join([head, *rows]))
    with pytest.raises(DatasetError) as caught:
        CIDGD(tmp_path)
    expected = [
        ("scores.csv, line 2:", "'score' holds 'fine'"),
        ("line 3:", "'level' holds '2.5'"),
        ("line 3:", "'score_std' holds '-1'"),
        ("line 4:", "'observer_2' holds 'x', expected a finite number"),
        ("line 6:", "images/r2_2.png has a second score"),
        ("line 7:", "images/gone.png", "no such file"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in caught.value.problems), words
    assert len(caught.value.problems) == len(expected)
