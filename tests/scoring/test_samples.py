"""The table of images: what is known of each, in the order of the matrix."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fmiqa import InputError, MapIndex, ScoreMatrix, write_samples


@pytest.fixture
def scores() -> ScoreMatrix:
    targets = torch.tensor([1.0, 2.5, -3.0], dtype=torch.float64)
    names, groups = ["é1", "a2", "b1"], ["a", "a", "b"]
    return ScoreMatrix(torch.rand(3, 2), MapIndex(["c:0", "c:1"]), targets, groups, names, ["blur", "jpeg", "blur"])


def test_the_table_is_that_of_the_matrix_and_of_its_store(scores: ScoreMatrix, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    expected = {
        "name": scores.names,
        "reference": scores.groups,
        "distortion": scores.distortions,
        "score": scores.targets.tolist(),
    }
    for number, given in enumerate([scores, scores.to_store(tmp_path / "scores")]):
        path = tmp_path / f"{number}.parquet"
        write_samples(given, path)
        assert parquet.read_table(path).to_pydict() == expected


def test_a_missing_package_is_named(scores: ScoreMatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'fmiqa\[table\]'"):
        write_samples(scores, tmp_path / "samples.parquet")
