"""The score matrix as a thing: rows, columns, pooling, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fmiqa import FileFormatError, InputError, MapIndex, ScoreMatrix, pool_scores
from fmiqa._io import save_tensors


@pytest.fixture
def scores() -> ScoreMatrix:
    return ScoreMatrix(
        torch.rand(4, 3, generator=torch.Generator().manual_seed(0)),
        MapIndex(["conv1:0", "conv1:1", "conv2:0"]),
        torch.arange(4, dtype=torch.float64),
        ["a", "a", "b", "b"],
        ["a1", "a2", "b1", "b2"],
        ["blur", "jpeg", "blur", "jpeg"],
        {"network": "alexnet", "dataset": "Toy", "measure": {"name": "ssim", "data_range": 1.0}},
    )


def test_rows_and_columns(scores: ScoreMatrix) -> None:
    some = scores.rows([3, 0])
    assert torch.equal(some.values, scores.values[[3, 0]])
    assert some.targets.tolist() == [3, 0]
    assert (some.groups, some.names, some.distortions) == (["b", "a"], ["b2", "a1"], ["jpeg", "blur"])
    assert scores.rows(torch.tensor([True, False, True, False])).names == ["a1", "b1"]
    assert scores.rows([-1]).names == ["b2"]
    assert len(scores.rows([])) == 0
    part = scores.columns(["conv2:0", "conv1:0"])
    assert torch.equal(part.values, scores.values[:, [2, 0]])
    assert [str(m) for m in part.maps] == ["conv2:0", "conv1:0"]
    assert part.options == scores.options
    with pytest.raises(InputError, match="conv9:0"):
        scores.columns(["conv9:0"])


def test_pool(scores: ScoreMatrix) -> None:
    torch.testing.assert_close(scores.pool(), scores.values.double().mean(1))
    torch.testing.assert_close(scores.pool(["conv1:1"]), scores.values[:, 1].double())
    expected = pool_scores(scores.values.double(), scores.maps, pool="layer_geometric")
    assert torch.equal(scores.pool(pool="layer_geometric"), expected)


def test_save_and_load(scores: ScoreMatrix, tmp_path: Path) -> None:
    scores.save(tmp_path / "x.safetensors")
    again = ScoreMatrix.load(tmp_path / "x.safetensors")
    assert torch.equal(again.values, scores.values)
    assert torch.equal(again.targets, scores.targets)
    assert again.targets.dtype == torch.float64
    for name in ("maps", "groups", "names", "distortions", "options"):
        assert getattr(again, name) == getattr(scores, name)
    scores.columns(["conv2:0"]).rows([1]).save(tmp_path / "part.safetensors")  # views of the whole
    assert ScoreMatrix.load(tmp_path / "part.safetensors").values.item() == scores.values[1, 2].item()


def test_files_that_are_no_score_matrix_are_refused(scores: ScoreMatrix, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no file"):
        ScoreMatrix.load(tmp_path / "absent")
    path = tmp_path / "x.safetensors"
    save_tensors(path, "fmiqa score matrix 1", {"values": scores.values}, {"maps": ["conv1:0"]})
    with pytest.raises(FileFormatError, match="not a complete fmiqa score matrix"):
        ScoreMatrix.load(path)
    header = {"maps": ["conv1:0"], "groups": ["a"], "names": ["a1"]}
    save_tensors(path, "fmiqa score matrix 1", {"values": scores.values, "targets": scores.targets}, header)
    with pytest.raises(FileFormatError, match="a row an image"):
        ScoreMatrix.load(path)


def test_parts_of_different_length_are_refused(scores: ScoreMatrix) -> None:
    with pytest.raises(InputError, match="3 targets"):
        ScoreMatrix(scores.values, scores.maps, scores.targets[:3], scores.groups, scores.names)
    with pytest.raises(InputError, match="1 distortions"):
        ScoreMatrix(scores.values, scores.maps, scores.targets, scores.groups, scores.names, ["blur"])


def test_repr_says_what_it_is(scores: ScoreMatrix) -> None:
    assert repr(scores) == "ScoreMatrix(4 images of 2 references x 3 maps, alexnet on Toy)"
