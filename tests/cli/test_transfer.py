"""`fmiqa transfer`: the figures are the library's, each set under its name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from fmiqa import CrossDataset, ScoreMatrix, cli, cross_dataset


@pytest.fixture
def other_file(numbers_file: Path, tmp_path: Path) -> Path:
    """Other images at the same maps."""
    scores = ScoreMatrix.load(numbers_file)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    targets = scores.targets + 0.2 * scores.targets[order]
    path = tmp_path / "other.safetensors"
    replace(scores, targets=targets, groups=[f"o{g}" for g in scores.groups], options={"dataset": "others"}).save(path)
    return path


def test_the_matrix_is_that_of_the_library(
    numbers_file: Path, other_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "t.json", tmp_path / "t.png"
    files = [str(numbers_file), f"mine={other_file}"]
    command = ["transfer", *files, "--max-maps", "3", "--folds", "4", "--seed", "2", "--out", str(out)]
    assert cli.main([*command, "--plot", str(plot), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    matrices = {"numbers": ScoreMatrix.load(numbers_file), "mine": ScoreMatrix.load(other_file)}
    expected = cross_dataset(matrices, max_maps=3, folds=4, seed=2)
    assert printed["plcc"] == expected.plcc.tolist()
    assert printed["files"] == {"out": str(out), "plot": str(plot)}
    assert CrossDataset.load(out).to_dict() == expected.to_dict()
    with Image.open(plot) as picture:
        assert picture.width > 600
    assert cli.main(command) == 0
    assert str(expected) in capsys.readouterr().out


def test_sets_go_by_their_own_names_unless_given_others(
    numbers_file: Path, other_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["transfer", str(numbers_file), str(other_file), "--folds", "0", "--max-maps", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["datasets"] == ["numbers", "others"]
    assert printed["held_out_plcc"] == [[], []]
    with pytest.raises(SystemExit):
        cli.main(["transfer", str(numbers_file), str(numbers_file)])
    assert "'numbers'; give names" in capsys.readouterr().err


def test_errors_are_explained(
    numbers_file: Path, other_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = ScoreMatrix.load(other_file)
    scores.columns(["conv1:1", "conv1:3"]).save(tmp_path / "few.safetensors")
    assert cli.main(["transfer", str(numbers_file), f"few={tmp_path / 'few.safetensors'}"]) == 1
    assert "few has other maps" in capsys.readouterr().err
    assert cli.main(["transfer", str(numbers_file), str(other_file), "--plot", "t.docx"]) == 1
    assert "docx" in capsys.readouterr().err
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(numbers_file.read_bytes()[:99])
    assert cli.main(["transfer", str(numbers_file), str(damaged)]) == 1
    assert "damaged.safetensors is damaged" in capsys.readouterr().err
