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


def test_stacked_parts_are_the_rows_one_below_the_other(scores: ScoreMatrix) -> None:
    again = ScoreMatrix.stack([scores.rows([2, 0]), scores.rows([1]), scores.rows([3])])
    expected = scores.rows([2, 0, 1, 3])
    assert torch.equal(again.values, expected.values)
    assert torch.equal(again.targets, expected.targets)
    for name in ("maps", "groups", "names", "distortions", "options", "datasets"):
        assert getattr(again, name) == getattr(expected, name)
    assert again.datasets is None


def test_stacked_data_sets_keep_their_names(scores: ScoreMatrix, tmp_path: Path) -> None:
    both = ScoreMatrix.stack({"one": scores, "two": scores.rows([3, 1])})
    assert both.datasets == ["one"] * 4 + ["two"] * 2
    assert both.names == ["a1", "a2", "b1", "b2", "b2", "a2"]
    assert both.options == {**scores.options, "dataset": "one + two", "datasets": {"one": 4, "two": 2}}
    assert scores.options["dataset"] == "Toy"
    some = both.rows([5, 0, 4])
    assert (some.datasets, some.names) == (["two", "one", "two"], ["a2", "a1", "b2"])
    assert both.columns(["conv2:0"]).datasets == both.datasets
    both.save(tmp_path / "both.safetensors")
    again = ScoreMatrix.load(tmp_path / "both.safetensors")
    assert (again.datasets, again.options) == (both.datasets, both.options)
    assert torch.equal(again.values, both.values)


def test_files_of_before_data_sets_were_stacked_load(scores: ScoreMatrix, tmp_path: Path) -> None:
    header = scores.to_dict()
    del header["datasets"]
    save_tensors(tmp_path / "old.safetensors", "fmiqa score matrix 1", scores.tensors(), header)
    assert ScoreMatrix.load(tmp_path / "old.safetensors").datasets is None


def test_stacked_parts_of_which_some_lack_distortions_have_none(scores: ScoreMatrix) -> None:
    lacking = ScoreMatrix(scores.values, scores.maps, scores.targets, scores.groups, scores.names)
    assert ScoreMatrix.stack([scores, lacking]).distortions is None
    assert ScoreMatrix.stack({"a": lacking, "b": scores}).datasets == ["a"] * 4 + ["b"] * 4


def test_what_cannot_be_stacked_is_named(scores: ScoreMatrix) -> None:
    for nothing in ([], {}):
        with pytest.raises(InputError, match="score matrices of the same maps"):
            ScoreMatrix.stack(nothing)
    with pytest.raises(InputError, match="score matrices of the same maps"):
        ScoreMatrix.stack({"a": scores, "b": scores.columns(["conv1:1", "conv1:0", "conv2:0"])})
    other = ScoreMatrix(
        scores.values, scores.maps, scores.targets, scores.groups, scores.names, options={"network": "vgg16"}
    )
    with pytest.raises(InputError, match="network: 'alexnet' in a, 'vgg16' in b"):
        ScoreMatrix.stack({"a": scores, "b": other})
    with pytest.raises(InputError, match="2 datasets"):
        ScoreMatrix(scores.values, scores.maps, scores.targets, scores.groups, scores.names, datasets=["a", "b"])
    for wrong in ([scores, scores.values], {"a": scores, "b": 3}):
        with pytest.raises(InputError, match="ScoreMatrix objects"):
            ScoreMatrix.stack(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name of a data set is a text, got 1"):
        ScoreMatrix.stack({1: scores, 2: scores})  # type: ignore[dict-item]
