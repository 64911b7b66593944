"""`fmiqa reproduce`: roots, names and options arrive; the table is the library's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmiqa import Reproduction, cli, reproduce
from fmiqa.datasets import CIDGD, Demo

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")

SMALL = ["--weights", "random", "--layers", "conv1", "--folds", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the documented layout of CID:GD."""
    folder = tmp_path_factory.mktemp("cidgd")
    Demo(references=4, size=64, levels=2).write(folder)
    return folder


def test_the_table_is_that_of_the_library(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "table1", "--cidgd", str(root), "--name", "cidgd=Mine", *SMALL, "--out"]
    assert cli.main([*command, str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = reproduce("table1", {"cidgd": CIDGD(root, name="Mine")}, weights=None, layers=["conv1"], folds=2)
    assert {k: v for k, v in printed.items() if k != "files"} == json.loads(json.dumps(expected.to_dict()))
    assert sorted(printed["files"]) == ["json", "maps", "markdown", "plot"]
    assert all(Path(path).is_file() for path in printed["files"].values())
    assert Reproduction.load(tmp_path / "table1.json").to_dict() == expected.to_dict()
    assert cli.main([*command, str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert str(expected) in text
    assert "Mine, in place of CID:GD [1]" in text


def test_options_arrive(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "table2", "--cidgd", str(root), "--weights", "random", "--layers", "conv1_1"]
    more = ["--stage", "conv", "--folds", "3", "--seed", "1", "--pool", "layer_geometric", "--device", "cpu"]
    assert cli.main([*command, *more, "--out", str(tmp_path), "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    asked = {"network": "vgg16", "stage": "conv", "folds": 3, "seed": 1, "pool": "layer_geometric"}
    assert asked.items() <= options.items()
    assert options["maps"] == {"conv1_1": 64}
    assert (tmp_path / "cidgd-vgg16" / "scores.safetensors").is_file()


def test_errors_are_explained(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "table1", *SMALL, "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--csiq", str(tmp_path / "missing")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert cli.main([*command, "--cidgd", str(root)]) == 0
    assert cli.main([*command, "--cidgd", str(root), "--folds", "3"]) == 1
    assert "folds: then 2, now 3" in capsys.readouterr().err
    assert cli.main(["reproduce", "table1", "--cidgd", str(root), "--weights", "vgg16=random", "--out", "o"]) == 1
    assert "not of vgg16" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_work(root: Path, tmp_path: Path) -> None:
    command = ["reproduce", "table1", "--cidgd", str(root), *SMALL, "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fmiqa"]
    for _ in range(2):  # the second takes up what the first kept
        done = subprocess.run(
            [*torchrun, *command, str(tmp_path / "two")], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written to") == 1
    assert cli.main([*command, str(tmp_path / "one")]) == 0
    assert (tmp_path / "two" / "table1.json").read_text() == (tmp_path / "one" / "table1.json").read_text()
    assert sorted(os.listdir(tmp_path / "two" / "cidgd-alexnet")) == sorted(os.listdir(tmp_path / "one/cidgd-alexnet"))
