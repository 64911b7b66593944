"""`fmiqa merge`: the shards that `fmiqa matrix --shard` wrote become the file of one run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fmiqa import ScoreMatrix, cli
from fmiqa._result import Saved
from fmiqa.scoring.checkpoint import Checkpoint

DataOptions = Callable[..., list[str]]


@pytest.fixture
def sharded(data_options: DataOptions, tmp_path: Path) -> Path:
    """The name of a score matrix, with two shards beside it."""
    out = tmp_path / "scores.safetensors"
    for shard in ("2/2", "1/2"):
        assert cli.main(["matrix", *data_options(), "--out", str(out), "--shard", shard]) == 0
    return out


def test_merged_shards_are_the_matrix_of_one_command(
    sharded: Path, scores_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    shards = [str(sharded.with_name(f"scores.shard-{i}-of-2.safetensors")) for i in (1, 2)]
    assert cli.main(["merge", *shards[::-1], "--out", str(sharded), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["file"], printed["shards"], printed["merged"]) == (str(sharded), shards[::-1], True)
    assert (printed["images"], printed["references"]) == (36, 3)
    merged, one = ScoreMatrix.load(sharded), ScoreMatrix.load(scores_file)
    assert torch.equal(merged.values, one.values)
    assert torch.equal(merged.targets, one.targets)
    assert merged.to_dict() == one.to_dict()

    assert cli.main(["merge", "--out", str(sharded), "--remove"]) == 0
    out = capsys.readouterr().out
    assert "from 2 shards, which are removed now" in out
    assert f"{sharded} was there already and is left as it is" in out
    assert os.listdir(sharded.parent) == [sharded.name]
    assert cli.main(["merge", "--out", str(sharded)]) == 0


def test_what_keeps_shards_from_being_merged_is_said(
    sharded: Path, data_options: DataOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    sharded.with_name("scores.shard-1-of-2.safetensors").unlink()
    assert cli.main(["merge", "--out", str(sharded)]) == 1
    assert "shard 1 of 2 is missing; compute it with shard=(1, 2) or --shard 1/2" in capsys.readouterr().err
    assert not sharded.exists()
    named = str(sharded.with_name("scores.shard-2-of-2.safetensors"))
    assert cli.main(["merge", named, "--out", named]) == 1
    assert "is what the command reads" in capsys.readouterr().err


def test_a_shard_prints_json_that_names_its_file(
    sharded: Path, data_options: DataOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(["matrix", *data_options(), "--out", str(sharded), "--shard", "1/2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["file"] == str(sharded.with_name("scores.shard-1-of-2.safetensors"))
    assert (printed["shard"], printed["computed"], printed["images"]) == ([1, 2], False, 12)


def test_no_shard_is_computed_beside_a_finished_matrix(
    sharded: Path, data_options: DataOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["matrix", *data_options(), "--out", str(sharded), "--shard", "1/2"]
    assert cli.main(["merge", "--out", str(sharded)]) == 0
    assert cli.main(command) == 0  # it is there
    sharded.with_name("scores.shard-1-of-2.safetensors").unlink()
    capsys.readouterr()
    assert cli.main(command) == 1
    assert "exists already; delete it to compute it again" in capsys.readouterr().err


def test_an_interrupted_shard_names_its_parts(
    data_options: DataOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Checkpoint.write

    def write_and_stop(checkpoint: Checkpoint, name: str, piece: Saved) -> None:
        write(checkpoint, name, piece)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", write_and_stop)
    out = tmp_path / "scores.safetensors"
    assert cli.main(["matrix", *data_options(), "--out", str(out), "--shard", "1/2"]) == 130
    message = capsys.readouterr().err
    assert f"Finished parts are kept in {tmp_path / 'scores.shard-1-of-2.safetensors.parts'}" in message
